"""Copies of an index with all that belongs to it, made while others search it, change it or write it anew.

What makes a copy whole is the order. A merge puts a new segment into the old one's place, and only then does the store
forget the changes that the new one holds. So the segment is opened, then the store is copied as it is at one moment,
and if the segment still stands after that, the store had all that came since. A newer segment beside an older store
would not do: that would give its next changes numbers which the segment says it holds, and they would be forgotten.

An open file stays as it is when its folder is replaced and removed. So nobody is kept waiting, and the bytes of the
segment and the model, which take the most time, are copied and checked when the moment has passed.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

from gram.apart import CHECKSUMS, OF_STORE, STORE, check_apart
from gram.coder.folder import check_model, model_hash, read_config
from gram.errors import DataError, GramError, IndexFolderError, ModelError
from gram.folders import CHUNK, explain_os_error, new_folder, write_json
from gram.index.segment import META, check_index, read_meta, same_model
from gram.index.store import Store, store_path
from gram.index.table import OFFSETS
from gram.locks import is_beside, resolve
from gram.search import find_model

log = logging.getLogger("gram.backups")

TRIES = 20
"""How often an index or a model may be written anew in the moment in which it is opened and the store is copied."""
PAUSE = 0.1  # seconds between two tries


def backup(index: str | Path, folder: str | Path, model: str | Path | None = None) -> Path:
    """Writes a folder of an index, its store and its model, from which it is served wherever that is moved; where the
    copy of the index lies. What was answered before it began is in it, and no other process waits for it. A folder that
    is made, and the store in it, are for the user who makes them alone.

    Raises DataError where `folder` holds files or cannot be written, IndexFolderError and ModelError for an index and a
    model that are none, damaged, or not of each other, and for an index that is written anew all the time.
    """
    index, folder, model = _as_path(index), _as_path(folder), None if model is None else _as_path(model)
    name = resolve(index).name
    try:
        _check_there(index, model)  # before anything is made
        check_apart(folder)
        if folder.exists() and folder.samefile(os.curdir):  # it is replaced, and a shell would stay in the old one
            raise DataError(folder, "is the folder you are in.", "name another one, or one inside it")
        with new_folder(folder, marker=None, mode=stat.S_IRWXU) as draft, ExitStack() as opened:
            meta, segment, coder = _open(index, model, draft / f"{name}{STORE}", opened)
            copies = draft / name, draft / _model_name(meta, name)
            segment.copy(copies[0], check_index, IndexFolderError)
            coder.copy(copies[1], check_model, ModelError)
            same_model(index, meta, model_hash(copies[1]))
            if copies[1].name != Path(meta["model"]).name:
                _rename_model(copies[0], copies[1].name)
    except OSError as error:
        raise explain_os_error(error) from None
    return Path(folder, name)


def _as_path(path: str | Path) -> Path:
    """Raises DataError for a text that names no path."""
    try:
        if b"\0" not in os.fsencode(path):
            return Path(path)
    except UnicodeEncodeError:  # half of a character
        pass
    raise DataError(ascii(str(path)), "holds what no name of a file may.", "check the path")


def _check_there(index: Path, model: Path | None) -> None:
    """Raises IndexFolderError and ModelError for what is no index, or no model."""
    read_config(model or find_model(index, read_meta(index)))


class _Folder:
    """A folder whose files are open. So is the folder itself, for while it is, no other one can get its number."""

    def __init__(self, path: Path, opened: ExitStack) -> None:
        self.path, self._handle = path, os.open(path, os.O_RDONLY)
        opened.callback(os.close, self._handle)
        files = (file for file in sorted(path.rglob("*")) if file.is_file())
        self._files = {file.relative_to(path): opened.enter_context(file.open("rb")) for file in files}

    def stands(self) -> bool:
        """Whether no other folder has taken its place."""
        return os.path.samestat(os.fstat(self._handle), self.path.stat())

    def copy(self, path: Path, check: Callable[[Path], object], error: type[GramError]) -> None:
        """Writes its files into another folder. Raises `error`, which names this one, for what a check finds there."""
        path.mkdir(stat.S_IRWXU)
        for name, file in self._files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            with (path / name).open("wb") as copy:
                shutil.copyfileobj(file, copy, CHUNK)
            (path / name).chmod(stat.S_IMODE(os.fstat(file.fileno()).st_mode))
        path.chmod(stat.S_IMODE(os.fstat(self._handle).st_mode) | stat.S_IRWXU)
        try:
            check(path)
        except GramError as problem:
            raise error(str(problem).replace(str(path), str(self.path))) from None


def _open(index: Path, model: Path | None, store: Path, opened: ExitStack) -> tuple[dict[str, Any], _Folder, _Folder]:
    """The segment's `meta`, the segment and its model, which stood at the moment in which the store was copied."""
    for _ in range(TRIES):
        with ExitStack() as trying, suppress(FileNotFoundError):  # of a folder that is being replaced
            segment = _Folder(index, trying)
            meta = read_meta(index)
            coder = _Folder(model or find_model(index, meta), trying)
            _copy_store(index, store)
            if segment.stands() and coder.stands():
                opened.push(trying.pop_all())
                return meta, segment, coder
        log.info("%s or its model was written anew while it was opened: trying again", index)
        time.sleep(PAUSE)
    _check_there(index, model)
    fix = "wait until what writes it, such as gram merge, is done, and do it again"
    raise IndexFolderError(f"{index}: it or its model was written anew {TRIES} times while it was opened. Fix: {fix}")


def _copy_store(index: Path, path: Path) -> None:
    """Copies the store of an index, if it has one. Raises IndexFolderError for a link to one that is not there."""
    path.unlink(missing_ok=True)  # of a try before
    found = store_path(index)
    if found.exists():
        with closing(Store.open(found, read_only=True)) as store:
            store.copy(path)
    elif found.is_symlink():
        fix = "put the store there, or remove the link and lose what changed since the index was written"
        raise IndexFolderError(f"{found}: is a link to a store that is not there. Fix: {fix}")


def _model_name(meta: dict[str, Any], index: str) -> str:
    """What the copy of a model is called: as it was when the index was built, for under that name it is looked for
    beside it, whatever it is called now; another name where that is none, or is for the copy of the index, its store or
    what a writer has beside them."""
    name = Path(meta["model"]).name
    taken = [(index + end).casefold() for end in ("", *OF_STORE)]
    return f"{index}.model" if name in ("", "..") or name.casefold() in taken or is_beside(name.casefold()) else name


def _rename_model(index: Path, name: str) -> None:
    """Has an index look for its model under another name."""
    with new_folder(index, marker=OFFSETS) as draft:
        shutil.copytree(index, draft, dirs_exist_ok=True)
        (draft / CHECKSUMS).unlink()
        write_json(draft / META, read_meta(index) | {"model": name})
