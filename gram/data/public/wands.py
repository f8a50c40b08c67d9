"""WANDS, Wayfair's annotation dataset (Chen et al., ECIR 2022): 42,994 products, 480 queries, 233,448 judgements.

Its product.csv, query.csv and label.csv hold tabs, not commas.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gram.data.columns import Record, read_records
from gram.data.dataset import Dataset, Judgement, split_judgements, split_part
from gram.data.public.markup import plain_text
from gram.data.tables import read_table
from gram.records import Product

GRADES = {"Exact": 2.0, "Partial": 1.0, "Irrelevant": 0.0}
"""The labels as grades, so that exact matches alone are relevant. Exact matches of training queries are the log."""


def load(folder: str | Path) -> Dataset:
    """The catalogue, its features as attributes, and the judgements, split by query (WANDS publishes no split).

    Errors: `DataError` for a file that is not there, `MissingColumn`, `BadRow`.
    """
    folder = Path(folder)
    products = [_product(record) for record in _records(folder / "product.csv", *_REQUIRED, *_OPTIONAL)]
    queries: dict[str, str] = {}
    for record in _records(folder / "query.csv", "query_id", "query"):
        queries[record.identifier("query_id")] = record.text("query", required=True)
    judgements: list[Judgement] = []
    for record in _records(folder / "label.csv", "query_id", "product_id", "label"):
        query_id, label = record.identifier("query_id"), record.text("label")
        if query_id not in queries:
            raise record.bad("query_id", "no such query in query.csv", "download both files again.")
        if label not in GRADES:
            raise record.bad("label", f"not one of {', '.join(GRADES)}", "download the file again.")
        query, product_id = queries[query_id], record.identifier("product_id")
        weight = 1.0 if label == "Exact" else 0.0
        judgements.append(Judgement(split_part(query), query_id, query, product_id, weight, GRADES[label]))
    return split_judgements(products, judgements)


_REQUIRED = ("product_id", "product_name")
_OPTIONAL = ("product_class", "category hierarchy", "product_description", "product_features", "rating_count")


def _records(path: Path, *columns: str) -> Iterator[Record]:
    names = dict.fromkeys(columns, ())
    return read_records(read_table(path, delimiter="\t"), names, [c for c in columns if c not in _OPTIONAL])


def _product(record: Record) -> Product:
    """`value` is the number of ratings, a sign of popularity; a product without a category has its class."""
    classes = record.values("product_class", record.cell("product_class"))
    path = record.text("category hierarchy") or "".join(classes[:1])
    attributes = _features(record.text("product_features")) | ({"product_class": classes} if classes else {})
    return Product(
        record.identifier("product_id"),
        record.text("product_name", required=True),
        category=tuple(filter(None, map(str.strip, path.split(" / ")))),
        description=plain_text(record.text("product_description", lines=True)),
        value=record.number("rating_count"),
        attributes=attributes,
    )


def _features(text: str) -> dict[str, tuple[str, ...]]:
    """`key : value|key : value` as a map of all values of a key, keys in lower case; a part without a key is left out.

    >>> _features("Color : red|overallwidth:64.7|color : blue")
    {'color': ('red', 'blue'), 'overallwidth': ('64.7',)}
    """
    features: dict[str, dict[str, None]] = {}
    for part in text.split("|"):
        key, _, value = part.partition(":")
        key, value = " ".join(key.lower().split()), value.strip()
        if key and value:
            features.setdefault(key, {})[value] = None
    return {key: tuple(values) for key, values in features.items()}
