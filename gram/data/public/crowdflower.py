"""CrowdFlower Search Results Relevance (Kaggle, 2015): 10,158 judgements of 261 queries over several shops' products.

Of Kaggle's files `train.csv` alone has judgements, and it names no product ids: rows of one title and description are
one product, 9,912 in all. It may be zipped.
"""

from __future__ import annotations

from pathlib import Path

from gram.data.columns import read_records
from gram.data.dataset import Dataset, Judgement, split_judgements, split_part
from gram.data.public.markup import plain_text
from gram.data.tables import read_table
from gram.records import Product

GRADES = {4.0: 2.0, 3.0: 1.0, 2.0: 0.0, 1.0: 0.0}
"""The median of the judges as a grade, so that perfect matches alone are relevant. Those of training queries are the
log."""

_COLUMNS = ("id", "query", "product_title", "product_description", "median_relevance")


def load(train_csv: str | Path) -> Dataset:
    """The products of `train.csv` and its judgements, split by query (it publishes no split with judgements).

    A product has the id of its first row, a query its number in the order of the file. Errors: `MissingColumn`,
    `BadRow`.
    """
    products: dict[tuple[str, str], Product] = {}
    query_ids: dict[str, str] = {}
    judgements: list[Judgement] = []
    for record in read_records(read_table(train_csv), dict.fromkeys(_COLUMNS, ()), _COLUMNS):
        query, row_id = record.text("query", required=True), record.identifier("id")
        title = plain_text(record.text("product_title", required=True))
        if not title:
            raise record.bad("product_title", "no words but HTML", "download the file again.")
        description = plain_text(record.text("product_description", lines=True))
        product = products.setdefault((title, description), Product(row_id, title, description=description))
        grade = GRADES.get(record.number("median_relevance") or 0.0)
        if grade is None:
            raise record.bad("median_relevance", "not 1, 2, 3 or 4", "download the file again.")
        query_id = query_ids.setdefault(query, str(len(query_ids) + 1))
        judgements.append(Judgement(split_part(query), query_id, query, product.product_id, float(grade == 2.0), grade))
    return split_judgements(list(products.values()), judgements)
