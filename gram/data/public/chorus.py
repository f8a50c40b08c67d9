"""Chorus, querqy's demonstration shop: 19,406 products of electronics from Icecat, 135 queries with 3,668 judgements.

`load` reads a checkout of github.com/querqy/chorus. Its judges saw what a keyword engine had found, some 27 products a
query; what they did not see counts as not relevant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gram.data.catalogue import read_product
from gram.data.columns import read_records
from gram.data.dataset import Dataset, Judgement, split_judgements, split_part
from gram.data.files import open_bytes
from gram.data.tables import parse_json, read_table
from gram.errors import BadRow, DataError
from gram.records import Product

_PRODUCTS, _JUDGEMENTS = "data-encoder/ecommerce/vectors/data", "katas/Broad_Query_Set_rated.csv"
_AGAIN = "check out github.com/querqy/chorus again."


def load(folder: str | Path) -> Dataset:
    """The shop's products and its judgements, from 0 to 3, split by query (Chorus publishes no split).

    A query has its number in the order of the file. The log is of relevant products of training queries, at the
    grades' weight. Errors: `DataError` if the folder holds no such checkout, `MissingColumn`, `BadRow`.
    """
    folder = Path(folder)
    files = sorted((folder / _PRODUCTS).glob("*.json.zip"))
    if not files:
        raise DataError(folder, f"holds no {_PRODUCTS}/*.json.zip.", "name a checkout of github.com/querqy/chorus.")
    products: dict[str, Product] = {}
    for path in files:
        for number, product in enumerate(_read_products(path), 1):
            if products.setdefault(product.product_id, product) is not product:
                problem = "there is a product of this id already"
                raise BadRow(path, number, problem, "keep one of the two.", "id", product.product_id)
    columns = ("query", "docid", "rating")
    query_ids: dict[str, str] = {}
    judgements: dict[tuple[str, str], Judgement] = {}
    for record in read_records(read_table(folder / _JUDGEMENTS), dict.fromkeys(columns, ()), columns):
        query, product_id = record.text("query", required=True), record.identifier("docid")
        grade = record.number("rating")
        if grade not in (0, 1, 2, 3):
            raise record.bad("rating", "not 0, 1, 2 or 3", _AGAIN)
        if product_id not in products:
            raise record.bad("docid", "no such product", _AGAIN)
        query_id = query_ids.setdefault(query, str(len(query_ids) + 1))
        weight = grade if grade >= 2 else 0.0
        judgement = Judgement(split_part(query), query_id, query, product_id, weight, grade)
        before = judgements.setdefault((query_id, product_id), judgement)
        if grade > before.grade:  # the higher one counts, once
            judgements[query_id, product_id] = judgement
    if not judgements:
        raise DataError(folder / _JUDGEMENTS, "holds no ratings.", _AGAIN)
    return split_judgements(list(products.values()), list(judgements.values()))


def _read_products(path: Path) -> Iterator[Product]:
    with open_bytes(path) as file:
        try:
            records = parse_json(file.read().decode("utf-8"))
        except ValueError as error:
            raise DataError(path, f"is no JSON: {error}.", _AGAIN) from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DataError(path, "is no list of products.", _AGAIN)
    for number, record in enumerate(records, 1):
        product = read_product(_cells(record), str(path), number)
        yield product if product.price is None else product._replace(price=product.price / 100)  # cents


def _cells(record: Mapping[str, Any]) -> dict[str, Any]:
    """A product as a row of our own columns, its price in cents; of its attributes the texts and the numbers, for
    "true" is no word that a product says.

    >>> _cells({"id": "7", "title": "Mouse", "supplier": "HP", "price": 1795, "attr_t_cable_colour": "Blue"})
    {'product_id': '7', 'title': 'Mouse', 'brand': 'HP', 'price': 1795, 'attributes': {'cable colour': 'Blue'}}
    """
    cells = {
        "product_id": record.get("id"),
        "title": record.get("title"),
        "brand": record.get("supplier"),
        "description": record.get("short_description"),
        "price": record.get("price"),
        "attributes": {
            " ".join(name.removeprefix("attr_")[2:].replace("_", " ").split()): value
            for name, value in record.items()
            if name.startswith(("attr_t_", "attr_n_"))
        },
    }
    return {name: cell for name, cell in cells.items() if cell is not None}
