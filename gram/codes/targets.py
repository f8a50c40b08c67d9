"""What the generator should say: the attributes of each side of an interaction, weighted by how often they are meant.

Letters: Q queries, N products, A attributes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gram.codes.lexicon import Lexicon

LINKED_BONUS = 0.5
"""Added to a product's attribute that all queries linked to it name (design, targets)."""

UNHELD_BONUS = 0.25
"""For an attribute that the product does not hold but a linked query names: the words that its seller lacks."""


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
    """Targets of queries and of products, generated attributes only.

    A query's: each attribute by the share of its wanted products that have it; its own ones 1.
    A product's: its own by the rate at which searchers name them, and on top, for what its linked queries name,
    `LINKED_BONUS` × the share of them that does; what it does not hold itself starts from `UNHELD_BONUS`.

    Args:
        query_attributes: the attributes that each query holds, Q rows.
        product_attributes: the attributes that each product holds, N rows.
        pairs: (query, product) of each interaction, (I, 2).
        weights: of each interaction, (I,).
    """
    wanted: list[list[tuple[int, float]]] = [[] for _ in query_attributes]
    linked: defaultdict[int, list[int]] = defaultdict(list)
    for (query, product), weight in zip(pairs.tolist(), weights.tolist(), strict=True):
        wanted[query].append((product, weight))
        linked[product].append(query)

    def of_query(i: int) -> dict[int, float]:
        row: defaultdict[int, float] = defaultdict(float)
        total = sum(w for _, w in wanted[i]) or 1.0
        for product, weight in wanted[i]:
            for a in product_attributes[product].tolist():
                row[a] += weight / total
        row.update((a, 1.0) for a in query_attributes[i].tolist())
        return row

    def of_product(i: int) -> dict[int, float]:
        own = product_attributes[i].tolist()
        row = dict(zip(own, lexicon.asked[own].tolist(), strict=True))
        for query in linked.get(i, ()):
            for a in query_attributes[query].tolist():
                row[a] = row.get(a, UNHELD_BONUS) + LINKED_BONUS / len(linked[i])
        return row

    return (
        _csr([of_query(i) for i in range(len(query_attributes))], lexicon.n_generated),
        _csr([of_product(i) for i in range(len(product_attributes))], lexicon.n_generated),
    )


def _csr(rows: Sequence[dict[int, float]], n_generated: int) -> Targets:
    kept = [[(a, min(w, 1.0)) for a, w in sorted(row.items()) if a < n_generated] for row in rows]
    start = np.concatenate([[0], np.cumsum([len(r) for r in kept])]).astype(np.int64)
    flat = [pair for row in kept for pair in row]
    return Targets(start, np.array([a for a, _ in flat], np.int32), np.array([w for _, w in flat], np.float32))
