"""What a model should say: the attributes of each side of an interaction, weighted by how often they are meant.

Letters: Q queries, N products, A attributes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gram.arrays import offsets
from gram.codes.lexicon import Lexicon

CLICKED_BONUS = 0.5
"""Added to a product's attribute that all queries that led to it name. Not tuned."""

MISSING_BONUS = 0.25
"""For an attribute that the product's text lacks but such a query names: the words that its seller lacks. Not tuned."""

CO_WEIGHT = 0.5
"""How much a target counts that only the other side's expansions say. Not tuned."""


class Targets(NamedTuple):
    """Rows of (attribute, weight in (0, 1]), one row a text, in CSR form."""

    start: NDArray[np.int64]  # (rows + 1,)
    attribute: NDArray[np.int32]
    weight: NDArray[np.float32]

    def row(self, i: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The attributes of one text, rising, and their weights."""
        at = slice(self.start[i], self.start[i + 1])
        return self.attribute[at], self.weight[at]


def make_targets(
    lexicon: Lexicon,
    query_attributes: Sequence[NDArray[np.int32]],
    product_attributes: Sequence[NDArray[np.int32]],
    pairs: NDArray[np.int64],
    weights: NDArray[np.float32],
) -> tuple[Targets, Targets]:
    """Targets of queries and of products, learnt attributes only.

    A query's: each attribute by the share of its clicked products that have it; its lexical ones 1.
    A product's: its lexical ones by their mention rate, and on top, for what the queries that led to it name,
    `CLICKED_BONUS` × the share of them that does; what its text lacks starts from `MISSING_BONUS`.

    Args:
        query_attributes: the lexical attributes of each query, Q rows.
        product_attributes: the lexical attributes of each product, N rows.
        pairs: (query, product) of each interaction, (I, 2).
        weights: of each interaction, (I,).
    """
    clicked: list[list[tuple[int, float]]] = [[] for _ in query_attributes]
    queries_of: defaultdict[int, list[int]] = defaultdict(list)
    for (query, product), weight in zip(pairs.tolist(), weights.tolist(), strict=True):
        clicked[query].append((product, weight))
        queries_of[product].append(query)

    def of_query(i: int) -> dict[int, float]:
        row: defaultdict[int, float] = defaultdict(float)
        total = sum(w for _, w in clicked[i]) or 1.0
        for product, weight in clicked[i]:
            for a in product_attributes[product].tolist():
                row[a] += weight / total
        row.update((a, 1.0) for a in query_attributes[i].tolist())
        return row

    def of_product(i: int) -> dict[int, float]:
        lexical = product_attributes[i].tolist()
        row = dict(zip(lexical, lexicon.mention_rate[lexical].tolist(), strict=True))
        for query in queries_of.get(i, ()):
            for a in query_attributes[query].tolist():
                row[a] = row.get(a, MISSING_BONUS) + CLICKED_BONUS / len(queries_of[i])
        return row

    return (
        _build_csr([of_query(i) for i in range(len(query_attributes))], lexicon.n_learnt),
        _build_csr([of_product(i) for i in range(len(product_attributes))], lexicon.n_learnt),
    )


def co_targets(
    of_queries: Targets,
    of_products: Targets,
    expansions_of_queries: Sequence[NDArray[np.int64]],
    expansions_of_products: Sequence[NDArray[np.int64]],
    pairs: NDArray[np.int64],
    most: int = 10,
) -> tuple[Targets, Targets]:
    """Targets for co-training: what the model expands one side of an interaction with, the other side learns to say.

    Only what passes the relevance filter: an attribute that at least half of a query's clicked products are expanded
    with, two or more of them where it has as many, is a target of the query; and one that a query is expanded with, and
    that at least half of its clicked products are expanded with or have as a target already, is a target of each of
    them. At most `most` more a text. A target that is there already keeps the greater weight.

    Args:
        expansions_of_queries: the expansion attributes of each query, the surest first, Q rows.
        expansions_of_products: the same of products, N rows.
        pairs: (query, product) of each interaction, (I, 2).
    """
    clicked: defaultdict[int, list[int]] = defaultdict(list)
    for query, product in pairs.tolist():
        clicked[query].append(product)
    n_queries, n_products = len(expansions_of_queries), len(expansions_of_products)
    has = [set(of_products.row(i)[0].tolist()) | set(expansions_of_products[i].tolist()) for i in range(n_products)]
    of_query = [dict(zip(*map(np.ndarray.tolist, of_queries.row(i)), strict=True)) for i in range(n_queries)]
    of_product = [dict(zip(*map(np.ndarray.tolist, of_products.row(i)), strict=True)) for i in range(n_products)]
    more: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for query, products in clicked.items():
        counts = Counter(a for p in products for a in expansions_of_products[p].tolist())
        least = max(len(products) / 2, min(2, len(products)))
        new = [(a, n / len(products)) for a, n in counts.most_common() if n >= least and a not in of_query[query]]
        of_query[query].update((a, CO_WEIGHT * share) for a, share in new[:most])
        for a in expansions_of_queries[query].tolist()[:most]:
            share = sum(a in has[p] for p in products) / len(products)
            if share >= 0.5:
                for p in products:
                    more[p][a] = max(more[p][a], CO_WEIGHT * share)  # type: ignore[assignment]
    for product, found in more.items():
        row = of_product[product]
        added = [a for a, _ in found.most_common() if a not in row][:most]
        row.update((a, max(row.get(a, 0.0), found[a])) for a in found if a in row or a in added)
    everything = 1 + max((a for row in (*of_query, *of_product) for a in row), default=0)
    return _build_csr(of_query, everything), _build_csr(of_product, everything)


def _build_csr(rows: Sequence[dict[int, float]], n_learnt: int) -> Targets:
    kept = [[(a, min(w, 1.0)) for a, w in sorted(row.items()) if a < n_learnt] for row in rows]
    start = offsets(np.array([len(r) for r in kept], dtype=np.int64))
    flat = [pair for row in kept for pair in row]
    return Targets(start, np.array([a for a, _ in flat], np.int32), np.array([w for _, w in flat], np.float32))
