"""Postings: which products a key (an attribute or a code) brings back, and with what weight.

Stored in the order of keys, each key's best products first, so that a query reads one slice a key and a pruned index is
a prefix of every slice.

Dimension letters:
    K  keys                  P  postings
    G  keys of one query     D  products
    X  postings touched
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gram.arrays import offsets
from gram.folders import load_runs, save_runs


@dataclass(frozen=True, eq=False)
class Postings:
    """For every key its (product, weight) pairs, by falling weight, then by product. Never changed.

    >>> postings = Postings.build([0, 1, 1], [2, 0, 2], [0.5, 1.0, 3.0], n_keys=2)
    >>> postings.score([0, 1], [2.0, 1.0], n_products=3).tolist()
    [1.0, 0.0, 4.0]
    """

    start: NDArray[np.int64]  # (K + 1,) key k's postings stand at start[k] … start[k + 1] − 1
    product: NDArray[np.int32]  # (P,) the product's row in the catalogue
    weight: NDArray[np.float32]  # (P,)

    @staticmethod
    def build(keys: ArrayLike, products: ArrayLike, weights: ArrayLike, n_keys: int) -> Postings:
        """Postings from unordered triples (P,) (P,) (P,). A pair given twice counts twice.

        Raises ValueError for arrays of different lengths, a key outside 0 … n_keys − 1, a negative product, and a
        weight that is not finite.
        """
        key = np.asarray(keys, dtype=np.int64)  # (P,)
        product = np.asarray(products, dtype=np.int32)  # (P,)
        weight = np.asarray(weights, dtype=np.float32)  # (P,)
        if not key.shape == product.shape == weight.shape == (len(key),):
            raise ValueError(
                f"keys {key.shape}, products {product.shape}, weights {weight.shape} must be of one length"
            )
        if len(key) and not (key.min() >= 0 and key.max() < n_keys and product.min() >= 0):
            raise ValueError(f"keys must be 0 to {n_keys - 1} and products ≥ 0")
        if not np.isfinite(weight).all():
            raise ValueError(f"the weight at {int(np.flatnonzero(~np.isfinite(weight))[0])} is not finite")
        order = np.lexsort((product, -weight, key))  # (P,)
        return Postings(offsets(np.bincount(key, minlength=n_keys)), product[order], weight[order])

    @property
    def n_keys(self) -> int:
        """How many keys there are, with or without postings."""
        return len(self.start) - 1

    def __len__(self) -> int:
        return len(self.product)

    def of(self, key: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The products and weights of one key, best first; views, not copies."""
        self._check(np.array([key]))
        at = slice(int(self.start[key]), int(self.start[key + 1]))
        return self.product[at], self.weight[at]

    def lengths(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many postings each key (G,) has, (G,); one that is newer than the postings has none."""
        known = np.minimum(keys, self.n_keys - 1)
        return np.where(keys < self.n_keys, self.start[known + 1] - self.start[known], 0)

    def score(self, keys: ArrayLike, weights: ArrayLike, n_products: int) -> NDArray[np.float32]:
        """(D,) the sum, over the query's keys (G,), of its weight (G,) times the product's weight under that key."""
        return self._sums(keys, weights, n_products).astype(np.float32)

    def accumulate(self, keys: ArrayLike, weights: ArrayLike, out: NDArray[np.float32]) -> None:
        """Adds what `score` returns to `out` (D,), in place."""
        out += self._sums(keys, weights, len(out))

    def touched(self, keys: ArrayLike) -> int:
        """How many postings a query with these keys (G,) reads: what retrieval costs."""
        key = self._check(np.asarray(keys, dtype=np.int64).reshape(-1))  # (G,)
        return int((self.start[key + 1] - self.start[key]).sum())

    def transpose(self, n_products: int) -> Postings:
        """For every product its keys: `start` runs over products, and `product` holds keys."""
        return Postings.build(self.product, self._keys(), self.weight, n_products)

    def save(self, folder: str | Path, prefix: str) -> None:
        """Writes the arrays into an existing folder as `prefix.*.npy`."""
        save_runs(folder, prefix, start=self.start, product=self.product, weight=self.weight)

    @staticmethod
    def load(folder: str | Path, prefix: str, mmap: bool = True) -> Postings:
        """What `save` wrote, read page by page when `mmap`. Raises IndexFolderError if it cannot be used."""
        return Postings(*load_runs(folder, prefix, ("start", "product", "weight"), mmap))

    def _sums(self, keys: ArrayLike, weights: ArrayLike, n_products: int) -> NDArray[np.float64]:
        key = self._check(np.asarray(keys, dtype=np.int64).reshape(-1))  # (G,)
        query_weight = np.asarray(weights, dtype=np.float32).reshape(-1)  # (G,)
        if len(key) != len(query_weight):
            raise ValueError(f"{len(key)} keys, but {len(query_weight)} weights")
        if not len(key):
            return np.zeros(n_products)
        first, last = self.start[key], self.start[key + 1]  # (G,) (G,)
        slices = [slice(*ends) for ends in zip(first.tolist(), last.tolist(), strict=True)]
        product = np.concatenate([self.product[at] for at in slices])  # (X,)
        share = np.concatenate([self.weight[at] for at in slices]) * np.repeat(query_weight, last - first)  # (X,)
        # For 50 keys with 25,000 postings over 55,000 products this takes 0.10 ms; np.add.at into float32 takes 0.17 ms
        # and `out[product] += …` key by key 0.34 ms, which would also lose pairs given twice. bincount sums in float64.
        sums = np.bincount(product, weights=share, minlength=n_products).astype(np.float64, copy=False)  # (D,)
        if len(sums) > n_products:
            raise ValueError(f"a posting names product {len(sums) - 1}, but there are only {n_products} products")
        return sums

    def _keys(self) -> NDArray[np.int64]:
        """(P,) the key of every posting."""
        return np.repeat(np.arange(self.n_keys), np.diff(self.start))

    def _check(self, key: NDArray[np.int64]) -> NDArray[np.int64]:
        if len(key) and not (key.min() >= 0 and key.max() < self.n_keys):
            raise ValueError(f"keys must be 0 to {self.n_keys - 1}, not {key.min()} to {key.max()}")
        return key
