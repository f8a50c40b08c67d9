"""Folders and files that appear whole or not at all, tell when they are damaged, and have one writer at a time.

A model takes hours to train and an index is read while its successor is written, so neither may ever be half there.
What is new is written beside its place and then moved in. Its writer holds a lock that the system takes back when the
process dies: so what a dead process left can be told from what is being written.

A link that is turned from one versioned folder to the next would be less code, but people copy, move and archive models
and indexes, and would be left with a link to nothing.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import stat
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gram.apart import CHECKSUMS, check_file
from gram.errors import DataError, GramError, IndexFolderError
from gram.locks import beside, lock_folder, resolve

CHUNK = 1 << 20

FIXES = {
    errno.ENOSPC: "free some space, or name a place on another disk",
    errno.EDQUOT: "free some space, or name a place on another disk",
    errno.EFBIG: "allow larger files, or name a place on another disk",
    errno.EACCES: "get the permission, or name another place",
    errno.EPERM: "get the permission, or name another place",
    errno.EROFS: "name a place that can be written to",
    errno.ELOOP: "remove the link that leads back to itself",
    errno.EBUSY: "name a folder inside it",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENAMETOOLONG: "give it a shorter name",
}

REBUILD = "build the index again"
"""The way out of a damaged index."""


@contextmanager
def new_folder(path: str | Path, marker: str | None = "meta.json", mode: int = 0o777) -> Iterator[Path]:
    """Yields an empty folder to fill; it takes the place of `path`, with checksums, when the block ends well.

    `marker` is the file that tells a folder of ours from a stranger's: the block must write it, and a folder that lacks
    it is replaced only when it is empty. An error in the block leaves the old folder untouched, and a process killed at
    any point leaves the old one or the new one whole. A second writer waits for the first. The new folder is for whom
    the old one was for; without an old one it gets `mode`, less what the umask takes. Raises DataError where `path`
    must not be replaced.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as parent:
    ...     with new_folder(Path(parent) / "index") as folder:
    ...         write_json(folder / "meta.json", {"version": 1})
    ...     read_json(Path(parent) / "index" / "meta.json")
    {'version': 1}
    """
    final = resolve(path)
    _check_ours(final, marker)
    with _naming(final), lock_folder(final, wait=True):
        _clean_up(final)
        draft = beside(final, "draft")
        draft.mkdir(mode)
        try:
            if final.exists():
                _make_like(draft, final.stat())
            yield draft
            if marker is not None:
                _write_checksums(draft, marker, final)
            for folder, _, names in os.walk(draft):
                for name in names:
                    _sync(Path(folder, name))
                _sync(Path(folder))
            _check_ours(final, marker)  # again: the block may have run for hours
            _move_in(draft, final)
            _sync(final.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)  # after an exchange this is the old folder


@contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """Yields a path to write to; the file takes the place of `path` when the block ends well.

    The yielded name ends like the given one (`.npy`, `.csv.gz`), for writers that look at it. A pipe or a device, such
    as `/dev/stdout`, is written to directly. A second writer waits for the first. Raises DataError where `path` is a
    folder, is a live shop's store, or lies in a model or an index.
    """
    given = Path(path)
    if given.is_dir():
        raise DataError(given, "is a folder, and a file is to be written.", "name a file inside it")
    if given.exists() and not given.is_file():
        yield given
        return
    final = check_file(given)
    with _naming(final), lock_folder(final, wait=True):
        draft = beside(final, "draft")
        _remove(draft)
        try:
            yield draft
            _sync(draft)
            draft.replace(final)
            _sync(final.parent)
        finally:
            draft.unlink(missing_ok=True)


def write_json(path: str | Path, obj: object) -> None:
    """Writes `obj` as readable JSON, whole or not at all. Raises DataError for what JSON cannot hold, NaN included."""
    try:
        text = json.dumps(obj, ensure_ascii=False, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(
            path, f"cannot be written as JSON: {error}.", "keep to finite numbers, text, lists, maps"
        ) from None
    with new_file(path) as draft:
        draft.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """What `write_json` wrote. Raises DataError for a file that cannot be read, or is not JSON, with the position."""
    path = Path(path)
    try:
        _put_back(path.parent)
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(path, "there is no such file.", "check the path, or make its folder again") from None
    except (IsADirectoryError, NotADirectoryError):
        raise DataError(path, "is not a file.", "check the path") from None
    except OSError as error:
        raise explain_os_error(error, path) from None
    except UnicodeDecodeError as error:
        raise DataError(path, f"is not UTF-8 (byte {error.start}).", "make the file again") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise DataError(
            path, f"is not JSON: {error.msg} at {where}.", "mend that line, or make the file again"
        ) from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, thousands of brackets
        raise DataError(path, f"is not JSON of ours: {error}.", "make the file again") from None


def check_replaceable(path: str | Path, marker: str = "meta.json") -> None:
    """Raises DataError where `new_folder` would fail: to be asked before hours of work that would end there.

    It writes a small file near `path` and removes it, for permissions do not tell of a full or a read-only disk.
    """
    final = resolve(path)
    _check_ours(final, marker)
    near = next(parent for parent in final.parents if parent.exists())
    try:
        with TemporaryDirectory(prefix=".draft.", dir=near) as probe:
            Path(probe, "probe").write_bytes(bytes(4096))
            _sync(Path(probe, "probe"))
    except OSError as error:
        raise explain_os_error(error, final) from None


def check_free(folder: str | Path, *names: str) -> None:
    """Raises DataError for the first of these files that a folder has: a command asks, unless `--replace` was given,
    before it writes what would take the place of something that cost work."""
    for name in names:
        if Path(folder, name).exists():
            raise DataError(folder, f"holds {name} already.", "name another folder, or replace it with --replace")


def check_folder(path: str | Path, fix: str, error: type[GramError] = GramError) -> None:
    """Raises `error`, with the file and the fix, unless every file is there as `new_folder` left it.

    Files that came later are nobody's business. 170 MB that lie in memory take a tenth of a second.
    """
    folder = Path(path)
    try:
        sums = read_json(folder / CHECKSUMS)
    except DataError as problem:
        raise error(f"{problem.path}: {problem.problem} Fix: {fix}") from None
    if not isinstance(sums, dict) or not sums:
        raise error(f"{folder / CHECKSUMS}: holds no checksums. Fix: {fix}")
    for name, expected in sums.items():
        try:
            found = _checksum(folder / name)
        except OSError as problem:
            raise error(f"{folder / name}: cannot be read ({problem.strerror}). Fix: {fix}") from None
        if found != expected:
            shown = " and ".join(f"{what} {value}" for what, value in found.items())
            raise error(f"{folder / name}: is damaged: {shown}, where {CHECKSUMS} has {expected}. Fix: {fix}")


def check_offsets(start: NDArray[Any], n_values: int, path: str | Path, fix: str) -> None:
    """Raises IndexFolderError unless `start` (K + 1,) can be where K runs of `n_values` values begin and the last ends.

    To be asked of offsets from a file before anything is made as long as they say.
    """
    if start.dtype != np.int64 or start.ndim != 1 or not len(start):
        problem = f"holds {start.dtype} {start.shape}, not int64 (K + 1,)"
    elif start[0] != 0 or start[-1] != n_values:
        problem = f"runs from {start[0]} to {start[-1]}, not from 0 to {n_values}"
    elif (start[1:] < start[:-1]).any():
        problem = f"falls at offset {int(np.argmax(start[1:] < start[:-1])) + 1}"
    else:
        return
    raise IndexFolderError(f"{path}: {problem}. Fix: {fix}")


def load_array(folder: str | Path, name: str, mmap: bool = True) -> NDArray[Any]:
    """One `.npy` of a folder, read page by page when `mmap`. Raises IndexFolderError, which names the file."""
    path = Path(folder, name)
    try:
        # Always mapped first: that fails, before any memory is taken, where a damaged header tells of terabytes.
        array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        return array if mmap else array.copy()
    except Exception as error:  # a header is read as Python source, which fails in ways of its own
        raise IndexFolderError(f"{path}: no usable array ({error}). Fix: make the folder again") from None


def save_runs(folder: str | Path, prefix: str, **arrays: NDArray[Any]) -> None:
    """Writes offsets and what they run over, by their names, into an existing folder as `prefix.NAME.npy`."""
    for name, array in arrays.items():
        np.save(Path(folder, f"{prefix}.{name}.npy"), array, allow_pickle=False)


def load_runs(folder: str | Path, prefix: str, names: Sequence[str], mmap: bool = True) -> list[NDArray[Any]]:
    """What `save_runs` wrote, offsets first. Raises IndexFolderError where offsets and values do not fit."""
    start, *values = (load_array(folder, f"{prefix}.{name}.npy", mmap) for name in names)
    for array in values:
        check_offsets(start, len(array), Path(folder, f"{prefix}.{names[0]}.npy"), REBUILD)
    return [start, *values]


def explain_os_error(error: OSError, path: str | Path = "") -> DataError:
    """What the system refused, as an error that names the path and the fix."""
    fix = FIXES.get(error.errno or 0, "check the path")
    return DataError(path or error.filename or "output", f"{error.strerror or error}.", fix)


def _write_checksums(draft: Path, marker: str, final: Path) -> None:
    """The checksums of what is to become `final`, in it."""
    if not (draft / marker).is_file():
        raise ValueError(f"the new {final} has no {marker}; the block must write it")
    files = sorted(file for file in draft.rglob("*") if file.is_file())
    mode = (draft / marker).stat().st_mode
    for file in files:
        file.chmod(mode)  # safetensors lets nobody else read what it writes
    write_json(draft / CHECKSUMS, {file.relative_to(draft).as_posix(): _checksum(file) for file in files})


def _check_ours(final: Path, marker: str | None) -> None:
    if final.is_symlink():  # it leads to itself: any other link was followed
        raise DataError(final, "is a link that leads back to itself.", FIXES[errno.ELOOP])
    if not final.exists():
        return
    if not final.is_dir():
        raise DataError(final, "is a file, and a folder is to be written.", "remove it, or name another folder")
    if os.path.ismount(final):
        raise DataError(final, "is a mount point, which no folder can take the place of.", FIXES[errno.EBUSY])
    if not (marker and (final / marker).is_file()) and any(final.iterdir()):
        problem = f"holds files but no {marker}, so it is not ours to replace." if marker else "holds files already."
        raise DataError(final, problem, "empty it, or name another folder")


def _make_like(draft: Path, old: os.stat_result) -> None:
    """Gives a draft the owner, the group and the rights of a folder; its writer keeps what he needs to write it."""
    if sys.platform != "win32":
        for owner in ((-1, old.st_gid), (old.st_uid, -1)):
            with suppress(PermissionError):  # only root gives to whom he likes
                os.chown(draft, *owner)
    draft.chmod(stat.S_IMODE(old.st_mode) | stat.S_IRWXU)


def _move_in(draft: Path, final: Path) -> None:
    """Moves `draft` to `final`. An old folder ends under the name of `draft` or is gone."""
    if not final.exists():
        draft.rename(final)
        return
    if _exchange(draft, final):
        return
    # Two renames leave a moment without either. A process that dies there leaves the old folder aside, and the next
    # writer or reader puts it back.
    aside = beside(final, "old")
    final.rename(aside)
    try:
        draft.rename(final)
    except BaseException:
        aside.rename(final)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swaps two names in one step, by Linux's renameat2; False where the system or the file system cannot."""
    if sys.platform != "linux":
        return False
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    here, rename_exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of <linux/fs.h>
    done: int = renameat2(here, os.fsencode(first), here, os.fsencode(second), rename_exchange)
    return done == 0


def _clean_up(final: Path) -> None:
    """Under the lock: puts back or removes what a process left that died while it wrote."""
    draft, aside = beside(final, "draft"), beside(final, "old")
    if aside.is_dir() and not final.exists():
        aside.rename(final)
    for left in (draft, aside):
        _remove(left)


def _remove(left: Path) -> None:
    """What a process left that died, a folder or a file."""
    if left.is_dir():
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.unlink(missing_ok=True)


def _put_back(folder: Path) -> None:
    """For readers: the old folder, where its writer died between two renames."""
    final = resolve(folder)
    if not final.exists() and beside(final, "old").is_dir():
        with suppress(OSError), lock_folder(final, wait=True):  # this process may only read here
            _clean_up(final)


def _checksum(path: Path) -> dict[str, Any]:
    size = crc = 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            size, crc = size + len(chunk), zlib.crc32(chunk, crc)
    return {"bytes": size, "crc32": f"{crc:08x}"}


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Gives system errors that name no file a path: a full disk does not tell which file it was."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error


def _sync(path: Path) -> None:
    """Brings a file or a folder to the disk, so that a power cut after the move finds it there."""
    if os.name != "posix" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
