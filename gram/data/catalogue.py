"""A shop's products: read from any table, written as JSONL.

`product_id` and `title` are required. `category` is a path, `Shoes > Running` or a list from the root to the leaf.
`attributes` maps names to values; every other column is an attribute too. An attribute has several values if it is a
list, or a string with `|` between them: `red|blue`. No other mark splits, for `;`, `/` and `,` stand in single values.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gram.data.columns import PRODUCT_COLUMNS, Record, normalise, read_records, text_of
from gram.data.files import format_of, one_line, write_whole
from gram.data.tables import Row, Table, read_table
from gram.errors import BadRow, DataError, SettingError
from gram.records import Product

LONGEST_ID = 500
"""Characters; an index keeps every id at the length of the longest, at 4 bytes a character."""
DEEPEST_CATEGORY = 50
"""Categories of a path; each of its beginnings is kept, so that many take their number squared."""
LONGEST_TITLE = 10_000
"""Characters; a longer one is a mistake, and would take minutes to read."""


def read_products(path: str | Path, *, progress: bool = False, encoding: str = "utf-8") -> list[Product]:
    """All products of a catalogue, in the file's order.

    Errors: `MissingColumn`; `BadRow` for a `product_id` that is empty, repeated, too long or not safe as an id, a title
    that is empty or too long, a `category` that is too deep, a `price` or `value` that is no plain number; `DataError`
    for a file without products.
    """
    products = list(iter_products(path, progress=progress, encoding=encoding))
    if not products:
        raise DataError(path, "holds no products.", "check what should have written it.")
    return products


def iter_products(path: str | Path, *, progress: bool = False, encoding: str = "utf-8") -> Iterator[Product]:
    """The same one by one, for catalogues that should not be held in memory; only the ids are."""
    table = read_table(path, encoding=encoding)
    records = read_records(table, PRODUCT_COLUMNS, ("product_id", "title"))
    lines: dict[str, int] = {}
    for record in tqdm(records, desc=table.path.name, unit=" products", disable=not progress):
        product = _product(record)
        first = lines.setdefault(product.product_id, record.line)
        if first != record.line:
            problem = f"product '{product.product_id}' is on line {first} already"
            raise record.bad("product_id", problem, "keep one row for each product.")
        yield product


def read_product(cells: Mapping[str, Any], source: str = "request", line: int = 1) -> Product:
    """One product of a map of columns, as a row of JSONL holds it. Errors as of `read_products`, of that line of
    `source`."""
    table = Table(Path(source), tuple(cells), iter([Row(line, dict(cells))]))
    return _product(next(iter(read_records(table, PRODUCT_COLUMNS, ("product_id", "title")))))


def check_products(products: Iterable[Product], source: str = "products") -> list[Product]:
    """Products that a program hands over, each as a file that holds it would be read: what the file's readers refuse is
    refused, and a number or a text in place of several values is read.

    Errors as of `read_products`, the line being a product's number from 1; SettingError for what is no list of them.
    """
    given: Any = products
    if isinstance(given, Product) or not isinstance(given, Iterable):
        fix = "give a list of gram.Product(product_id, title, …)"
        raise SettingError(f"products are of type {type(given).__name__}. Fix: {fix}")
    return [_checked(product, source, number) for number, product in enumerate(given, start=1)]


def _checked(product: Any, source: str, number: int) -> Product:
    if not isinstance(product, Product):
        problem = f"no product, but of type {type(product).__name__}"
        raise BadRow(source, number, problem, "give gram.Product(product_id, title, …).", value=product)
    return _product(Record(Path(source), number, {n: (n, cell) for n, cell in product._asdict().items()}, {}))


def check_patch(patch: Mapping[str, Any], source: str = "patch") -> None:
    """Raises BadRow for a patch that names nothing, or that would give a product another id."""
    fix = 'name fields, such as {"price": 9.5}.'
    if not isinstance(patch, Mapping) or not patch:
        raise BadRow(source, 1, "a patch of nothing", fix, value=patch)
    for name in patch:
        if not isinstance(name, str):
            raise BadRow(source, 1, f"a name of type {type(name).__name__}", fix, value=name)
        if normalise(name) == "product_id":
            raise BadRow(source, 1, "a patch changes no id", "leave it out.", name, patch[name])


def patch_product(old: Product, patch: Mapping[str, Any], source: str = "patch") -> Product:
    """A product with what a patch names as it has it, as of JSON Merge Patch (RFC 7396): None takes a field away, and
    for `attributes` every attribute; a map of attributes changes those that it names.

    Names are read as a whole product's are, "Price" and "unit_price" are the price; but a name that an attribute of
    the product has is that attribute. It is one that `check_patch` lets through. Errors as of `read_product`.
    """
    fields = {n: (n, cell) for n, cell in old._asdict().items() if n != "attributes" and cell not in (None, "", ())}
    columns = {name: cell for name, cell in patch.items() if not _is_attribute(name, old)}
    table = Table(Path(source), ("product_id", *columns), iter([Row(1, columns)]))  # whose id is given already
    record = next(iter(read_records(table, PRODUCT_COLUMNS)))
    if "title" in record.known and record.cell("title") is None:
        raise record.bad("title", "null, and every product needs a title", "give it another one, or leave it out.")
    attributes: dict[str, Any] = dict(old.attributes)
    if "attributes" in record.known:
        inner = record.cell("attributes")
        if inner is None:
            attributes.clear()
        elif not isinstance(inner, Mapping):
            raise record.bad("attributes", "not a map of names to values", 'write {"name": ["value", …], …}, or null.')
        attributes |= {_name(record, name): cell for name, cell in (inner or {}).items()}
    flat = {**record.others, **{name: cell for name, cell in patch.items() if name not in columns}}
    attributes |= {_name(record, name): cell for name, cell in flat.items()}
    return _product(Record(record.path, 1, {**fields, **record.known, "attributes": ("attributes", attributes)}, {}))


def _is_attribute(name: str, product: Product) -> bool:
    """Whether a patch names an attribute that a product has, and no field."""
    return one_line(name) in product.attributes and normalise(name) not in PRODUCT_COLUMNS


def write_products(path: str | Path, products: Iterable[Product]) -> None:
    """Writes a catalogue as JSONL, gzipped if the name ends in .gz; `read_products` reads the same products back."""
    path = Path(path)
    if format_of(path) != "jsonl":
        raise DataError(path, "would be written as JSONL.", "end its name in .jsonl or .jsonl.gz.")
    with write_whole(path) as stream:
        for product in products:
            filled = {name: value for name, value in product._asdict().items() if value not in (None, "", (), {})}
            stream.write(json.dumps(filled, ensure_ascii=False) + "\n")


def _product(record: Record) -> Product:
    price = record.number("price")
    if price is not None and price < 0:
        raise record.bad("price", "a price below zero", "give what it costs, or leave it empty.")
    product_id = record.identifier("product_id")
    if len(product_id) > LONGEST_ID:
        problem = f"an id of {len(product_id):,} characters, where {LONGEST_ID} are read"
        raise record.bad("product_id", problem, "give it a shorter one.")
    title = record.text("title", required=True)
    if len(title) > LONGEST_TITLE:
        problem = f"a title of {len(title):,} characters, where {LONGEST_TITLE:,} are read"
        raise record.bad("title", problem, "put all but the name into the description.")
    category = _category(record)
    if len(category) > DEEPEST_CATEGORY:
        problem = f"a path of {len(category):,} categories, where {DEEPEST_CATEGORY} are read"
        raise record.bad("category", problem, 'write "A > B > C", from the root to the leaf.')
    return Product(
        product_id=product_id,
        title=title,
        brand=record.text("brand"),
        category=category,
        description=record.text("description", lines=True),
        price=price,
        value=record.number("value"),
        attributes=_attributes(record),
    )


def _category(record: Record) -> tuple[str, ...]:
    cell = record.cell("category")
    if isinstance(cell, list | tuple):
        try:
            return tuple(filter(None, (one_line(text_of(part)) for part in cell)))
        except TypeError as error:
            raise record.bad("category", "not one path", 'write "A > B > C" or ["A", "B", "C"].') from error
    return tuple(filter(None, map(str.strip, record.text("category").split(">"))))


def _attributes(record: Record) -> Mapping[str, tuple[str, ...]]:
    """The map's attributes and the other columns' together; a name in both has the values of both."""
    attributes: dict[str, tuple[str, ...]] = {}
    cells: list[tuple[str, Any]] = [*record.mapping("attributes").items(), *record.others.items()]
    for column, cell in cells:
        values, name = record.values(column, cell), _name(record, column)
        if values and name:
            attributes[name] = tuple(dict.fromkeys((*attributes.get(name, ()), *values)))
    return attributes


def _name(record: Record, column: Any) -> str:
    """An attribute's name as it is kept, "" for one of which nothing can be seen."""
    try:
        return one_line(text_of(column))
    except TypeError as error:
        raise record.bad("attributes", f"{error} where a name belongs", "write names as texts.") from error
