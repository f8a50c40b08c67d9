"""A live index at one moment: its segments, and what of them the shop still sells. Nothing here ever changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from gram.code_edits import CodeEdits
from gram.index.fields import Fields
from gram.index.segment import Index
from gram.search import Searcher


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

    def find(self, product_id: str) -> tuple[LiveSegment, int] | None:
        """Where a product stands."""
        for segment in reversed(self.segments):
            row = segment.row(product_id)
            if row is not None:
                return segment, row
        return None

    def __len__(self) -> int:
        return sum(len(segment.alive) for segment in self.segments)
