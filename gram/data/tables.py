"""Rows of CSV, TSV, JSONL and Parquet files, each with the line it stands on.

Text formats may be gzipped or the only file in a zip. CSV is read strictly (RFC 4180). TSV is read as both habits that
are around: a field that opens with a quotation mark is unquoted when that gives the right number of fields, and is
taken as it stands when it does not, so that the query `"a quiet fan` needs no care.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from gram.data.files import content_name, format_of, one_line, open_bytes, read_lines, write_whole
from gram.errors import BadRow, DataError, MissingExtra

DEEPEST = 600
"""Lists and objects within each other that a JSON cell or row may have: Python's own limit is a thousand calls."""


class Row(NamedTuple):
    """`line` is where the row begins, from 1, header included; in Parquet, which has no lines, the row's number from 1.

    `cells` maps a column to its value: a string in CSV and TSV, whatever the file holds in JSONL and Parquet.
    """

    line: int
    cells: dict[str, Any]


class Float32(float):
    """A number of a 32-bit column of Parquet: whole numbers from 2**24 on may have lost their last digits."""


class Table(NamedTuple):
    """An open table. `columns` are those of the header, of the schema or, in JSONL, of the first row."""

    path: Path
    columns: tuple[str, ...]
    rows: Iterator[Row]


def read_table(
    path: str | Path,
    *,
    encoding: str = "utf-8",
    delimiter: str = "",
    header: Sequence[str] = (),
    columns: Sequence[str] = (),
) -> Table:
    """Opens a table; its rows are read as they are asked for.

    `delimiter` (a comma, a tab, or " " for any blanks) overrides what the file's name says, for some publishers ship
    tabs in `.csv`; `header` names the columns of a file that has no header line; `columns` are the only ones to read
    from Parquet (all by default).
    Errors: `DataError` for a file that cannot be used, `BadRow` for a row, `MissingExtra` for Parquet without pyarrow.
    """
    path = Path(path)
    kind = format_of(path)
    if kind == "parquet":
        return _read_parquet(path, columns)
    if kind == "jsonl":
        return _read_jsonl(path, encoding)
    if kind or delimiter:
        return _read_delimited(path, delimiter or _DELIMITERS[kind], encoding, header)
    raise DataError(
        path,
        f"'{content_name(path)}' has no known ending.",
        "name it .csv, .tsv, .jsonl or .parquet, or the same and .gz, after what it holds.",
    )


def read_first_fields(path: str | Path, *, encoding: str = "utf-8", delimiter: str = "") -> list[str]:
    """The first line's fields, whether a header or a row; none if the file is empty."""
    path = Path(path)
    delimiter = delimiter or _DELIMITERS[format_of(path)]
    return next(_records(path, delimiter, encoding, 0), (1, list[str]()))[1]


def write_tsv(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Writes a TSV file that `read_table` reads back and that needs no unquoting but where a field begins with `"`.

    Tabs and line breaks in a field become spaces. The file appears under its name only when it is complete.
    """
    path = Path(path)
    if format_of(path) != "tsv":
        raise DataError(path, "would be written as TSV.", "end its name in .tsv or .tsv.gz.")
    with write_whole(path) as stream:
        for fields in chain([header], rows):
            stream.write("\t".join(map(_tsv_field, fields)) + "\n")


def _tsv_field(text: str) -> str:
    text = one_line(text)
    return '"' + text.replace('"', '""') + '"' if text.startswith('"') else text


def _empty(path: Path) -> DataError:
    return DataError(path, "is empty.", "check what should have written it.")


def _read_delimited(path: Path, delimiter: str, encoding: str, header: Sequence[str]) -> Table:
    records = _records(path, delimiter, encoding, len(header))
    names = list(header)
    if not names:
        first, names = next(records, (1, names))
        names = [name.strip() for name in names]
        if not names:
            raise _empty(path)
        if name := find_repeated(filter(None, names)):
            raise BadRow(path, first, "the header names a column twice", "rename one of them.", name, name)
    return Table(path, tuple(filter(None, names)), _match_columns(path, names, records, delimiter))


def find_repeated(names: Iterable[str]) -> str | None:
    """The first name that stands there a second time, None if each stands once."""
    seen = set[str]()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _records(path: Path, delimiter: str, encoding: str, width: int) -> Iterator[tuple[int, list[str]]]:
    lines = read_lines(path, encoding)
    if delimiter == "\t":
        return _tsv_records(path, lines, width)
    if delimiter == " ":
        return ((line, text.split()) for line, text in lines if text.strip())
    return _csv_records(path, lines, delimiter)


def _match_columns(
    path: Path, names: list[str], records: Iterator[tuple[int, list[str]]], delimiter: str
) -> Iterator[Row]:
    unnamed = "" in names  # the row numbers that pandas writes have no name in the header, and nobody wants them
    for line, fields in records:
        if len(fields) != len(names):
            missing = names[len(fields)] if len(fields) < len(names) else ""
            mark = _MARKS.get(delimiter, "blank")
            raise BadRow(
                path,
                line,
                f"{len(fields)} fields where {len(names)} belong",
                f'put a field that holds a {mark} or a line break in "quotation marks", or mend the row.',
                missing,
                delimiter.join(fields),
            )
        cells: dict[str, Any] = dict(zip(names, fields, strict=True))
        if unnamed:
            del cells[""]
        yield Row(line, cells)


_DELIMITERS = {"csv": ",", "tsv": "\t"}
_MARKS = {",": "comma", "\t": "tab"}
_CSV_FIXES = (
    ("field limit", "close the quotation mark that the cell opens with; if it is so long, write the table as JSONL."),
    ("new-line", "end each line with a line feed: tr '\\r' '\\n'."),
    ("NUL", "take the NUL characters out: tr -d '\\000'."),
    ("", 'close the quotation mark, and write a mark inside quoted text as "".'),
)
"""What Python's csv says in its errors, and what is to be done."""


def _broken_row(path: Path, line: int, error: csv.Error, text: str) -> BadRow:
    fix = next(fix for sign, fix in _CSV_FIXES if sign in str(error))
    return BadRow(path, line, f"broken row, {error}", fix, value=text.strip())


def _csv_records(
    path: Path, lines: Iterator[tuple[int, str]], delimiter: str, first: int = 1
) -> Iterator[tuple[int, list[str]]]:
    """Where a record begins, and its fields; a quoted one may run over several lines, which count from `first`."""
    current: list[str] = []

    def feed() -> Iterator[str]:
        for _, text in lines:
            current.append(text)
            yield text

    reader = csv.reader(feed(), delimiter=delimiter, strict=True)
    line = first
    while True:
        current.clear()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _broken_row(path, line, error, current[0] if current else "") from error
        if fields:
            yield line, fields
        line = first + reader.line_num


def _tsv_records(path: Path, lines: Iterator[tuple[int, str]], width: int) -> Iterator[tuple[int, list[str]]]:
    """The same for tabs; `width` is the number of fields to expect, 0 for that of the first record.

    A field that opens with a quotation mark and does not close it runs on into the next lines, unless this line and the
    next have the right number of fields without that.
    """
    peeked: list[tuple[int, str]] = []
    while numbered := peeked.pop() if peeked else next(lines, None):
        line, text = numbered
        fields = _split_tabs(text)
        if fields == [""]:
            continue
        if '"' in text:
            try:
                quoted = next(csv.reader([text], delimiter="\t", strict=True))
            except csv.Error as error:
                if "field limit" in str(error) and any(field.startswith('"') for field in fields):
                    raise _broken_row(path, line, error, text) from error
                peeked.extend(islice(lines, 1))
                fit = len(fields) == width and all(
                    len(_split_tabs(after)) == width or not after.strip() for _, after in peeked
                )
                if width and not fit and "unexpected end" in str(error):
                    _, fields = next(_csv_records(path, chain([numbered], peeked, lines), "\t", line))
                    peeked.clear()
            else:
                if width in (0, len(quoted)) or len(fields) != width:
                    fields = quoted
        width = width or len(fields)
        yield line, fields


def _split_tabs(line: str) -> list[str]:
    return line.rstrip("\r\n").split("\t")


def parse_json(text: str) -> Any:
    """What a JSON text holds. Raises ValueError, which says what is wrong with it, for a name that stands twice in one
    object, a number of more digits than Python reads, and nesting deeper than it follows, too."""
    if text.count("[") + text.count("{") > DEEPEST and _depth(text) > DEEPEST:
        raise ValueError("lists or objects nested too deep")  # told before Python's stack is used up to find it out
    try:
        return json.loads(text, object_pairs_hook=_map_once, parse_int=_whole_number)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos + 1}") from error


_STRINGS_AND_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}]')


def _depth(text: str) -> int:
    """How deep a JSON text's lists and objects are nested."""
    depth = deepest = 0
    for found in _STRINGS_AND_BRACKETS.finditer(text):
        mark = found[0][0]
        depth += (mark in "[{") - (mark in "]}")
        deepest = max(deepest, depth)
    return deepest


def _map_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    cells = dict(pairs)
    if len(cells) < len(pairs):
        raise ValueError(f"{find_repeated(name for name, _ in pairs)!r} stands twice in one object")
    return cells


def _whole_number(digits: str) -> int:
    if len(digits) > 400:  # no float is as large
        raise ValueError(f"a number of {len(digits)} digits, {digits[:12]}…")
    return int(digits)


def _read_jsonl(path: Path, encoding: str) -> Table:
    rows = _jsonl_rows(path, encoding)
    first = next(rows, None)
    if first is None:
        raise _empty(path)
    return Table(path, tuple(first.cells), chain([first], rows))


def _jsonl_rows(path: Path, encoding: str) -> Iterator[Row]:
    for line, text in read_lines(path, encoding):
        if not text.strip():
            continue
        try:
            cells = parse_json(text)
        except ValueError as error:
            fix = "write one JSON object a line, each name once."
            raise BadRow(path, line, f"broken JSON, {error}", fix, value=text.strip()) from error
        if not isinstance(cells, dict):
            raise BadRow(path, line, "not a JSON object", 'write {"column": value, …}.', value=text.strip())
        yield Row(line, cells)


def _read_parquet(path: Path, columns: Sequence[str]) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("Parquet", "parquet") from error
    try:
        with ExitStack() as stack:
            source: Any = str(path)
            with open_bytes(path) as stream:
                if path.suffix.lower() in (".gz", ".zip"):  # Parquet is read from its end: unpack it first
                    source = stack.enter_context(tempfile.TemporaryFile())
                    shutil.copyfileobj(stream, source)
            file = pyarrow.parquet.ParquetFile(source, page_checksum_verification=True)
            stack.pop_all()  # closed when all rows are read
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        problem = f"is not Parquet: {one_line(str(error)).rstrip('.')}."
        raise DataError(path, problem, "write it again, or give it its right ending.") from error
    names = list(map(str, file.schema_arrow.names))
    if twice := find_repeated(names):
        raise DataError(path, f"names the column {twice!r} twice.", "rename one of them.")
    names = [name for name in names if name in columns or not columns]
    return Table(path, tuple(names), _parquet_rows(path, file, names))


def _parquet_rows(path: Path, file: Any, columns: list[str]) -> Iterator[Row]:
    import pyarrow

    short = [name for name in columns if pyarrow.types.is_float32(file.schema_arrow.field(name).type)]
    line = 0
    try:
        for batch in file.iter_batches(batch_size=8192, columns=columns):
            for cells in batch.to_pylist():
                line += 1
                cells.update((name, Float32(cells[name])) for name in short if cells[name] is not None)
                yield Row(line, cells)
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        problem = f"cannot be read behind row {line}: {one_line(str(error)).rstrip('.')}."
        raise DataError(path, problem, "copy or write it again; it is damaged.") from error
    finally:
        file.close(force=True)
