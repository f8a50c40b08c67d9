"""The scorer: defaults without data, the data's weights with it."""

from __future__ import annotations

import numpy as np
import pytest

from gram.errors import SettingError
from gram.index.evidence import EVIDENCE
from gram.model.scorer import DEFAULTS, Scorer, fit


def queries(n: int, telling: str, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Queries whose wanted candidate is the one with the most of one kind of evidence; all else is noise."""
    random = np.random.default_rng(seed)
    features = [random.random((20, len(EVIDENCE))).astype(np.float32) for _ in range(n)]
    gains = []
    for f in features:
        gain = np.zeros(20, np.float32)
        gain[f[:, EVIDENCE.index(telling)].argmax()] = 1.0
        gains.append(gain)
    return features, gains


def test_without_data_the_defaults_stay() -> None:
    assert fit([], []).named() == {name: DEFAULTS[name] for name in EVIDENCE}


def test_the_telling_evidence_gets_the_weight() -> None:
    features, gains = queries(200, "covered", seed=1)
    fitted = fit(features, gains, pull=1.0)
    held_out = queries(100, "covered", seed=2)

    def right(scorer: Scorer) -> float:
        return float(np.mean([scorer.score(f).argmax() == g.argmax() for f, g in zip(*held_out, strict=True)]))

    assert right(fitted) > 0.8
    assert right(Scorer.default()) < 0.3


def test_one_query_hardly_moves_the_defaults() -> None:
    features, gains = queries(1, "covered", seed=3)
    moved = fit(features, gains, pull=1000.0).weights - Scorer.default().weights
    assert np.abs(moved).max() < 0.05


def test_evidence_that_never_occurs_keeps_its_default() -> None:
    features, gains = queries(100, "covered", seed=4)
    for f in features:
        f[:, EVIDENCE.index("value")] = 0.0
    assert fit(features, gains).named()["value"] == DEFAULTS["value"]


def test_value_weight_is_the_shops_to_set() -> None:
    scorer = Scorer.default().with_value(2.5)
    features = np.zeros((2, len(EVIDENCE)), np.float32)
    features[:, EVIDENCE.index("value")] = [0.0, 1.0]
    assert scorer.score(features).tolist() == [0.0, 2.5]


def test_unknown_evidence_is_named() -> None:
    with pytest.raises(SettingError, match="popularity"):
        Scorer.of({"popularity": 1.0})
