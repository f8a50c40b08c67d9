"""Which codes co-alignment prefers (Eq. 6): those that both sides of an interaction write, to those that one does."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gram.arrays import Ints, SparseRows


class CompoundCodes(NamedTuple):
    """The codes that a model wrote for many texts, and how many of these wrote each code."""

    codes: SparseRows
    by_code: NDArray[np.int64]  # (codes of the space,)

    @classmethod
    def of(cls, codes: SparseRows, n_codes: int) -> CompoundCodes:
        return cls(codes, np.bincount(codes.key, minlength=n_codes))

    def __len__(self) -> int:
        return len(self.codes.start) - 1

    def row(self, i: int) -> Ints:
        return self.codes.of(i).key


class Preference(NamedTuple):
    """A code that is preferred to another for an interaction, by its number in the batch, and how much."""

    interaction: int
    chosen: int
    rejected: int
    weight: float


def efficiency(code: int, clicked: NDArray[np.int64], products: CompoundCodes) -> float:
    """How much of what a query leads to a code brings back, against how much else it brings: in [0, 1].

    The share of the clicked products that wrote the code × log(N / products that wrote it) / log N.
    """
    n = len(products)
    found = sum(code in products.row(p) for p in clicked.tolist()) / max(len(clicked), 1)
    return found * float(np.log(n / max(products.by_code[code], 1)) / np.log(max(n, 2)))


def draw_preferences(
    interactions: NDArray[np.int64],
    of_queries: CompoundCodes,
    of_products: CompoundCodes,
    clicked: list[NDArray[np.int64]],
    pairs: int,
    rng: np.random.Generator,
) -> list[Preference]:
    """Up to so many pairs of each interaction (query, product), weighted by what is gained in efficiency.

    A near miss that serves other clicked products is rejected less, or not at all.
    """
    rows: list[Preference] = []
    for i, (query, product) in enumerate(interactions.tolist()):
        of_query, of_product = of_queries.row(query), of_products.row(product)
        both = np.intersect1d(of_query, of_product)
        either = np.setxor1d(of_query, of_product)
        if len(both) and len(either):
            for _ in range(pairs):
                chosen, rejected = int(rng.choice(both)), int(rng.choice(either))
                gain = efficiency(chosen, clicked[query], of_products)
                gain -= efficiency(rejected, clicked[query], of_products)
                if gain > 0:
                    rows.append(Preference(i, chosen, rejected, gain))
    return rows
