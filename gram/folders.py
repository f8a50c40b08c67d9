"""Folders and files that appear whole or not at all.

A model takes hours to train and an index is read while its successor is written, so neither may ever be half there.
What is new is written beside its place, under a name that carries the writer's process id, and then moved in.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import secrets
import shutil
import socket
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gram.errors import DataError, IndexFolderError


@contextmanager
def new_folder(path: str | Path, marker: str = "meta.json") -> Iterator[Path]:
    """Yields an empty folder to fill; it takes the place of `path` when the block ends well.

    `marker` is the file that tells a folder of ours from a stranger's: the block must write it, and a folder that lacks
    it is replaced only when it is empty. An error in the block leaves the old folder untouched, and a process killed at
    any point leaves the old one or the new one whole. Raises DataError where `path` must not be replaced.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     with new_folder(Path(place) / "index") as folder:
    ...         write_json(folder / "meta.json", {"version": 1})
    ...     read_json(Path(place) / "index" / "meta.json")
    {'version': 1}
    """
    final = Path(path).resolve()
    _clean_up(final)
    check_replaceable(final, marker)
    final.parent.mkdir(parents=True, exist_ok=True)
    written = _sibling(final, "tmp")
    written.mkdir()
    try:
        yield written
        if not (written / marker).is_file():
            raise ValueError(f"the new {final} has no {marker}; the block must write it")
        for folder, _, names in os.walk(written):
            for name in names:
                _sync(Path(folder, name))
            _sync(Path(folder))
        check_replaceable(final, marker)  # again: the block may have run for hours
        _move_in(written, final)
        _sync(final.parent)
    finally:
        shutil.rmtree(written, ignore_errors=True)  # after an exchange this is the old folder


@contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """Yields a path to write to; the file takes the place of `path` when the block ends well.

    The yielded name ends like the given one (`.npy`, `.csv.gz`), for writers that look at it. A pipe or a device, such
    as `/dev/stdout`, is written to directly. Raises DataError where `path` is a folder.
    """
    given = Path(path)
    if given.is_dir():
        raise DataError(given, "is a folder, and a file is to be written.", "name a file inside it")
    if given.exists() and not given.is_file():
        yield given
        return
    final = given.resolve()
    _clean_up(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    written = _sibling(final, "tmp", "".join(final.suffixes))
    try:
        yield written
        _sync(written)
        written.replace(final)
        _sync(final.parent)
    finally:
        written.unlink(missing_ok=True)


def write_json(path: str | Path, obj: object) -> None:
    """Writes `obj` as readable JSON, whole or not at all. Raises DataError for what JSON cannot hold, NaN included."""
    try:
        text = json.dumps(obj, ensure_ascii=False, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(
            path, f"cannot be written as JSON: {error}.", "keep to finite numbers, text, lists, maps"
        ) from None
    with new_file(path) as written:
        written.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """What `write_json` wrote. Raises DataError for a file that is missing or is not JSON, and names the place."""
    path = Path(path)
    if not path.exists():
        _clean_up(path.parent.resolve())
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(path, "there is no such file.", "check the path, or make its folder again") from None
    except (IsADirectoryError, NotADirectoryError):
        raise DataError(path, "is not a file.", "check the path") from None
    except UnicodeDecodeError as error:
        raise DataError(path, f"is not UTF-8 (byte {error.start}).", "make the file again") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise DataError(
            path, f"is not JSON: {error.msg} at {where}.", "mend that place, or make the file again"
        ) from None


def check_replaceable(path: str | Path, marker: str = "meta.json") -> None:
    """Raises DataError where `new_folder` would: to be asked before hours of work that would end there."""
    final = Path(path).resolve()
    if not final.exists():
        return
    if not final.is_dir():
        raise DataError(final, "is a file, and a folder is to be written.", "remove it, or name another folder")
    if not (final / marker).is_file() and any(final.iterdir()):
        raise DataError(
            final, f"holds files but no {marker}, so it is not ours to replace.", "empty it, or name another folder"
        )


def _move_in(written: Path, final: Path) -> None:
    """Moves `written` to `final`. An old folder ends under the name of `written` or is gone."""
    if not final.exists():
        written.rename(final)
        return
    if _exchange(written, final):
        return
    # Two renames leave a moment without either. A process that dies there leaves the old folder aside, and `_clean_up`
    # of the next writer or reader puts it back.
    aside = _sibling(final, "old")
    final.rename(aside)
    try:
        written.rename(final)
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


def _sibling(final: Path, kind: str, suffix: str = "") -> Path:
    return final.with_name(f".{final.name}.{kind}-{os.getpid()}-{_host()}-{secrets.token_hex(4)}{suffix}")


def _clean_up(final: Path) -> None:
    """Puts back or removes what processes of this host left beside `final` when they died."""
    left_behind = re.compile(rf"\.{re.escape(final.name)}\.(tmp|old)-(\d+)-{_host()}-[0-9a-f]{{8}}(\..*)?")
    if not final.parent.is_dir():
        return
    for sibling in list(final.parent.iterdir()):
        match = left_behind.fullmatch(sibling.name)
        if not match or _alive(int(match[2])):
            continue
        with suppress(OSError):  # another process may be cleaning up too, or this one may only read here
            if match[1] == "old" and not final.exists():
                sibling.rename(final)
            elif sibling.is_dir():
                shutil.rmtree(sibling, ignore_errors=True)
            else:
                sibling.unlink()


def _alive(pid: int) -> bool:
    if os.name != "posix":  # elsewhere os.kill ends the process instead of asking for it
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _host() -> str:
    """Eight hex digits of the host's name: on a shared disk, a process id says nothing about another host's process."""
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _sync(path: Path) -> None:
    """Brings a file or a folder to the disk, so that a power cut after the move finds it there."""
    if os.name != "posix" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load_array(folder: str | Path, name: str, mmap: bool = True) -> NDArray[Any]:
    """One `.npy` of an index folder, read page by page when `mmap`. Raises IndexFolderError, which names the file."""
    path = Path(folder, name)
    try:
        return np.asarray(np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise IndexFolderError(f"{path}: no usable array ({error}). Fix: build the index again") from None
