"""The scorer: one number per (query, product) from all the evidence.

A linear form, fitted on held-out interactions by a listwise loss (Cao et al. 2007) and pulled towards weights that
were good on Home Depot's dev queries: with a rich log the data speaks, with a poor one the defaults do. With enough
held-out queries the sum is fitted together with a small network, which adds what a sum cannot say, such as that a
missing word matters more where other products have it. Last, all is scaled so that σ(score) is the chance of an
interaction: a score then means the same for every query (Platt 1999).

Letters: Q queries, C candidates of a query, F kinds of evidence, H hidden units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from gram.errors import ModelError, SettingError
from gram.ranking.candidates import EVIDENCE

DEFAULTS: dict[str, float] = {
    "own_own": 0.4,
    "own_written": 1.5,
    "written_own": 1.0,
    "written_written": 0.3,
    "vectors": 6.0,
    "words": 0.5,
    "covered": 2.0,
    "numbers": 0.5,
    "contradicted": -0.5,
    "adjacent": 0.4,
    "maxsim": 8.0,
    "least_maxsim": 1.0,
    "alike": 1.5,
    "alike_words": 0.4,
}
"""Weights without a log; kinds that are not named have none."""
AGAINST = "contradicted"
"""The kind that may speak against a product in a fitted sum; the others count for it or not at all."""
PULL = 20.0
"""How many queries the defaults weigh as much as."""
REFINED_FROM = 400
"""Held-out queries that it takes to fit the network."""
CALIBRATED_FROM = 30
"""Held-out queries that it takes to tell how likely a score is right."""
COMPARED = 200
"""Candidates among which a query's best is sought, those found best: as many in training as in search, whatever k."""
FAR = 8.0
"""Spreads from the mean beyond which evidence tells the network no more: what was rare is not to decide alone."""
FILE = "scorer.safetensors"


class Refinement(NamedTuple):
    """A network of one hidden layer over the evidence, and over how far each kind is behind the query's best."""

    mean: NDArray[np.float32]  # (F,)
    spread: NDArray[np.float32]  # (F,)
    hidden: NDArray[np.float32]  # (2 F, H)
    bias: NDArray[np.float32]  # (H,)
    out: NDArray[np.float32]  # (H,)

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(C,) what it adds to the scores of one query's candidates (C, F), which come best first."""
        if not len(features):
            return np.zeros(0, dtype=np.float32)
        z = ((features - self.mean) / self.spread).clip(-FAR, FAR)
        both = np.concatenate([z, z - z[:COMPARED].max(0)], axis=1)  # (C, 2 F)
        return np.maximum(both @ self.hidden + self.bias, 0) @ self.out


@dataclass(frozen=True)
class Scorer:
    """A weight for each kind of evidence, and what a network adds: score = Σ weight · evidence + network + shift."""

    weights: NDArray[np.float32]  # (F,)
    network: Refinement | None = None
    shift: float = 0.0
    first: NDArray[np.float32] | None = None  # (F,) by which candidates are found; None: the weights

    @property
    def finding(self) -> NDArray[np.float32]:
        """(F,) the weights by which candidates are found and the best ten of them chosen."""
        return self.weights if self.first is None else self.first

    @classmethod
    def default(cls) -> Scorer:
        return cls.of({})

    @classmethod
    def of(cls, weights: Mapping[str, float]) -> Scorer:
        """From weights by name; those not named are the defaults. Raises SettingError for a name that is no
        evidence."""
        unknown = set(weights) - set(EVIDENCE)
        if unknown:
            raise SettingError(f"no such evidence: {', '.join(sorted(unknown))}. Known: {', '.join(EVIDENCE)}")
        return cls(np.array([(DEFAULTS | dict(weights)).get(name, 0.0) for name in EVIDENCE], dtype=np.float32))

    def named(self) -> dict[str, float]:
        return {name: round(float(w), 5) for name, w in zip(EVIDENCE, self.weights, strict=True)}

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores (C,) of one query's candidates (C, F), in the order in which they were found."""
        scores = features @ self.weights + np.float32(self.shift)
        return scores if self.network is None else scores + self.network(features)

    def with_value(self, weight: float) -> Scorer:
        """The same with the shop's own weight for a product's value, in logarithms of odds from least to most.

        Raises SettingError for a weight that is no finite number.
        """
        weights = self.weights.copy()
        if not abs(weight) < 1e9:
            raise SettingError(f"the weight of a product's value is a plain number such as 0.5, not {weight}.")
        weights[EVIDENCE.index("value")] = weight
        return replace(self, weights=weights)

    def without(self, kinds: Sequence[str]) -> Scorer:
        """The same deaf to some kinds of evidence, nothing fitted anew: what these kinds are worth."""
        gone = np.isin(EVIDENCE, kinds)
        network = self.network
        if network is not None:
            hidden = np.where(np.concatenate([gone, gone])[:, None], np.float32(0), network.hidden)
            network = network._replace(hidden=hidden)
        first = np.where(gone, np.float32(0), self.finding)
        return Scorer(np.where(gone, np.float32(0), self.weights), network, self.shift, first)

    def save(self, folder: Path) -> None:
        """Writes `scorer.safetensors` into an existing folder."""
        parts = {"weights": self.weights, "shift": np.array([self.shift], np.float32)}
        parts |= {} if self.first is None else {"first": self.first}
        parts |= {} if self.network is None else {f"network.{k}": v for k, v in self.network._asdict().items()}
        save_file({k: np.ascontiguousarray(v) for k, v in parts.items()}, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> Scorer:
        """What `save` wrote. Raises ModelError for a file that cannot be read or weighs other evidence."""
        try:
            parts = load_file(folder / FILE)
            network = None
            if "network.mean" in parts:
                network = Refinement(*(parts[f"network.{name}"] for name in Refinement._fields))
            found = cls(parts["weights"], network, float(parts["shift"][0]), parts.get("first"))
        except (OSError, KeyError, SafetensorError) as error:
            raise ModelError(f"{folder / FILE}: the scorer cannot be read ({error}). Fix: train again") from error
        if found.weights.shape != (len(EVIDENCE),):
            raise ModelError(
                f"{folder / FILE}: weighs {len(found.weights)} kinds of evidence, not {len(EVIDENCE)}. Fix: train again"
            )
        return found


class _Judged(NamedTuple):
    """Queries with a wanted candidate, padded to the longest list."""

    x: torch.Tensor  # (Q, C, F)
    y: torch.Tensor  # (Q, C) gains that sum to 1
    hidden: torch.Tensor  # (Q, C) True for padding

    @classmethod
    def of(cls, features: Sequence[NDArray[np.float32]], gains: Sequence[NDArray[np.float32]]) -> _Judged | None:
        kept = [(f, g) for f, g in zip(features, gains, strict=True) if len(f) > 1 and g.sum() > 0]
        if not kept:
            return None
        longest = max(len(g) for _, g in kept)
        x, y = torch.zeros(len(kept), longest, len(EVIDENCE)), torch.zeros(len(kept), longest)
        hidden = torch.ones(len(kept), longest, dtype=torch.bool)
        for i, (f, g) in enumerate(kept):
            x[i, : len(g)], y[i, : len(g)], hidden[i, : len(g)] = torch.from_numpy(f), torch.from_numpy(g), False
        return cls(x, y / y.sum(1, keepdim=True), hidden)

    def loss(self, scores: torch.Tensor) -> torch.Tensor:
        """Σ over queries of the cross-entropy of what is wanted under the scores (Q, C)."""
        return -(self.y * F.log_softmax(scores.masked_fill(self.hidden, -1e9), dim=1)).sum()

    def only(self, rows: torch.Tensor) -> _Judged:
        return _Judged(self.x[rows], self.y[rows], self.hidden[rows])


def fit(
    features: Sequence[NDArray[np.float32]],
    gains: Sequence[NDArray[np.float32]],
    start: Scorer | None = None,
    pull: float = PULL,
    first: NDArray[np.float32] | None = None,
    without: Sequence[str] = (),
    seed: int = 0,
    refine: bool = True,
) -> Scorer:
    """The scorer under which wanted candidates come first: a sum, or with enough queries a sum and a network.

    Args:
        features: (C, F) of each query's candidates, best first, at most COMPARED.
        gains: (C,) of each query's candidates, > 0 for wanted ones; a query without one is passed over.
        start: where the weights of a sum begin, and what they are pulled towards.
        first: (F,) the weights by which the candidates were found, if not by `start`.
        pull: how many queries' worth of evidence it takes to move a weight by its own scale.
        without: kinds of evidence to leave out.
        refine: False for a sum in any case, such as candidates are found by.
    """
    start = start or Scorer.default()
    first = start.weights if first is None else first
    judged = _Judged.of(features, gains)
    if judged is None:
        return replace(start.without(without), first=first)
    left_out = np.isin(EVIDENCE, without)
    if refine and len(judged.x) >= REFINED_FROM:
        fitted = replace(_refined(judged, left_out, seed), first=first)
    else:
        weights = _linear(judged, start.weights, pull, left_out)
        while (wrong := (weights < 0) & (np.array(EVIDENCE) != AGAINST)).any():  # without one, another can turn
            left_out = left_out | wrong
            weights = _linear(judged, start.weights, pull, left_out)
        fitted = Scorer(weights, first=first)
    return _calibrated(fitted, features, gains) if len(judged.x) >= CALIBRATED_FROM else fitted


def _linear(
    judged: _Judged, start: NDArray[np.float32], pull: float, left_out: NDArray[np.bool_]
) -> NDArray[np.float32]:
    real = judged.x[~judged.hidden]
    spread = real.std(0).clamp(min=1e-3)  # (F,)
    used = real.abs().amax(0) > 0
    gone = torch.from_numpy(left_out)
    base = torch.from_numpy(start.copy()).masked_fill(gone, 0.0)
    x = judged.x.masked_fill(gone, 0.0)
    move = torch.zeros(len(EVIDENCE), requires_grad=True)  # in units of spread
    optimizer = torch.optim.LBFGS([move], max_iter=80, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = judged.loss(x @ (base + move / spread)) + pull * move.square().sum() / 2
        value.backward()
        return value

    optimizer.step(loss)
    return (base + move.detach() / spread * used).numpy().astype(np.float32)


def _refined(judged: _Judged, left_out: NDArray[np.bool_], seed: int, parts: int = 4) -> Scorer:
    """A weighted sum and a network, fitted together; several from other random weights, as one: their mean.

    With hundreds of queries the sum needs no pull to the defaults: fitted first, with the network on top, it was half
    a point worse at 10.
    """
    real = judged.x[~judged.hidden]
    mean, spread = real.mean(0), real.std(0).clamp(min=1e-3)
    ignored = torch.from_numpy(left_out | np.isin(EVIDENCE, ("value", "deep")))  # the shop's to set; not always written
    ignored |= real.std(0) < 1e-3  # nothing is known of it
    plain = ((judged.x - mean) / spread).masked_fill(ignored, 0.0)
    z = plain.clamp(-FAR, FAR)
    best = z.masked_fill(judged.hidden.unsqueeze(-1), -1e9).amax(1, keepdim=True)
    both = torch.cat([z, z - best], dim=-1)  # (Q, C, 2 F)
    width, epochs, size, rate = 16, 20, 64, 1e-2
    made = []
    for part in range(parts):
        random = torch.Generator().manual_seed(seed * parts + part)
        hidden = torch.randn(both.shape[-1], width, generator=random) / both.shape[-1] ** 0.5
        fitted = [hidden, torch.zeros(width), torch.zeros(width), torch.zeros(len(EVIDENCE))]
        optimizer = torch.optim.AdamW([w.requires_grad_() for w in fitted], lr=rate, weight_decay=3.0)
        batches = [b for _ in range(epochs) for b in torch.randperm(len(z), generator=random).split(size)]
        for i, rows in enumerate(batches):
            optimizer.param_groups[0]["lr"] = rate * max(0.02, 1 - i / len(batches))
            scores = plain[rows] @ fitted[3] + F.relu(both[rows] @ fitted[0] + fitted[1]) @ fitted[2]
            loss = judged.only(rows).loss(scores) / len(rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        made.append([w.detach() for w in fitted])
    joined = torch.cat([m[0] for m in made], dim=1).masked_fill(torch.cat([ignored, ignored])[:, None], 0.0)
    out = torch.cat([m[2] for m in made]) / parts
    network = Refinement(*(t.numpy() for t in (mean, spread, joined, torch.cat([m[1] for m in made]), out)))
    weights = torch.stack([m[3] for m in made]).mean(0).masked_fill(ignored, 0.0) / spread
    return Scorer(weights.numpy(), network)


def _calibrated(
    scorer: Scorer, features: Sequence[NDArray[np.float32]], gains: Sequence[NDArray[np.float32]]
) -> Scorer:
    """The same order of products, with scores scaled and shifted to be logarithms of the odds of an interaction."""
    scores = torch.from_numpy(np.concatenate([scorer.score(f) for f in features])).double()
    wanted = torch.from_numpy(np.concatenate([g > 0 for g in gains])).double()
    line = torch.tensor([0.0, 0.0], dtype=torch.float64, requires_grad=True)  # logarithm of the scale; the shift
    centre = scores.mean()
    optimizer = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        odds = line[0].exp() * (scores - centre) + line[1]
        value = F.binary_cross_entropy_with_logits(odds, wanted) + 1e-3 * line[0].square()
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
    return Scorer((scorer.weights * np.float32(scale)).astype(np.float32), network, shift, scorer.first)
