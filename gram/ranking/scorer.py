"""The scorer: one number per (query, product) from all features, in NumPy.

A weighted sum, and what a small network adds to it; `fit` tells how both come about.

Letters: C candidates of a query, F features, H units of the network's inner layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from gram.errors import ModelError, SettingError
from gram.ranking.features import DEFAULTS_ALONE, FEATURES, GROUPS, NAMES, columns, other_groups

COMPARED = 200
"""Candidates among which a query's best is sought, those found best: as many in training as in search, whatever k."""
FAR = 8.0
"""Spreads from the mean beyond which a feature tells the network no more: what was rare is not to decide alone."""
FILE = "scorer.safetensors"
LATER = frozenset({"left_out", "soft_share", "only_for", "code_cosine", "prf_code_cosine"})
"""Features that scorers of before lack: they weigh nothing in these."""
ALONE = tuple(tuple(names.split("+")) for names in DEFAULTS_ALONE)
"""Groups of features that a shop may find and rank by alone; each has a scorer of its own beside the whole one."""


class Refinement(NamedTuple):
    """A network of one inner layer over the features, and over how far each is behind the query's best."""

    mean: NDArray[np.float32]  # (F,)
    spread: NDArray[np.float32]  # (F,)
    inner: NDArray[np.float32]  # (2 F, H)
    bias: NDArray[np.float32]  # (H,)
    out: NDArray[np.float32]  # (H,)

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(C,) what it adds to the scores of one query's candidates (C, F), which come best first."""
        if not len(features):
            return np.zeros(0, dtype=np.float32)
        z = ((features - self.mean) / self.spread).clip(-FAR, FAR)
        both = np.concatenate([z, z - z[:COMPARED].max(0)], axis=1)  # (C, 2 F)
        return np.maximum(both @ self.inner + self.bias, 0) @ self.out


def check_value(weight: Any) -> None:
    """Raises SettingError for a weight of a product's value that is no finite number."""
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not abs(weight) < 1e9:
        raise SettingError(f"the weight of a product's value is a plain number such as 0.5, not {weight!r:.60}.")


def file_of(groups: Sequence[str]) -> str:
    """The name of the file with the scorer of some groups alone."""
    return f"scorer.{'+'.join(sorted(groups))}.safetensors"


@dataclass(frozen=True)
class Scorer:
    """A weight for each feature, and what a network adds: score = Σ weight · feature + network + shift."""

    weights: NDArray[np.float32]  # (F,)
    first_phase: NDArray[np.float32]  # (F,) by which candidates are found and the best ten of them chosen
    network: Refinement | None = None
    shift: float = 0.0

    @classmethod
    def default(cls, groups: Sequence[str] = GROUPS) -> Scorer:
        """The declared weights; those of some groups alone where `ALONE` has them, else of all, the others left out."""
        weights = np.array([feature.weight for feature in FEATURES], dtype=np.float32)
        finding = np.array([f.weight if f.finding is None else f.finding for f in FEATURES], dtype=np.float32)
        if tuple(sorted(groups)) in ALONE:
            declared = DEFAULTS_ALONE["+".join(sorted(groups))]
            weights = finding = np.array([declared.get(name, 0.0) for name in NAMES], dtype=np.float32)
        return cls(weights, finding).without(other_groups(groups))

    def by_name(self) -> dict[str, float]:
        """{feature: weight}, rounded for a person to read."""
        return {name: round(float(w), 5) for name, w in zip(NAMES, self.weights, strict=True)}

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores (C,) of one query's candidates (C, F), in the order in which they were found."""
        scores = features @ self.weights + np.float32(self.shift)
        return scores if self.network is None else scores + self.network(features)

    def with_value(self, weight: float) -> Scorer:
        """The same with the shop's own weight for a product's value, in logarithms of odds from least to most.

        Raises SettingError for a weight that is no finite number.
        """
        check_value(weight)
        return replace(self, weights=np.where(columns(("value",)), np.float32(weight), self.weights))

    def with_weights(self, weights: Mapping[str, float]) -> Scorer:
        """The same sum with other weights of some features, in finding and in scoring."""
        moved = np.array([weights.get(name, w) for name, w in zip(NAMES, self.weights.tolist(), strict=True)])
        first = np.array([weights.get(name, w) for name, w in zip(NAMES, self.first_phase.tolist(), strict=True)])
        return replace(self, weights=moved.astype(np.float32), first_phase=first.astype(np.float32))

    def without(self, names: Sequence[str]) -> Scorer:
        """The same deaf to some features, or groups of them, nothing fitted anew: what these are worth.

        Raises SettingError for a name that is none.
        """
        gone = columns(names)
        network = self.network
        if network is not None:
            inner = np.where(np.concatenate([gone, gone])[:, None], np.float32(0), network.inner)
            network = network._replace(inner=inner)
        weights, first_phase = (np.where(gone, np.float32(0), w) for w in (self.weights, self.first_phase))
        return Scorer(weights, first_phase, network, self.shift)

    def save(self, folder: Path, file: str = FILE) -> None:
        """Writes `scorer.safetensors`, with the features' names, into an existing folder."""
        parts = {"weights": self.weights, "first_phase": self.first_phase, "shift": np.array([self.shift], np.float32)}
        parts |= {} if self.network is None else {f"network.{k}": v for k, v in self.network._asdict().items()}
        tensors = {k: np.ascontiguousarray(v) for k, v in parts.items()}
        save_file(tensors, folder / file, metadata={"features": " ".join(NAMES)})

    @classmethod
    def load(cls, folder: Path, file: str = FILE) -> Scorer:
        """What `save` wrote. Raises ModelError for a file that cannot be read or weighs other features."""
        path = folder / file
        try:
            with safe_open(path, "numpy") as opened:
                weighs = (opened.metadata() or {}).get("features", "").split()
                parts = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 — it is no mapping
            network = None
            if "network.mean" in parts:
                network = Refinement(*(parts[f"network.{name}"] for name in Refinement._fields))
            scorer = cls(parts["weights"], parts["first_phase"], network, float(parts["shift"][0]))
        except (OSError, KeyError, IndexError, SafetensorError) as error:
            raise ModelError(f"{path}: the scorer cannot be read ({error}). Fix: train again") from error
        missing, n = set(NAMES) - set(weighs), len(weighs)
        if weighs != [name for name in NAMES if name in weighs] or not missing <= LATER:
            other = " ".join(sorted(set(weighs) ^ set(NAMES))) or "their order"
            raise ModelError(f"{path}: weighs other features than this version computes ({other}). Fix: train again")
        if not scorer._is_of(n):
            raise ModelError(f"{path}: has other numbers than one for each feature. Fix: train again")
        return scorer._widened(np.array([NAMES.index(name) for name in weighs]))

    def _is_of(self, n: int) -> bool:
        """Whether every array is of so many features, and every number a number."""
        net = self.network
        shapes = [self.weights.shape == (n,), self.first_phase.shape == (n,), np.isfinite(self.shift)]
        if net is not None:
            h = net.bias.shape
            shapes += [
                net.mean.shape == (n,),
                net.spread.shape == (n,),
                net.inner.shape == (2 * n, *h),
                net.out.shape == h,
            ]
        parts = [self.weights, self.first_phase, *(net or ())]
        return all(shapes) and all(np.isfinite(part).all() for part in parts)

    def _widened(self, at: NDArray[np.int64]) -> Scorer:
        """The same with its features at these numbers among today's; those that came later weigh nothing."""
        if len(at) == len(NAMES):
            return self

        def widen(values: NDArray[np.float32], rest: float = 0.0) -> NDArray[np.float32]:
            wide = np.full((len(NAMES), *values.shape[1:]), rest, dtype=np.float32)
            wide[at] = values
            return wide

        network = self.network
        if network is not None:
            inner = np.concatenate([widen(half) for half in np.split(network.inner, 2)])
            network = network._replace(mean=widen(network.mean), spread=widen(network.spread, 1.0), inner=inner)
        return Scorer(widen(self.weights), widen(self.first_phase), network, self.shift)
