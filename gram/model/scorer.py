"""The scorer: one number per (query, product) from all the evidence.

A linear form, fitted on held-out interactions by a listwise loss (Cao et al. 2007) and pulled towards weights that
were good on other shops: with a rich log the data speaks, with a poor one the defaults do.

Letters: Q queries, C candidates of a query, F kinds of evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from gram.errors import SettingError
from gram.index.evidence import EVIDENCE

DEFAULTS: dict[str, float] = {
    "own_own": 0.4,
    "own_written": 1.5,
    "written_own": 1.0,
    "written_written": 0.3,
    "deep": 0.0,
    "vectors": 6.0,
    "words": 0.5,
    "covered": 2.0,
    "all_covered": 0.0,
    "numbers": 0.5,
    "contradicted": -0.5,
    "value": 0.0,
}
PULL = 20.0
"""How many queries the defaults weigh as much as."""


@dataclass(frozen=True)
class Scorer:
    """A weight for each kind of evidence; score = Σ weight · evidence."""

    weights: NDArray[np.float32]  # (F,)

    @classmethod
    def default(cls) -> Scorer:
        return cls(np.array([DEFAULTS[name] for name in EVIDENCE], dtype=np.float32))

    @classmethod
    def of(cls, weights: Mapping[str, float]) -> Scorer:
        """From weights by name; those not named are the defaults. Raises SettingError for a name that is no
        evidence."""
        unknown = set(weights) - set(EVIDENCE)
        if unknown:
            raise SettingError(f"no such evidence: {', '.join(sorted(unknown))}. Known: {', '.join(EVIDENCE)}")
        return cls(np.array([(DEFAULTS | dict(weights))[name] for name in EVIDENCE], dtype=np.float32))

    def named(self) -> dict[str, float]:
        return {name: round(float(w), 5) for name, w in zip(EVIDENCE, self.weights, strict=True)}

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores (C,) of features (C, F)."""
        return features @ self.weights

    def with_value(self, weight: float) -> Scorer:
        """The same with the shop's own weight for a product's value."""
        weights = self.weights.copy()
        weights[EVIDENCE.index("value")] = weight
        return Scorer(weights)


def fit(
    features: Sequence[NDArray[np.float32]],
    gains: Sequence[NDArray[np.float32]],
    start: Scorer | None = None,
    pull: float = PULL,
    without: NDArray[np.bool_] | None = None,
) -> Scorer:
    """Weights under which wanted candidates come first; none speaks against a product but `contradicted`.

    Args:
        features: (C, F) of each query's candidates.
        gains: (C,) of each query's candidates, > 0 for wanted ones; a query without one is passed over.
        start: where the weights begin, and what they are pulled towards.
        pull: how many queries' worth of evidence it takes to move a weight by its own scale.
        without: (F,) kinds to leave out: those whose weight came out negative, when fitting a second time.
    """
    start = start or Scorer.default()
    kept = [(f, g) for f, g in zip(features, gains, strict=True) if len(f) > 1 and g.sum() > 0]
    if not kept:
        return start
    longest = max(len(g) for _, g in kept)
    x = torch.zeros(len(kept), longest, len(EVIDENCE))  # (Q, C, F)
    y = torch.zeros(len(kept), longest)  # (Q, C)
    hidden = torch.ones(len(kept), longest, dtype=torch.bool)
    for i, (f, g) in enumerate(kept):
        x[i, : len(g)], y[i, : len(g)], hidden[i, : len(g)] = torch.from_numpy(f), torch.from_numpy(g), False
    y = y / y.sum(1, keepdim=True)
    spread = x[~hidden].std(0).clamp(min=1e-3)  # (F,)
    base = torch.from_numpy(start.weights.copy())
    used = x[~hidden].abs().amax(0) > 0
    if without is not None:
        base[torch.from_numpy(without)] = 0.0
        x[..., torch.from_numpy(without)] = 0.0
    move = torch.zeros(len(EVIDENCE), requires_grad=True)  # in units of spread
    optimizer = torch.optim.LBFGS([move], max_iter=80, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        scores = (x @ (base + move / spread)).masked_fill(hidden, -1e9)
        value = -(y * F.log_softmax(scores, dim=1)).sum() + pull * move.square().sum() / 2
        value.backward()
        return value

    optimizer.step(loss)
    weights = (base + move.detach() / spread * used).numpy().astype(np.float32)
    wrong = (weights < 0) & (np.array(EVIDENCE) != "contradicted")
    if wrong.any() and without is None:
        return fit(features, gains, start, pull, without=wrong)
    return Scorer(np.where(wrong, np.float32(0), weights))
