"""Fitting the scorer: a listwise loss on judged or clicked queries, pulled towards what is known without them.

A weighted sum is fitted (Cao et al. 2007) and pulled towards the default weights: with a rich log the data speaks, with
a poor one the defaults do. With enough queries the sum is fitted together with a small network, which adds what a sum
cannot say, such as that a missing word matters more where other products have it. Last, all is scaled so that
σ(score) is the chance of an interaction: a score then means the same for every query (Platt 1999).

Letters: Q queries, C candidates of a query, F features, H units of the network's inner layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from gram.ranking.features import FEATURES, columns
from gram.ranking.scorer import FAR, Refinement, Scorer

PULL = 100.0
"""How many queries it takes to move a weight by its feature's spread: docs/log.md, "A scorer for few queries"."""
LEAST_SCALE = 0.1
"""Of the weights that a fit begins at, what is left where the queries contradict them."""
REFINED_FROM = 400
"""Queries that it takes to fit the network."""
CALIBRATED_FROM = 30
"""Queries that it takes to tell how likely a score is right."""
RARE = 10
"""Queries among whose candidates a feature must differ for its weight to be moved: one seen less often is of small
spread, so that a single query could move it far. Not tuned."""
_SIGNS = np.array([feature.sign for feature in FEATURES])


class JudgedQuery(NamedTuple):
    """One query's candidates, best first, at most COMPARED."""

    features: NDArray[np.float32]  # (C, F)
    gains: NDArray[np.float32]  # (C,) > 0 for relevant ones


class _Judged(NamedTuple):
    """Queries with a relevant candidate, padded to the longest list."""

    x: torch.Tensor  # (Q, C, F)
    y: torch.Tensor  # (Q, C) gains that sum to 1
    padding: torch.Tensor  # (Q, C) True behind a list's end
    offset: torch.Tensor  # (Q, C) what is added to a sum's scores

    @classmethod
    def of(cls, queries: Sequence[JudgedQuery]) -> _Judged | None:
        kept = [(f, g) for f, g in queries if len(f) > 1 and g.sum() > 0]
        if not kept:
            return None
        longest = max(len(g) for _, g in kept)
        x, y = torch.zeros(len(kept), longest, len(FEATURES)), torch.zeros(len(kept), longest)
        padding = torch.ones(len(kept), longest, dtype=torch.bool)
        for i, (f, g) in enumerate(kept):
            x[i, : len(g)], y[i, : len(g)], padding[i, : len(g)] = torch.from_numpy(f), torch.from_numpy(g), False
        return cls(x, y / y.sum(1, keepdim=True), padding, torch.zeros_like(y))

    def loss(self, scores: torch.Tensor) -> torch.Tensor:
        """Σ over queries of the cross-entropy of what is relevant under the scores (Q, C)."""
        return -(self.y * F.log_softmax(scores.masked_fill(self.padding, -1e9), dim=1)).sum()

    def rare(self) -> torch.Tensor:
        """(F,) which features differ among the candidates of fewer than RARE queries."""
        low = self.x.masked_fill(self.padding.unsqueeze(-1), torch.inf).amin(1)
        high = self.x.masked_fill(self.padding.unsqueeze(-1), -torch.inf).amax(1)
        return (high > low).sum(0) < min(RARE, len(self.x))

    def only(self, rows: torch.Tensor) -> _Judged:
        return _Judged(*(part[rows] for part in self))


def fit_scorer(
    queries: Sequence[JudgedQuery],
    start: Scorer | None = None,
    first_phase: NDArray[np.float32] | None = None,
    without: Sequence[str] = (),
    seed: int = 0,
    refine: bool = True,
    pull: float = PULL,
) -> Scorer:
    """The scorer under which relevant candidates come first: a sum, or with enough queries a sum and a network.

    Args:
        queries: those without a relevant candidate are passed over.
        start: where the weights of a sum begin, and what they are pulled towards.
        first_phase: (F,) the weights by which the candidates were found, if not by `start`.
        without: features, or groups of features, to leave out.
        refine: False for a sum in any case, such as candidates are found by.
        pull: how many queries it takes to move a weight by its feature's spread.
    """
    start = start or Scorer.default()
    first_phase = start.first_phase if first_phase is None else first_phase
    judged = _Judged.of(queries)
    if judged is None:
        return replace(start.without(without), first_phase=first_phase)
    left_out = columns(without) | columns(("value",))  # the shop sets its weight
    if refine and len(judged.x) >= REFINED_FROM:
        scorer = replace(_fit_network(judged, start.weights, left_out, seed), first_phase=first_phase)
    else:
        scorer = Scorer(_fit_signed_sum(judged, start.weights, pull, left_out), first_phase)
    return _calibrate(scorer, queries) if len(judged.x) >= CALIBRATED_FROM else scorer


def fit_move(queries: Sequence[JudgedQuery], base: Scorer, pull: float) -> Scorer:
    """A scorer whose weights are moved from the base's as far as these queries ask, against a pull back to them.

    The network, and what candidates are found by, stay as they are. `pull` is in queries, as of `fit_scorer`.
    """
    judged = _Judged.of(queries)
    if judged is None:
        return base
    left_out = columns(("value",)) & (base.weights == 0)
    if base.network is not None:
        kept = [query.features for query in queries if len(query.features) > 1 and query.gains.sum() > 0]
        for row, features in enumerate(kept):
            judged.offset[row, : len(features)] = torch.from_numpy(base.network(features))
        weights = _fit_sum(judged, base.weights, pull, left_out, scaled=False)  # beside the network, which stays
    else:
        weights = _fit_signed_sum(judged, base.weights, pull, left_out)
    moved = replace(base, weights=weights)
    return _calibrate(moved, queries) if len(judged.x) >= CALIBRATED_FROM else moved


def _fit_signed_sum(
    judged: _Judged, start: NDArray[np.float32], pull: float, left_out: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """(F,) as `_fit_sum`, without the features that would count against a product and must not."""
    weights = _fit_sum(judged, start, pull, left_out, scaled=True)
    while (wrong := np.sign(weights) * _SIGNS < 0).any():  # without one, another can turn
        left_out = left_out | wrong
        weights = _fit_sum(judged, start, pull, left_out, scaled=True)
    return weights


def _fit_sum(
    judged: _Judged, start: NDArray[np.float32], pull: float, left_out: NDArray[np.bool_], scaled: bool
) -> NDArray[np.float32]:
    """(F,) the weights moved from where they start, all of them scaled alike first where `scaled`."""
    real = judged.x[~judged.padding]
    spread = real.std(0).clamp(min=1e-3)  # (F,)
    used = ~judged.rare()
    gone = torch.from_numpy(left_out)
    base = torch.from_numpy(start.copy()).masked_fill(gone, 0.0)
    x = judged.x.masked_fill(gone, 0.0)
    move = torch.zeros(len(FEATURES), requires_grad=True)  # in units of spread
    # How sharp the scores are that a fit begins at is no part of the order they give: it is sought without a pull. As a
    # move of every weight it would cost most where features spread widest, and bend the order.
    sharper = torch.full((1,), math.log(1 - LEAST_SCALE), requires_grad=scaled)
    optimizer = torch.optim.LBFGS([move, sharper] if scaled else [move], max_iter=150, line_search_fn="strong_wolfe")
    begun = x @ base  # (Q, C)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        scale = LEAST_SCALE + sharper.exp()
        value = judged.loss(scale * begun + x @ (move / spread * used) + judged.offset) + pull * move.square().sum() / 2
        value.backward()
        return value

    optimizer.step(loss)
    scale = LEAST_SCALE + sharper.detach().exp()
    return (scale * base + move.detach() / spread).numpy().astype(np.float32)


def _fit_network(
    judged: _Judged, start: NDArray[np.float32], left_out: NDArray[np.bool_], seed: int, parts: int = 4
) -> Scorer:
    """A weighted sum and a network, fitted together; several from other random weights, as one: their mean.

    With hundreds of queries the sum needs no pull to the defaults: fitted first, with the network on top, it was half a
    point worse at 10.
    """
    real = judged.x[~judged.padding]
    mean, spread = real.mean(0), real.std(0).clamp(min=1e-3)
    ignored = torch.from_numpy(left_out | columns(("value",)))  # the value's weight is the shop's to set
    rare = judged.rare() & ~ignored
    ignored |= rare | (real.std(0) < 1e-3)  # nothing is known of it
    plain = ((judged.x - mean) / spread).masked_fill(ignored, 0.0)
    z = plain.clamp(-FAR, FAR)
    best = z.masked_fill(judged.padding.unsqueeze(-1), -1e9).amax(1, keepdim=True)
    both = torch.cat([z, z - best], dim=-1)  # (Q, C, 2 F)
    width, epochs, size, rate = 16, 20, 64, 1e-2
    made = []
    for part in range(parts):
        rng = torch.Generator().manual_seed(seed * parts + part)
        inner = torch.randn(both.shape[-1], width, generator=rng) / both.shape[-1] ** 0.5
        parameters = [inner, torch.zeros(width), torch.zeros(width), torch.zeros(len(FEATURES))]
        optimizer = torch.optim.AdamW([w.requires_grad_() for w in parameters], lr=rate, weight_decay=3.0)
        batches = [b for _ in range(epochs) for b in torch.randperm(len(z), generator=rng).split(size)]
        for i, rows in enumerate(batches):
            optimizer.param_groups[0]["lr"] = rate * max(0.02, 1 - i / len(batches))
            scores = plain[rows] @ parameters[3] + F.relu(both[rows] @ parameters[0] + parameters[1]) @ parameters[2]
            loss = judged.only(rows).loss(scores) / len(rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        made.append([w.detach() for w in parameters])
    joined = torch.cat([m[0] for m in made], dim=1).masked_fill(torch.cat([ignored, ignored])[:, None], 0.0)
    out = torch.cat([m[2] for m in made]) / parts
    network = Refinement(*(t.numpy() for t in (mean, spread, joined, torch.cat([m[1] for m in made]), out)))
    weights = torch.stack([m[3] for m in made]).mean(0).masked_fill(ignored, 0.0) / spread
    return _with_rare(Scorer(weights.numpy(), weights.numpy(), network), judged, start, rare.numpy())


def _with_rare(scorer: Scorer, judged: _Judged, start: NDArray[np.float32], rare: NDArray[np.bool_]) -> Scorer:
    """The same with the weights that rare features start with, by how much further the scores of a query's candidates
    spread than those that the fit starts from."""
    if not rare.any():
        return scorer
    each = [x[~padding].numpy() for x, padding in zip(judged.x, judged.padding, strict=True)]
    fitted, begun = (np.mean([score(x).std() for x in each]) for score in (scorer.score, lambda x: x @ start))
    scale = fitted / max(begun, 1e-3)
    weights = np.where(rare, start * np.float32(scale), scorer.weights)
    return Scorer(weights, weights, scorer.network)


def _calibrate(scorer: Scorer, queries: Sequence[JudgedQuery]) -> Scorer:
    """The same order of products, with scores scaled and shifted to be logarithms of the odds of an interaction."""
    scores = torch.from_numpy(np.concatenate([scorer.score(query.features) for query in queries])).double()
    relevant = torch.from_numpy(np.concatenate([query.gains > 0 for query in queries])).double()
    line = torch.tensor([0.0, 0.0], dtype=torch.float64, requires_grad=True)  # logarithm of the scale; the shift
    centre = scores.mean()
    optimizer = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        odds = line[0].exp() * (scores - centre) + line[1]
        value = F.binary_cross_entropy_with_logits(odds, relevant) + 1e-3 * line[0].square()
        value.backward()
        return value

    optimizer.step(loss)
    scale = float(line[0].detach().exp())
    if not 1e-2 < scale < 1e2:  # too little to go by
        return scorer
    network = scorer.network
    if network is not None:
        network = network._replace(out=(network.out * np.float32(scale)).astype(np.float32))
    shift = float(line[1].detach()) - scale * float(centre) + scale * scorer.shift
    return Scorer((scorer.weights * np.float32(scale)).astype(np.float32), scorer.first_phase, network, shift)
