"""Products in the order in which an answer shows them.

Letters: C products, F features, P products that rules pin.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

BETWEEN = 0.001
"""By how much a score that is lowered stands below the one before it."""


@dataclass(frozen=True)
class Ranked:
    """Rows over all segments, in the order in which they are shown."""

    rows: NDArray[np.int64]  # (C,)
    scores: NDArray[np.float32]  # (C,)
    features: NDArray[np.float32]  # (C, F)
    fits: NDArray[np.bool_]  # (C,) whether each fits what was asked, see gram.ranking.fits
    unranked: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))  # rows that fit as well

    @classmethod
    def nothing(cls) -> Ranked:
        return cls(
            np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros((0, 0), np.float32), np.zeros(0, dtype=bool)
        )

    def take(self, order: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Ranked:
        """These of them, by their numbers, a mask (C,) or a slice."""
        return Ranked(self.rows[order], self.scores[order], self.features[order], self.fits[order], self.unranked)

    @property
    def n_first(self) -> int:
        """How many there are down to the last that fits."""
        return int(np.flatnonzero(self.fits).max(initial=-1)) + 1

    def followed_by(self, others: Ranked) -> Ranked:
        """These and others, of which those that fit come behind the last of these that does, and the rest at the end,
        their scores lowered below those before them: these are on pages that know of no others."""
        if not len(others.rows):
            return self
        n_first, least, scores = self.n_first, np.inf, []
        parts = [self.take(slice(n_first)), others.take(others.fits), self.take(slice(n_first, None))]
        parts = [part for part in [*parts, others.take(~others.fits)] if len(part.rows)]
        for part in parts:
            over = float(part.scores[0]) - least
            scores.append(part.scores - np.float32(over + BETWEEN if over >= 0 else 0))
            least = float(scores[-1][-1])
        rows, features, fits = (np.concatenate([getattr(p, c) for p in parts]) for c in ("rows", "features", "fits"))
        return Ranked(rows, np.concatenate(scores), features, fits)

    def with_first(self, pinned: NDArray[np.int64]) -> Ranked:
        """The same with these rows (P,) before all others, found or not. They fit: a rule says so."""
        if not len(pinned):
            return self
        at = {row: i for i, row in enumerate(self.rows.tolist())}
        top = float(self.scores[0]) if len(self.scores) else 0.0
        nothing = np.zeros(self.features.shape[1], dtype=np.float32)
        features = [self.features[at[row]] if row in at else nothing for row in pinned.tolist()]
        rest = self.take(~np.isin(self.rows, pinned))
        return Ranked(
            np.concatenate([pinned, rest.rows]),
            np.concatenate([np.full(len(pinned), top, np.float32), rest.scores]),
            np.concatenate([np.array(features, dtype=np.float32), rest.features]),
            np.concatenate([np.ones(len(pinned), dtype=bool), rest.fits]),
            np.setdiff1d(self.unranked, pinned),
        )


def by_part(rows: NDArray[np.int64], begins: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of each segment, from its own beginning."""
    return [rows[(rows >= a) & (rows < b)] - a for a, b in pairwise(begins.tolist())]
