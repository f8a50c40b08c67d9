"""Cuts of a set of queries: where an engine wins or loses is seen on groups of queries, not on their mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from gram.data.dataset import Dataset
from gram.evaluation.measures import relevant
from gram.records import Product
from gram.text.analysis import default_analyzer
from gram.text.fields import FIELDS, joined_text
from gram.text.typos import misspell
from gram.text.words import has_digit, stems


def no_common_word(
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, float]],
    products: Iterable[Product],
    fields: Sequence[str] = ("title",),
) -> list[str]:
    """Ids of the queries that share no stem with any relevant product: a keyword engine cannot answer them.

    `fields` are the product's fields that are read. Stop words do not count. Queries without a relevant product in
    `products` are left out.
    """
    texts = {product.product_id: joined_text(product, fields) for product in products}
    stems_of: dict[str, set[str]] = {}
    found = []
    for query_id, answers in relevant(qrels).items():
        words = set(stems(queries.get(query_id, ""))) - default_analyzer().stopwords
        known = [product_id for product_id in answers if product_id in texts]
        for product_id in known:
            if product_id not in stems_of:
                stems_of[product_id] = set(stems(texts[product_id]))
        if words and known and not any(words & stems_of[product_id] for product_id in known):
            found.append(query_id)
    return found


def keyword_gap_queries(dataset: Dataset, part: str = "test") -> list[str]:
    """Ids of one part's queries that share no stem with any field of any relevant product, those of most words first.

    They show what a keyword engine cannot do, whatever it reads.
    """
    judged = dataset.parts[part]
    found = no_common_word(judged.queries, judged.qrels, dataset.products, FIELDS)
    return sorted(found, key=lambda query_id: -len(judged.queries[query_id].split()))


def with_numbers(queries: Mapping[str, str]) -> list[str]:
    """Ids of the queries that hold a number: sizes, counts and model numbers, which must match exactly.

    >>> with_numbers({"a": "10 inch skillet", "b": "red skillet", "c": "kr-220"})
    ['a', 'c']
    """
    return [query_id for query_id, query in queries.items() if has_digit(query)]


def misspell_query(query: str, seed: int) -> str:
    """The query with one typo: two letters swapped, one dropped, one doubled, a neighbouring key hit.

    The typo falls into a word of four letters or more; a query without one comes back unchanged. The same seed makes
    the same typo.

    >>> misspell_query("tv", 1)
    'tv'
    """
    return misspell(query, np.random.default_rng(seed))
