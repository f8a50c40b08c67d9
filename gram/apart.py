"""The guard of every file that is written by itself: none comes to stand in a model or an index, or over a store."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from gram.errors import DataError
from gram.locks import beside, resolve

CHECKSUMS = "checksums.json"
"""{file: {bytes, crc32}} of a folder. CRC-32 is for damage, not for malice; it reads 3 GB a second, sha256 0.7."""
STORE = ".shop.sqlite"
"""At the end of the name of a live shop's store."""
OF_STORE = tuple(STORE + file for file in ("", "-wal", "-shm", "-journal"))
"""The same of the store and of what SQLite writes beside it."""
_OURS = {CHECKSUMS: b'"crc32"', "meta.json": b'"model_hash"', "config.json": b'"coder"'}
"""What stands in a file of an index or a model; others have files of these names too."""
FIRST = 1 << 20  # bytes of such a file that are looked at


def check_apart(file: str | Path) -> Path:
    """The path without links. Raises DataError for one in a model or an index, which its own writer writes as a whole,
    be it damaged or a draft yet, and for a live shop's store: to be asked before hours of work for a file."""
    final = check_file(file, _OURS)
    for folder in final.parents:
        before, _, name = folder.name.partition(".draft.")
        if name and not before and beside(folder.with_name(name), "lock").exists():
            raise DataError(file, f"lies in what becomes {name}, and goes with it.", "write it elsewhere")
    return final


def check_file(file: str | Path, marks: Collection[str] = (CHECKSUMS,)) -> Path:
    """The same, but that a folder is told by some files alone: one that is being written has no checksums, but may have
    the others, and its writer writes them one by one."""
    final = resolve(file)
    if final.name.endswith(OF_STORE):
        raise DataError(file, "is the store of a live shop.", "name another file")
    for folder in final.parents:
        for mark in marks:
            if not (folder / mark).is_file():  # a pipe would be waited for
                continue
            with suppress(OSError), (folder / mark).open("rb") as opened:
                if _OURS[mark] in opened.read(FIRST):
                    raise DataError(file, "lies in the folder of a model or an index.", "write it elsewhere")
    return final
