"""How much of what a query asks by its codes each candidate has: holds it, or was given it by the model.

An attribute that a product holds is had whole; one it was given is had as far as its weight comes to what the attribute
weighs where products hold it. A compound code of a query is a set of attributes that it asks for together, of different
meanings; a product has the code as far as it has each of them.

Letters: C candidates, K attributes that the query asks for, S slots.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gram.arrays import number_rows
from gram.coder.base import QueryCodes
from gram.index.entries import RowEntries
from gram.index.segment import Index

Floats = NDArray[np.float32]

WEAK = 0.2
"""Attributes of less than this share of the weightiest one's importance are not missed by `weakest`. Not tuned."""


class CodeMatch:
    """The attributes that a query holds, and what the candidates have of them."""

    def __init__(
        self,
        index: Index,
        codes: QueryCodes,
        rows: NDArray[np.int64],
        number: NDArray[np.int64] | None = None,
        entries: RowEntries | None = None,
    ) -> None:
        """`rows` (C,) of the candidates, `number` (N,) as `number_rows` makes it of them, and `entries`, their code
        rows, where these are at hand."""
        self.index, self.codes, self.rows = index, codes, rows
        self.entries = index.code_rows.read(rows) if entries is None else entries
        self.number = number_rows(rows, index.n_products) if number is None else number

    @cached_property
    def _both(self) -> tuple[Floats, Floats]:
        number = self.number
        lexical = np.zeros((len(self.rows), len(self.codes.key)), dtype=np.float32)
        expansion = np.zeros_like(lexical)
        for k, key in enumerate(self.codes.key.tolist()):
            if not 0 <= key < self.index.lexical.n_keys:  # newer than the index
                continue
            products, weights = self.index.lexical.of(key)
            usual = float(weights.mean()) if len(weights) else 1.0
            at = number[products]
            lexical[at[at >= 0], k] = 1.0
            products, weights = self.index.expansion.of(key)
            at = number[products]
            inside = at >= 0
            expansion[at[inside], k] = np.minimum(weights[inside] / max(usual, 1e-6), 1.0)
        return lexical, expansion

    @property
    def lexical(self) -> Floats:
        """(C, K) 1 where a candidate's text holds the attribute."""
        return self._both[0]

    @cached_property
    def has(self) -> Floats:
        """(C, K) in [0, 1]: 1 where it is lexical, else how much the model gave it to the candidate."""
        return np.maximum(*self._both)

    @cached_property
    def lexical_share(self) -> Floats:
        """(C,) of what is asked, by importance, that a candidate holds."""
        return self.lexical @ self.codes.importance

    @cached_property
    def share(self) -> Floats:
        """(C,) of what is asked, by importance, that a candidate has."""
        return self.has @ self.codes.importance

    @cached_property
    def pairs(self) -> Floats:
        """(C,) of the query's compound codes of two attributes, by importance, that a candidate has; a query that asks
        for one thing alone has that as its code."""
        every = self.codes.importance @ self.codes.apart @ self.codes.importance
        if every <= 0:
            return self.share
        have = self.has * self.codes.importance  # (C, K)
        return np.einsum("ck,ck->c", have @ self.codes.apart.astype(np.float32), have) / np.float32(every)

    @cached_property
    def nearest(self) -> Floats:
        """(C, K) how near the nearest of a candidate's attributes comes to each that is asked, in [0, 1]."""
        nearest = np.zeros((len(self.rows), len(self.codes.key)), dtype=np.float32)
        if self.codes.near is None or not len(self.codes.near.key):
            return nearest
        entries = self.entries
        first = np.flatnonzero(np.diff(entries.row, prepend=-1))  # of each row that has any
        likeness = np.zeros(1 + max(self.codes.near.key.max(), entries.key.max(initial=0)), dtype=np.float32)
        for k in range(len(self.codes.key)):
            near = self.codes.near.of(k)
            if len(near.key) and len(first):
                likeness[near.key] = near.weight
                nearest[entries.row[first], k] = np.maximum.reduceat(likeness[entries.key], first)
                likeness[near.key] = 0.0
        return nearest

    @cached_property
    def soft_share(self) -> Floats:
        """(C,) of what is asked, by importance, what a candidate lacks, as far as another of its attributes is near."""
        lacking: Floats = self.nearest * (1 - self.has)  # (C, K)
        return lacking @ self.codes.importance

    @cached_property
    def weakest(self) -> Floats:
        """(C,) how much a candidate has of the asked attribute that it has least of, unimportant ones aside."""
        if not len(self.codes.key):
            return np.zeros(len(self.rows), dtype=np.float32)
        telling = self.codes.importance >= WEAK * self.codes.importance.max()
        return self.has[:, telling].min(1)

    @cached_property
    def _kept(self) -> NDArray[np.bool_]:
        """(K,) which attributes a query does not hold only to leave them out."""
        return np.isin(self.codes.key, list(self.codes.left_out), invert=True)

    def agreement(self, slot: int) -> Floats:
        """(C,) of what is asked, by importance, in one slot that a candidate has."""
        here = self.codes.slot == slot
        return self.has[:, here] @ self.codes.importance[here]

    def conflict(self, slot: int) -> Floats:
        """(C,) of what is asked, by importance, in one slot, where a candidate has none of it and holds something else:
        asked red, is blue. What a query leaves out is not asked."""
        here = (self.codes.slot == slot) & self._kept
        if not here.any():
            return np.zeros(len(self.rows), dtype=np.float32)
        nothing = self.has[:, here].max(1) <= 0
        other = self.index.slots[self.rows, slot] > 0
        return (nothing & other).astype(np.float32) * self.codes.importance[here].sum()
