"""Titles: which of a query's words stand in a title, and whether side by side.

Dimension letters:
    N  products      T  words of all titles
    C  candidates    S  words of the candidates' titles    Q  a query's distinct words
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gram.arrays import each_once, offsets, ragged
from gram.folders import load_runs, save_runs
from gram.index.bm25 import BM25Index
from gram.index.entries import RowEntries

DENIES = 3
"""Words behind a negation that it denies: "without removable foam pad". Not tuned."""
PURPOSE = 4
"""Words behind "for" that say what a product is for: docs/log.md, "What a product is for"."""


@dataclass(frozen=True, eq=False)
class Titles:
    """The words of every title in their order, as keys of the BM25 postings.

    A word weighs its idf, such that the weights of a title have a length of 1; said again it weighs nothing.
    """

    start: NDArray[np.int64]  # (N + 1,)
    word: NDArray[np.int32]  # (T,)
    weight: NDArray[np.float32]  # (T,)

    @staticmethod
    def build(titles: Sequence[Sequence[str]], bm25: BM25Index) -> Titles:
        """From the stems of each title; `bm25` knows them all."""
        counts = np.array([len(t) for t in titles], dtype=np.int64)
        word = np.array([bm25.ids[stem] for t in titles for stem in t], dtype=np.int32)  # (T,)
        row = np.repeat(np.arange(len(titles)), counts)
        _, first = np.unique(row * len(bm25) + word, return_index=True)
        weight = np.zeros(len(word), dtype=np.float32)
        weight[first] = bm25.idf_of(word[first])
        weight /= np.sqrt(np.bincount(row, weight * weight, len(titles)))[row]
        return Titles(offsets(counts), word, weight)

    def match(
        self,
        bm25: BM25Index,
        stems: Sequence[str],
        distinct: Sequence[str],
        titles: RowEntries,
        purposes: Collection[str] = (),
    ) -> NDArray[np.float32]:
        """(C, 4) how the query's words stand in each candidate's title: the share of them, by idf, that it holds; the
        share of the query's neighbours that are neighbours there, in this order; whether it holds the last word; the
        share of them that it holds, where all of it stands soon behind one of `purposes` (a battery for laptops) and
        the query names no purpose itself.

        `stems` are the query's, `distinct` those that say something, each once; `titles` are as `read` gives them.
        """
        n, row, word, _ = titles
        out = np.zeros((n, 4), dtype=np.float32)
        known = [s for s in distinct if s in bm25.ids]
        if not known or not len(row):
            return out
        idf = {s: bm25.idf(s) for s in distinct}
        total = sum(idf.values()) or 1.0
        keys = np.array([bm25.ids[s] for s in known])
        order = np.argsort(keys)
        at = np.searchsorted(keys[order], word).clip(max=len(keys) - 1)
        which = np.where(keys[order][at] == word, order[at], -1)  # (S,) the query's word, or −1
        named = which >= 0
        holds = np.zeros((n, len(known)), dtype=bool)  # (C, Q)
        holds[row[named], which[named]] = True
        weight = np.array([idf[s] for s in known], dtype=np.float32)
        out[:, 0] = holds @ weight / total
        number = {s: i for i, s in enumerate(known)}
        pairs = [(a, b) for a, b in pairwise(stems) if a in idf and b in idf]
        if pairs and len(which) > 1:
            beside = row[1:] == row[:-1]
            for a, b in pairs:
                if a in number and b in number:
                    met = beside & (which[:-1] == number[a]) & (which[1:] == number[b])
                    out[each_once(row[1:][met]), 1] += idf[a] + idf[b]
            out[:, 1] /= sum(idf[a] + idf[b] for a, b in pairs)
        end = next(s for s in reversed(stems) if s in idf)
        if end in number:
            out[:, 2] = holds[:, number[end]]
        purpose = _mark(word, bm25, purposes) & (np.diff(row, prepend=-1) == 0)  # no title is of a purpose alone
        if purpose.any() and not set(purposes).intersection(stems):
            first = np.full(n, len(word))  # where each title's purpose begins
            np.minimum.at(first, row[purpose], np.flatnonzero(purpose))
            behind = np.arange(len(word)) - first[row]
            elsewhere = np.zeros(n, dtype=bool)
            elsewhere[row[named & ((behind < 1) | (behind > PURPOSE))]] = True
            out[:, 3] = np.where(elsewhere, 0, out[:, 0])
        return out

    def state(
        self, bm25: BM25Index, stems: Sequence[str], negations: Mapping[str, Collection[str]], titles: RowEntries
    ) -> NDArray[np.bool_]:
        """(C,) whether each title holds all of these stems and denies none: "sugar free" holds no sugar.

        `negations` has the stems that deny what they stand "before", or as a "prefix" right before, and "after";
        `titles` are as `read` gives them.
        """
        n, row, word, _ = titles
        ids = [bm25.ids.get(stem, -1) for stem in stems]
        if not ids or min(ids) < 0 or not len(row):
            return np.zeros(n, dtype=bool)
        denied = np.zeros(len(word), dtype=bool)
        before, after = (_mark(word, bm25, negations.get(where, ())) for where in ("before", "after"))
        prefix = _mark(word, bm25, negations.get("prefix", ()))
        for far in range(1, DENIES + 1):
            denied[far:] |= (before if far > 1 else before | prefix)[:-far] & (row[far:] == row[:-far])
        denied[:-1] |= after[1:] & (row[:-1] == row[1:])
        stated = np.ones(n, dtype=bool)
        for key in ids:
            here = word == key
            holds, denies = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
            holds[row[here]], denies[row[here & denied]] = True, True
            stated &= holds & ~denies
        return stated

    def are_beside(self, bm25: BM25Index, stems: Sequence[str]) -> bool:
        """Whether the second of two stems stands right behind the first in any title."""
        first, second = (bm25.ids.get(stem, -1) for stem in stems)
        if min(first, second) < 0:
            return False
        at = np.flatnonzero((self.word[:-1] == first) & (self.word[1:] == second)) + 1
        return bool(np.isin(at, self.start, invert=True).any())

    def read(self, rows: NDArray[np.int64]) -> RowEntries:
        """The words of the titles of C candidates."""
        at, row = ragged(self.start[rows], self.start[rows + 1] - self.start[rows])
        return RowEntries(len(rows), row, self.word[at], self.weight[at])

    def save(self, folder: str | Path) -> None:
        """Writes `titles.*.npy` into an existing folder."""
        save_runs(folder, "titles", start=self.start, word=self.word, weight=self.weight)

    @staticmethod
    def load(folder: str | Path, mmap: bool = True) -> Titles:
        """What `save` wrote. Raises IndexFolderError if it cannot be used."""
        return Titles(*load_runs(folder, "titles", ("start", "word", "weight"), mmap))


def _mark(word: NDArray[np.int32], bm25: BM25Index, stems: Collection[str]) -> NDArray[np.bool_]:
    """(S,) which words of titles are one of these."""
    return np.isin(word, [bm25.ids[stem] for stem in stems if stem in bm25.ids])
