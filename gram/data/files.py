"""Opening what a shop sends, plain, gzipped or zipped, line by line; and writing files whole or not at all.

Neither a small packed file nor a file without line breaks fills the memory: what unpacks to more than 64 MiB and 200
times its size is refused, for tables pack 5 to 50 times, and so is a line of more than 64 MiB.
"""

from __future__ import annotations

import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO, cast

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

MAX_LINE = 64 * 2**20
"""Bytes of a line."""

MAX_UNPACKED = 64 * 2**20
"""Bytes that any packed file may unpack to, and from which on `MAX_RATIO` holds."""

MAX_RATIO = 200

_BREAKS = re.compile("[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")
_VISIBLE = re.compile(
    "[^\\s\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]"
)
_UTF8_BOM = b"\xef\xbb\xbf"
_SIGNATURES = {
    b"\xff\xfe": ("in UTF-16", "convert it: iconv -f utf-16 -t utf-8 '{name}'"),
    b"\xfe\xff": ("in UTF-16", "convert it: iconv -f utf-16 -t utf-8 '{name}'"),
    b"\x1f\x8b": ("gzipped", "call it '{name}.gz'."),
    b"PK\x03\x04": ("a zip archive or a spreadsheet", "call it '{name}.zip', or save the spreadsheet as CSV."),
    b"PAR1": ("Parquet", "end its name in .parquet."),
}
"""How files begin that are no text, whatever their names say."""


def one_line(text: str) -> str:
    """The text without outer blanks, its tabs and line breaks each a space: what fits in a cell of a TSV file.

    A text of which nothing can be seen, such as zero-width characters alone, is "".

    >>> one_line(" red\\r\\nshoes "), one_line("\\u200b \\ufeff")
    ('red shoes', '')
    """
    return _BREAKS.sub(" ", text).strip() if _VISIBLE.search(text) else ""


def content_name(path: Path) -> str:
    """The name of what a file holds: `a.csv` for `a.csv` and `a.csv.gz`, a member's own name for a `.zip`."""
    suffix = path.suffix.lower()
    if suffix == ".zip":
        with _explain_errors(path), zipfile.ZipFile(path) as archive:
            return _only_member(path, archive)
    return path.stem if suffix == ".gz" else path.name


def format_of(path: Path) -> str:
    """One of the values of `FORMATS`, or "" when the name does not tell."""
    return FORMATS.get(Path(content_name(path)).suffix.lower(), "")


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """The unpacked bytes of a plain file, of a `.gz`, or of the one file in a `.zip`.

    Errors: `DataError` for a file that is not there, that may not be read, or that does not unpack, at any read.
    """
    suffix = path.suffix.lower()
    with _explain_errors(path):
        if path.is_fifo():
            raise DataError(path, "is a pipe, and files are read more than once.", "write it to a file first.")
        if suffix == ".gz":
            with gzip.open(path) as packed:
                yield io.BufferedReader(_Unpacked(path, packed))
        elif suffix == ".zip":
            with zipfile.ZipFile(path) as archive, _open_member(path, archive) as member:
                yield io.BufferedReader(_Unpacked(path, member))
        else:
            with path.open("rb") as stream:
                yield stream


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Line numbers from 1 and lines with their ends. A byte order mark is dropped.

    Errors: `DataError` for a file that is no text, `BadRow` for a wrong byte and for a line longer than `MAX_LINE`.
    """
    with open_bytes(path) as stream:
        for number, raw in enumerate(iter(lambda: stream.readline(MAX_LINE + 1), b""), 1):
            if number == 1:
                _check_is_text(path, raw)
                raw = raw.removeprefix(_UTF8_BOM)
            if len(raw) > MAX_LINE:
                problem = f"more than {MAX_LINE >> 20} MiB without a line break"
                raise BadRow(path, number, problem, "check that the file is what its name says.", value=raw[:80])
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


def _check_is_text(path: Path, start: bytes) -> None:
    for signature, (what, fix) in _SIGNATURES.items():
        if start.startswith(signature):
            raise DataError(path, f"is {what}.", fix.format(name=path.name))
    for order, zeros in (("le", start[1:100:2]), ("be", start[:100:2])):  # every other byte of Latin letters is 0
        if zeros.count(0) * 2 > len(zeros):
            fix = f"convert it: iconv -f utf-16{order} -t utf-8 '{path.name}'"
            raise DataError(path, "is in UTF-16, without a byte order mark.", fix)


@contextmanager
def write_whole(path: Path) -> Iterator[TextIO]:
    """A UTF-8 file to write, gzipped if its name ends so; it appears under its name when all of it is there.

    The same text gives the same bytes: the gzip header holds neither time nor name.
    Errors: `DataError` where the disk is full or the folder may not be written to.
    """
    try:
        with new_file(path) as draft, draft.open("wb") as raw:
            if path.suffix.lower() == ".gz":
                with (
                    gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as packed,
                    io.TextIOWrapper(packed, encoding="utf-8", newline="") as stream,
                ):
                    yield stream
            else:
                with io.TextIOWrapper(raw, encoding="utf-8", newline="") as stream:
                    yield stream
    except OSError as error:
        fix = "check the name, the right to write there, and the space left."
        raise DataError(path, f"cannot be written: {error.strerror or error}.", fix) from error


@contextmanager
def _explain_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(path, "there is no such file.", "check the name and the folder.") from error
    except IsADirectoryError as error:
        raise DataError(path, "is a folder.", "name a file in it.") from error
    except PermissionError as error:
        raise DataError(path, "may not be read.", "give yourself the right to read it (chmod u+r).") from error
    except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError) as error:
        fix = f"copy it again, it is cut short or damaged; if it is not packed, take '{path.suffix}' off its name."
        raise DataError(path, f"cannot be unpacked: {error}.", fix) from error
    except OSError as error:
        fix = "check the name, the links on the way to it, and the disk."
        raise DataError(path, f"cannot be read: {error.strerror or error}.", fix) from error


class _Unpacked(io.RawIOBase):
    """What a packed file unpacks to, until it is more than any table would."""

    def __init__(self, path: Path, packed: gzip.GzipFile | IO[bytes]) -> None:
        self.path, self.packed = path, cast(io.RawIOBase, packed)
        self.left = max(MAX_UNPACKED, MAX_RATIO * path.stat().st_size)  # bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = self.packed.readinto(buffer) or 0
        self.left -= read
        if self.left < 0:
            problem = f"unpacks to more than {MAX_UNPACKED >> 20} MiB and {MAX_RATIO} times its size."
            raise DataError(self.path, problem, "if it is meant to, unpack it yourself, and name the unpacked file.")
        return read


def _only_member(path: Path, archive: zipfile.ZipFile) -> str:
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if len(names) != 1:
        some = ", ".join(map(repr, names[:5])) or "nothing"
        raise DataError(path, f"holds {len(names)} files ({some}).", "unpack it and name the file that is meant.")
    return names[0]


def _open_member(path: Path, archive: zipfile.ZipFile) -> IO[bytes]:
    try:
        return archive.open(_only_member(path, archive))
    except (RuntimeError, NotImplementedError) as error:  # a password, or a compression that Python lacks
        raise DataError(path, f"cannot be unpacked: {error}.", "unpack it with another program first.") from error
