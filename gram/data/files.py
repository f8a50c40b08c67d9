"""Opening what a shop sends, plain, gzipped or zipped, line by line; and writing files whole or not at all."""

from __future__ import annotations

import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TextIO, cast

from gram.errors import BadRow, DataError
from gram.folders import new_file

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
"""What a file is read as, by the end of its name once `.gz` or `.zip` is taken off."""

_BREAKS = re.compile("[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")
_UTF8_BOM, _UTF16_BOMS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")


def one_line(text: str) -> str:
    """The text without outer blanks, its tabs and line breaks each a space: what fits in a cell of a TSV file.

    >>> one_line(" red\\r\\nshoes ")
    'red shoes'
    """
    return _BREAKS.sub(" ", text).strip()


def content_name(path: Path) -> str:
    """The name of what a file holds: `a.csv` for `a.csv` and `a.csv.gz`, a member's own name for a `.zip`."""
    suffix = path.suffix.lower()
    if suffix == ".zip":
        with _explained(path), zipfile.ZipFile(path) as archive:
            return _only_member(path, archive)
    return path.stem if suffix == ".gz" else path.name


def format_of(path: Path) -> str:
    """One of the values of `FORMATS`, or "" when the name does not tell."""
    return FORMATS.get(Path(content_name(path)).suffix.lower(), "")


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """The unpacked bytes of a plain file, of a `.gz`, or of the one file in a `.zip`."""
    suffix = path.suffix.lower()
    with _explained(path):
        if suffix == ".gz":
            with gzip.open(path) as packed:
                yield io.BufferedReader(cast(io.RawIOBase, packed))
        elif suffix == ".zip":
            with zipfile.ZipFile(path) as archive, _open_member(path, archive) as member:
                yield io.BufferedReader(cast(io.RawIOBase, member))
        else:
            with path.open("rb") as stream:
                yield stream


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Line numbers from 1 and lines with their ends. A byte order mark is dropped; a wrong byte is a `BadRow`."""
    with open_bytes(path) as stream:
        for number, raw in enumerate(stream, 1):
            if number == 1:
                if raw.startswith(_UTF16_BOMS):
                    raise DataError(path, "is in UTF-16.", f"convert it: iconv -f utf-16 -t utf-8 '{path.name}'")
                raw = raw.removeprefix(_UTF8_BOM)
            try:
                text = raw.decode(encoding)
            except UnicodeDecodeError as error:
                around = raw[max(0, error.start - 20) : error.start + 20].decode("latin-1")
                raise BadRow(
                    path,
                    number,
                    f"byte 0x{raw[error.start]:02x} is not {encoding}",
                    f"convert the file to UTF-8 (iconv -f latin1 -t utf-8 '{path.name}') or, in Python, pass its "
                    'encoding (encoding="latin-1", say)',
                    value=around,
                ) from error
            yield number, text


@contextmanager
def write_whole(path: Path) -> Iterator[TextIO]:
    """A UTF-8 file to write, gzipped if its name ends so; it appears under its name when all of it is there.

    The same text gives the same bytes: the gzip header holds neither time nor name.
    """
    with new_file(path) as written, written.open("wb") as raw:
        if path.suffix.lower() == ".gz":
            with (
                gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as packed,
                io.TextIOWrapper(packed, encoding="utf-8", newline="") as stream,
            ):
                yield stream
        else:
            with io.TextIOWrapper(raw, encoding="utf-8", newline="") as stream:
                yield stream


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(path, "there is no such file.", "check the name and the folder.") from error
    except IsADirectoryError as error:
        raise DataError(path, "is a folder.", "name a file in it.") from error
    except PermissionError as error:
        raise DataError(path, "may not be read.", "give yourself the right to read it (chmod u+r).") from error
    except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(path, f"cannot be unpacked: {error}.", "copy it again; it is cut short or damaged.") from error


def _only_member(path: Path, archive: zipfile.ZipFile) -> str:
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if len(names) != 1:
        held = ", ".join(map(repr, names[:5])) or "nothing"
        raise DataError(path, f"holds {len(names)} files ({held}).", "unpack it and name the file that is meant.")
    return names[0]


def _open_member(path: Path, archive: zipfile.ZipFile) -> IO[bytes]:
    try:
        return archive.open(_only_member(path, archive))
    except (RuntimeError, NotImplementedError) as error:  # a password, or a compression that Python lacks
        raise DataError(path, f"cannot be unpacked: {error}.", "unpack it with another program first.") from error
