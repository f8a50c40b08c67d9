"""Home Depot Product Search Relevance (Kaggle, 2016): 54,667 products, 11,795 queries, 74,067 judgements.

`train.csv` holds titles and queries, in latin-1. Kaggle ships `attributes.csv` and `product_descriptions.csv` beside
it; brand.csv, color.csv and material.csv (product_uid and the value) are a common cut of the former. All may be zipped.
Judges gave 1 (irrelevant) to 3 (perfect); the mean of about three of them is given.
"""

from __future__ import annotations

import html
from collections.abc import Collection, Iterator
from itertools import groupby
from pathlib import Path

from gram.data.columns import Record, read_records
from gram.data.dataset import Dataset, Judgement, split_judgements, split_part
from gram.data.files import one_line
from gram.data.public.markup import plain_text
from gram.data.tables import read_table
from gram.records import Product

RELEVANT = 2.33
"""The mean from which a product counts as relevant: one judge of three may say irrelevant if the others say perfect."""

_BRAND = "MFG Brand Name"
_NOTHING = frozenset({"", "nan", "n/a", "unbranded"})

_Tags = dict[str, dict[str, list[str]]]
"""product_id -> name of an attribute -> its values."""


def load(
    train_csv: str | Path,
    brand: str | Path | None = None,
    colour: str | Path | None = None,
    material: str | Path | None = None,
    *,
    attributes: str | Path | None = None,
    descriptions: str | Path | None = None,
) -> Dataset:
    """The products of `train.csv`, with what the files beside it say of them, and its judgements split by query.

    Grades: 3 for a mean of 3, 2 from 2.33, 1 from 1.5, else 0. Training queries' products from 2.33 are the log, each
    with weight 1. A query is what was typed, to the letter; its id counts queries in the file's order.
    Errors: `MissingColumn`, `BadRow`.
    """
    titles: dict[str, str] = {}
    query_ids: dict[str, str] = {}
    judgements: list[Judgement] = []
    for record in _records(train_csv, "product_uid", "product_title", "search_term", "relevance"):
        product_id, query = record.identifier("product_uid"), record.text("search_term", required=True)
        titles.setdefault(product_id, html.unescape(record.text("product_title", required=True)))
        query_id = query_ids.setdefault(query, str(len(query_ids) + 1))
        relevance = record.number("relevance")
        if relevance is None or not 1 <= relevance <= 3:
            raise record.bad("relevance", "not between 1 and 3", "download the file again.")
        weight = 1.0 if relevance >= RELEVANT else 0.0
        judgements.append(Judgement(split_part(query), query_id, query, product_id, weight, _grade(relevance)))
    brands = _read_column(brand, "brand", titles) if brand else {}
    tags: _Tags = {}
    for path, column in ((colour, "color"), (material, "material")):
        for product_id, value in _read_column(path, column, titles).items() if path else ():
            tags.setdefault(product_id, {})[column] = [" ".join(word for word, _ in groupby(value.split()))]
    bullets: dict[str, list[str]] = {}
    if attributes:
        _read_attributes(attributes, titles, brands, tags, bullets)
    texts = _read_column(descriptions, "product_description", titles) if descriptions else {}
    products = [
        Product(
            product_id,
            one_line(title),
            brand=brands.get(product_id, ""),
            description=" ".join(filter(None, [plain_text(texts.get(product_id, "")), *bullets.get(product_id, ())])),
            attributes={name: tuple(dict.fromkeys(values)) for name, values in tags.get(product_id, {}).items()},
        )
        for product_id, title in titles.items()
    ]
    return split_judgements(products, judgements)


def _grade(relevance: float) -> float:
    return 3.0 if relevance == 3 else 2.0 if relevance >= RELEVANT else 1.0 if relevance >= 1.5 else 0.0


def _records(path: str | Path, *columns: str) -> Iterator[Record]:
    return read_records(read_table(path, encoding="latin-1"), dict.fromkeys(columns, ()), columns)


def _product_id(record: Record) -> str:
    """The uid of a file beside train.csv, where pandas wrote some as 100001.0 and Kaggle left some rows empty."""
    return record.text("product_uid").removesuffix(".0")


def _read_column(path: str | Path, column: str, judged: Collection[str]) -> dict[str, str]:
    """product_id -> text of `column`, of the judged products that have one."""
    records = ((_product_id(record), _known(record.text(column))) for record in _records(path, "product_uid", column))
    return {product_id: text for product_id, text in records if text and product_id in judged}


def _read_attributes(
    path: str | Path, judged: Collection[str], brands: dict[str, str], tags: _Tags, bullets: dict[str, list[str]]
) -> None:
    """Adds Kaggle's attributes.csv: brands where none is known, bullet points, and all else by its name."""
    for record in _records(path, "product_uid", "name", "value"):
        product_id, name, value = _product_id(record), record.text("name"), _known(record.text("value"))
        if not value or product_id not in judged:
            continue
        if name == _BRAND:
            brands.setdefault(product_id, value)
        elif name.startswith("Bullet"):
            bullets.setdefault(product_id, []).append(plain_text(value))
        elif name:
            tags.setdefault(product_id, {}).setdefault(name, []).append(value)


def _known(text: str) -> str:
    return "" if text.lower() in _NOTHING else html.unescape(text)
