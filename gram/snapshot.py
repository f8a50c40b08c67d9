"""A live index at one moment: its segments, and what of them the shop still sells. Nothing here ever changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from gram.arrays import offsets
from gram.code_edits import CodeEdits
from gram.coder.base import Representations
from gram.coder.packing import join, read_back
from gram.index.bm25 import BM25Index
from gram.index.fields import Fields
from gram.index.postings import Postings
from gram.index.segment import Index
from gram.index.store import HOLDS_LIVE, MERGED
from gram.indexing import assemble_index, product_stems
from gram.ranking.candidates import NEAREST
from gram.records import Attribute, Product
from gram.search import Searcher

GIVEN = 0.25
"""The weight of an attribute that the model writes for a product from which the product counts as having it, for
filters, rules, counts and refinements; a search finds by smaller ones too. docs/log.md, "Types that are none"."""


@dataclass(frozen=True, eq=False)
class LiveSegment:
    """A segment, the fields of its products, and which of these are still what the shop sells."""

    index: Index
    fields: Fields
    alive: BitMap  # rows; never changed

    @cached_property
    def mask(self) -> NDArray[np.bool_] | None:
        """(N,) None where all are alive."""
        return None if len(self.alive) == self.index.n_products else to_mask(self.alive, self.index.n_products)

    def without(self, product_ids: Iterable[str]) -> LiveSegment:
        """The same where these are gone."""
        rows = [row for row in map(self.row, product_ids) if row is not None]
        return LiveSegment(self.index, self.fields, self.alive - BitMap(rows)) if rows else self

    def row(self, product_id: str) -> int | None:
        """The row of a product that is alive here."""
        try:
            row = self.index.table.row(product_id)
        except KeyError:
            return None
        return row if row in self.alive else None

    def holds(self, stem: str) -> bool:
        """Whether a product that is alive here holds a stem."""
        rows = self.index.bm25.holding(stem)
        return bool(len(rows)) and not self.alive.isdisjoint(BitMap(rows))

    def having(self, key: int) -> BitMap:
        """The rows that hold an attribute or were given it with a weight of GIVEN; none for −1."""
        return self.alive & BitMap(self._having(key))

    def count_having(self, key: int, among: NDArray[np.bool_]) -> int:
        """The same of some rows (N,), which are alive: how many."""
        rows = self._having(key)
        return len(np.unique(rows[among[rows]]))

    def _having(self, key: int) -> NDArray[np.int32]:
        lists = [np.zeros(0, dtype=np.int32)]
        for postings, least in self.has:
            if 0 <= key < postings.n_keys:
                rows, weights = postings.of(key)  # the heaviest first
                lists.append(rows[: int(np.searchsorted(-weights, -least, side="right"))])
        return np.concatenate(lists)

    @property
    def has(self) -> tuple[tuple[Postings, float], ...]:
        """The postings of what products hold and of what they were given, and the weight from which they have it."""
        return (self.index.lexical, 0.0), (self.index.expansion, GIVEN)


def to_mask(rows: BitMap, n: int) -> NDArray[np.bool_]:
    """(n,) True for the rows of a bitmap."""
    mask = np.zeros(n, dtype=bool)
    mask[np.array(rows, dtype=np.int64)] = True
    return mask


@dataclass(frozen=True, eq=False)
class Snapshot:
    """All segments at one moment, the one on disk first, with what searches them and the codes that were given and
    taken. `version` grows with every change."""

    searcher: Searcher
    segments: tuple[LiveSegment, ...] = ()
    version: int = 0
    edits: CodeEdits = field(default_factory=CodeEdits)

    @cached_property
    def begins(self) -> NDArray[np.int64]:
        """(S + 1,) the row over all segments that each of the S begins with, and how many rows there are."""
        return offsets(np.array([segment.index.n_products for segment in self.segments], dtype=np.int64))

    @cached_property
    def field_names(self) -> frozenset[str]:
        """The fields that products have."""
        return frozenset(name for segment in self.segments for name in segment.fields.columns)

    @cached_property
    def numeric_names(self) -> frozenset[str]:
        """Those of them in which some product has a number."""
        columns = (pair for segment in self.segments for pair in segment.fields.columns.items())
        return frozenset(name for name, column in columns if column.numbers)

    @cached_property
    def code_counts(self) -> NDArray[np.int64]:
        """(A,) how many products have each attribute of the lexicon, as of `LiveSegment.having`."""
        counts = np.zeros(len(self.searcher.lexicon), dtype=np.int64)
        for segment in self.segments:
            index, alive = segment.index, to_mask(segment.alive, segment.index.n_products)
            has = [np.zeros(0, dtype=np.int64)]  # key · N + row
            for postings, least in segment.has:
                key = np.repeat(np.arange(postings.n_keys), np.diff(postings.start))
                kept = alive[postings.product] & (postings.weight >= least)
                has.append(key[kept] * index.n_products + postings.product[kept])
            counts += np.bincount(np.unique(np.concatenate(has)) // index.n_products, minlength=len(counts))
        return counts

    def find(self, product_id: str) -> tuple[LiveSegment, int] | None:
        """Where a product stands."""
        for segment in reversed(self.segments):
            row = segment.row(product_id)
            if row is not None:
                return segment, row
        return None

    def like(self, attribute: Attribute) -> list[str]:
        """Products that may have an attribute and were coded without it: those whose text holds its words, then those
        whose vectors are nearest to its own."""
        lexicon = self.searcher.lexicon
        query, key = self.searcher.represent([attribute.value], compound=False)[0], lexicon.find(*attribute)
        holding: list[str] = []
        near: list[tuple[float, str]] = []
        for segment in self.segments:
            index = segment.index
            has = BitMap(index.lexical.of(key)[0]) if key < index.lexical.n_keys else BitMap()
            rows = segment.alive - has
            nearest = index.sketch.nearest(index.dense, query.dense, NEAREST)
            near += [(float(index.dense[r] @ query.dense), str(index.table.ids[r])) for r in nearest if r in rows]
            for stem in lexicon.analyzer.stems(attribute.value):
                rows &= BitMap(index.bm25.holding(stem))
            holding += [str(index.table.ids[row]) for row in rows]
        return list(dict.fromkeys([*holding, *(product_id for _, product_id in sorted(near, reverse=True)[:NEAREST])]))

    def __len__(self) -> int:
        return sum(len(segment.alive) for segment in self.segments)


def join_segments(segments: Sequence[LiveSegment]) -> tuple[list[Product], Representations]:
    """What is alive in several segments: the products, and what the coder said of them; nothing is coded again."""
    rows = [np.array(segment.alive, dtype=np.int64) for segment in segments]
    products = [s.index.table[row] for s, some in zip(segments, rows, strict=True) for row in some.tolist()]
    return products, join([read_back(s.index, some) for s, some in zip(segments, rows, strict=True)])


def merge_segments(searcher: Searcher, segments: Sequence[LiveSegment], number: int) -> Index:
    """One segment of all that is alive in several, with statistics of its own; nothing is coded again."""
    base = segments[0].index
    products, represented = join_segments(segments)
    bm25 = BM25Index.build(product_stems(products, searcher.lexicon.analyzer), base.bm25.k1, base.bm25.b)
    extra = dict(zip(base.extra_words, base.extra_counts.tolist(), strict=True))
    meta = base.meta | {MERGED: number, HOLDS_LIVE: _changed_live(segments, {p.product_id for p in products})}
    return assemble_index(searcher.coder, products, represented, bm25, extra, meta)


def _changed_live(segments: Sequence[LiveSegment], left: set[str]) -> dict[str, list[str]]:
    """The ids of what changed live in segments that become one: of products that are `left`, and of those that went."""
    base, *fresh = segments
    before = base.index.meta.get(HOLDS_LIVE) or {}
    came = {str(s.index.table.ids[row]) for s in fresh for row in s.alive}
    went = set(base.index.table.ids.tolist()) - left
    return {
        "changed": sorted((came | set(before.get("changed", ()))) & left),
        "gone": sorted((went | set(before.get("gone", ()))) - left),
    }
