"""What an index folder looks like from outside, so that it is read anew when it changed and not else."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from gram.errors import DataError, IndexFolderError
from gram.folders import read_json

State: TypeAlias = frozenset[tuple[str, int, int]]
Identity: TypeAlias = tuple[int, int, int]


def identity_of(folder: Path) -> Identity:
    """What tells a folder from another one under the same name: its number, which a file system gives to the next one
    but one, and when it was filled. Raises IndexFolderError where there is none."""
    try:
        found = folder.stat()
    except OSError as error:
        fix = "put it back, or write it by gram index"
        raise IndexFolderError(f"{folder}: cannot be read ({error.strerror}). Fix: {fix}") from None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def state_of(index: Path, model: Path | None = None) -> State:
    """The files of an index and of its model: name, bytes and time of the last change. Another state is a reason to
    look again at what could not be read. `model` is where it was found, if not where the index says."""
    folders = {index}
    with suppress(DataError, KeyError, TypeError):
        named = model or Path(read_json(index / "meta.json")["model"])
        folders |= {named, index.parent / named.name}
    found = set()
    for folder in folders:
        with suppress(OSError):  # what comes later is another state
            for entry in os.scandir(folder):
                stat = entry.stat()
                found.add((entry.path, stat.st_size, stat.st_ctime_ns))
    return frozenset(found)


def scores_of(model: Path | None) -> State:
    """The same of a model's scores alone, which may be fitted anew to an index that stays; nothing for no folder."""
    found = set()
    with suppress(OSError):  # a model that is gone is told where it is read
        for file in () if model is None else model.glob("scorer*.safetensors"):
            stat = file.stat()
            found.add((str(file), stat.st_size, stat.st_ctime_ns))
    return frozenset(found)
