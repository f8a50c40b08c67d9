"""Which column of a table holds what: by its own name, or by one that shops commonly give it."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from difflib import get_close_matches
from numbers import Number
from pathlib import Path
from typing import Any
from uuid import UUID

from gram.data.files import one_line
from gram.data.tables import Float32, Row, Table, find_repeated, parse_json
from gram.errors import BadRow, DataError, MissingColumn

logger = logging.getLogger("gram.data")

Names = Mapping[str, Sequence[str]]
"""A field, and the other names of its column, the surest first."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SCALARS = (str, Number, date, time, timedelta, UUID)
"""What has a text: whatever a cell of a file may be but lists, maps and bytes."""
_CALLED = ((Mapping, "a map"), (bytes, "bytes"), ((list, tuple), "a list"))
"""How errors call what has none."""
_PRODUCT_IDS = ("product_uid", "sku", "asin", "item_id", "product_code", "article_id")

PRODUCT_COLUMNS: Names = {
    "product_id": (*_PRODUCT_IDS, "id", "_id"),
    "title": ("product_title", "product_name", "item_name", "name"),
    "brand": ("product_brand", "brand_name", "manufacturer"),
    "category": ("category_path", "category_hierarchy", "product_category", "categories", "product_class"),
    "description": ("product_description", "long_description"),
    "price": ("product_price", "unit_price"),
    "value": (),
    "attributes": ("product_attributes",),
}
LOG_COLUMNS: Names = {
    "query": ("search_term", "search_query", "query_text", "keyword", "keywords", "q"),
    "product_id": _PRODUCT_IDS,
    "weight": ("purchases", "clicks", "count"),
    "user_id": ("user", "customer_id"),
    "timestamp": ("time", "date", "datetime"),
}
QUERY_COLUMNS: Names = {
    "query_id": ("qid", "_id", "id"),
    "query": (*LOG_COLUMNS["query"], "text"),
}
QRELS_COLUMNS: Names = {
    "query_id": ("qid",),
    "product_id": (*_PRODUCT_IDS, "corpus_id", "doc_id", "docid", "docno"),
    "grade": ("relevance", "rel", "label", "score"),
}


def normalise(name: str) -> str:
    """A column's name as it is compared.

    >>> normalise("Product ID"), normalise("productTitle"), normalise("category hierarchy")
    ('product_id', 'product_title', 'category_hierarchy')
    """
    name = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", name.strip())
    return re.sub(r"[\s_-]+", "_", name).lower()


class Record:
    """One row, its fields read one by one; what cannot be read is a `BadRow` with line, column, value and fix."""

    def __init__(self, path: Path, line: int, known: Mapping[str, tuple[str, Any]], others: Mapping[str, Any]) -> None:
        self.path, self.line = path, line
        self.known, self.others = known, others  # field -> (column, cell); column -> cell

    def bad(self, field: str, problem: str, fix: str) -> BadRow:
        """The error to raise about a field (or another column) of this row."""
        column, cell = self.known.get(field, (field, self.others.get(field)))
        return BadRow(self.path, self.line, problem, fix, column, cell)

    def cell(self, field: str) -> Any:
        """What the file holds, None for nothing."""
        return self.known.get(field, (field, None))[1]

    def text(self, field: str, *, lines: bool = False, required: bool = False) -> str:
        """The field as one line of text (`lines` keeps its line breaks), "" if there is none and it may be missing."""
        cell = self.cell(field)
        try:
            text = text_of(cell)
        except TypeError as error:
            raise self.bad(field, f"{error} where text belongs", "write it as one string.") from error
        text = text.strip() if lines else one_line(text)
        if required and not text:
            raise self.bad(field, f"no {field}", "fill it in, or leave the row out.")
        return text

    def identifier(self, field: str) -> str:
        """The field as an id that all files keep as it is: neither empty nor with a control character.

        A whole number is one, and so is the float that pandas makes of it in a column with gaps, if that is exact.
        Another float is refused: its digits may no longer be those that the shop gave (1.10, 1e20).
        """
        cell = self.cell(field)
        if isinstance(cell, str) and (half := find_lone_surrogate(cell)):
            raise self.bad(field, f"{half} in an id, which no file can hold", "take it out.")
        if isinstance(cell, float) and cell == cell:
            exact = 2**24 if isinstance(cell, Float32) else 2**53
            if not cell.is_integer() or abs(cell) >= exact:
                fix = 'write ids as text: "1.10", or a column of strings.'
                raise self.bad(field, "a float, which may have lost digits of the id", fix)
        text = self.text(field, required=True)
        if found := _CONTROL.search(str(cell).strip()):
            raise self.bad(field, f"the control character U+{ord(found[0]):04X} in an id", "take it out.")
        return text

    def number(self, field: str) -> float | None:
        """The field as a finite number, None if it is empty (or the NaN that pandas writes for that)."""
        cell = self.cell(field)
        if cell is None or (isinstance(cell, str) and not cell.strip()):
            return None
        fix = "write a plain number such as 12.99 (no unit, currency or thousands mark), or leave it empty."
        if isinstance(cell, bool) or not (
            _NUMBER.fullmatch(cell.strip()) if isinstance(cell, str) else isinstance(cell, Number)
        ):
            raise self.bad(field, "not a number", fix)
        try:
            if cell != cell:  # NaN alone differs from itself
                return None
            number = float(cell)
        except (TypeError, ValueError, ArithmeticError) as error:  # Decimal's signalling NaN compares with nothing
            raise self.bad(field, "not a number", fix) from error
        if not math.isfinite(number):
            raise self.bad(field, "not a finite number", fix)
        return number

    def values(self, column: str, cell: Any) -> tuple[str, ...]:
        """The values of an attribute: a list's items, or a string's parts between `|`, each once, in order."""
        parts = cell if isinstance(cell, list | tuple) else cell.split("|") if isinstance(cell, str) else [cell]
        try:
            return tuple(dict.fromkeys(filter(None, (one_line(text_of(part)) for part in parts))))
        except TypeError as error:
            fix = "give an attribute one value, or a flat list of values."
            raise BadRow(self.path, self.line, f"{error} where values belong", fix, column, cell) from error

    def mapping(self, field: str) -> dict[str, Any]:
        """A map: an object in JSONL, a map or a struct in Parquet, a JSON object as text in CSV and TSV."""
        cell = self.cell(field)
        if isinstance(cell, str) and cell.strip():
            try:
                cell = parse_json(cell)
            except ValueError as error:
                raise self.bad(field, f"not a JSON object, {error}", 'write {"name": ["value", …], …}.') from error
        if cell is None or (isinstance(cell, str | list | tuple | Mapping) and not cell):
            return {}
        if isinstance(cell, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in cell):
            if twice := find_repeated(name for name, _ in cell):
                raise self.bad(field, f"{twice!r} stands twice in one map", "keep one of the two.")
            return {str(name): value for name, value in cell}  # how pyarrow gives a map
        if isinstance(cell, Mapping):
            return dict(cell)
        raise self.bad(field, "not a map of names to values", 'write {"name": ["value", …], …}.')


def has_control(text: str) -> bool:
    """Whether a text holds a control character, which no id may."""
    return _CONTROL.search(text) is not None


def find_lone_surrogate(text: str) -> str:
    """How errors name the half of a character in a text, as cutting one in JavaScript leaves it; "" if there is none.

    >>> find_lone_surrogate("party \\ud83c"), find_lone_surrogate("party \U0001f389")
    ('half of a character (U+D83C)', '')
    """
    if text.isascii():
        return ""
    found = _SURROGATE.search(text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass"))
    return f"half of a character (U+{ord(found[0]):04X})" if found else ""


def text_of(cell: Any) -> str:
    """A cell as text: 100001.0 is "100001" (a number column that pandas wrote), None and NaN are "".

    Half of an emoji, as cutting a text in JavaScript leaves, becomes U+FFFD: no file could hold it.

    >>> text_of(100001.0), text_of(True), text_of(None)
    ('100001', 'true', '')
    """
    if isinstance(cell, str):
        return cell if cell.isascii() else cell.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if not isinstance(cell, _SCALARS):
        called = (name for types, name in _CALLED if isinstance(cell, types))
        raise TypeError(next(called, f"something of type {type(cell).__name__}"))
    if isinstance(cell, Decimal) and cell.is_nan():  # of which one kind may not be compared
        return ""
    if cell != cell:  # NaN alone differs from itself
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


def read_records(table: Table, names: Names, required: Sequence[str] = ()) -> Iterator[Record]:
    """The rows of a table with its columns resolved by `names`, which is said aloud where a column has another name.

    Errors: `MissingColumn` before the first row if the table lacks a required column.
    """
    columns = _Columns(table, names)
    for field in required:
        if field not in columns.fields.values():
            raise _missing_column(table, names, field)
    return map(columns.record, table.rows)


class _Columns:
    """Column -> field, None for one that is no known field. The first row with another name for a field decides."""

    def __init__(self, table: Table, names: Names) -> None:
        self.path, self.names = table.path, names
        self.by_name = {normalise(field): field for field in names}
        self.fields: dict[str, str | None] = {}
        self._learn(table.columns)

    def _learn(self, columns: Sequence[str]) -> None:
        aliases: dict[str, str] = {}
        for column in columns:
            name = normalise(column)
            self.fields[column] = self.by_name.get(name)
            aliases.setdefault(name, column)
        for field, others in self.names.items():
            if field not in self.fields.values():
                column = next((aliases[other] for other in others if other in aliases), "")
                if column:
                    self.fields[column] = field
            for column in columns:
                if self.fields[column] == field != column:
                    logger.info("%s: reading column %r as %s", self.path.name, column, field)

    def record(self, row: Row) -> Record:
        if not self.fields.keys() >= row.cells.keys():
            self._learn([column for column in row.cells if column not in self.fields])
        known: dict[str, tuple[str, Any]] = {}
        others: dict[str, Any] = {}
        for column, cell in row.cells.items():
            field = self.fields[column]
            if field is None:
                others[column] = cell
            elif field not in known:
                known[field] = (column, cell)
            elif normalise(column) not in self.by_name:
                others[column] = cell
            else:  # the field's name beats another one, whose column stays an attribute
                other, other_cell = known[field]
                if normalise(other) in self.by_name:
                    problem = f"column {other!r} is the {field}, too"
                    raise BadRow(self.path, row.line, problem, "rename one of the two.", column, cell)
                known[field], others[other] = (column, cell), other_cell
        return Record(self.path, row.line, known, others)


def _missing_column(table: Table, names: Names, field: str) -> DataError:
    found = ", ".join(map(repr, table.columns)) or "none"
    also = f" (or {', '.join(names[field])})" if names[field] else ""
    taken = {normalise(name) for other, aliases in names.items() for name in (other, *aliases)}
    close = {name: column for column in table.columns if (name := normalise(column)) not in taken}
    match = next((m for name in (field, *names[field]) for m in get_close_matches(name, close, 1, 0.75)), "")
    if len(table.columns) == 1 and (mark := next((m for m in ",;\t|" if m in table.columns[0]), "")):
        fix = f"separate the columns by what the file's ending says, or change it; this one uses {mark!r}."
    elif match:
        fix = f"rename column '{close[match]}' to '{field}' if that is what it holds."
    else:
        fix = f"name the column that holds it '{field}', or add one."
    return MissingColumn(table.path, f"there is no column '{field}'{also}; found {found}.", fix)
