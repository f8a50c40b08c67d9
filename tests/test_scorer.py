"""The scorer: defaults without data, the data's weights with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gram.errors import ModelError, SettingError
from gram.ranking.candidates import EVIDENCE
from gram.ranking.scorer import AGAINST, COMPARED, DEFAULTS, Scorer, fit


def queries(n: int, telling: str, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Queries whose wanted candidate is the one with the most of one kind of evidence; all else is noise."""
    rng = np.random.default_rng(seed)
    features = [rng.random((20, len(EVIDENCE))).astype(np.float32) for _ in range(n)]
    gains = []
    for f in features:
        gain = np.zeros(20, np.float32)
        gain[f[:, EVIDENCE.index(telling)].argmax()] = 1.0
        gains.append(gain)
    return features, gains


def test_without_data_the_defaults_stay() -> None:
    assert fit([], []).named() == {name: DEFAULTS.get(name, 0.0) for name in EVIDENCE}


def test_the_telling_evidence_gets_the_weight() -> None:
    features, gains = queries(200, "covered", seed=1)
    fit_scorer = fit(features, gains, pull=1.0)
    held_out = queries(100, "covered", seed=2)

    def right(scorer: Scorer) -> float:
        return float(np.mean([scorer.score(f).argmax() == g.argmax() for f, g in zip(*held_out, strict=True)]))

    assert right(fit_scorer) > 0.8
    assert right(Scorer.default()) < 0.3


def test_no_evidence_but_contradiction_counts_against_a_product() -> None:
    """Also where one kind counts against it only once another is left out."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        common = rng.random((60, 20, 1))
        features = list((common + 0.3 * rng.random((60, 20, len(EVIDENCE)))).astype(np.float32))
        gains = [np.eye(20, dtype=np.float32)[rng.integers(20)] for _ in features]
        against = [name for name, weight in fit(features, gains, pull=0.1).named().items() if weight < 0]
        assert set(against) <= {AGAINST}


def test_the_network_finds_what_a_sum_cannot() -> None:
    """Wanted is what has one of two kinds of evidence but not both."""
    a, b = EVIDENCE.index("covered"), EVIDENCE.index("numbers")

    def made(n: int, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        rng = np.random.default_rng(seed)
        features = [rng.random((20, len(EVIDENCE))).astype(np.float32) for _ in range(n)]
        for f in features:
            f[:, [a, b]] = rng.integers(0, 2, (20, 2))
        return features, [(f[:, a] != f[:, b]).astype(np.float32) for f in features]

    scorer = fit(*made(500, seed=1))
    assert scorer.network is not None
    linear = Scorer(scorer.weights)

    def precision(scorer: Scorer) -> float:
        return float(
            np.mean([g[np.argsort(-scorer.score(f))[:5]].mean() for f, g in zip(*made(100, seed=2), strict=True)])
        )

    assert precision(scorer) > precision(linear) + 0.1


def test_scores_are_logarithms_of_odds() -> None:
    features, gains = queries(500, "covered", seed=1)
    scorer = fit(features, gains, pull=1.0)
    unseen = queries(300, "covered", seed=2)
    chance = 1 / (1 + np.exp(-np.concatenate([scorer.score(f) for f in unseen[0]])))
    clicked = np.concatenate(unseen[1])
    assert chance.mean() == pytest.approx(clicked.mean(), abs=0.01)
    sure = chance > 0.3
    assert clicked[sure].mean() == pytest.approx(chance[sure].mean(), abs=0.1)


def test_a_scorer_deaf_to_some_evidence_does_not_hear_it() -> None:
    features, gains = queries(500, "covered", seed=1)
    scorer = fit(features, gains).without(["covered"])
    f = features[0].copy()
    before = scorer.score(f)
    f[3, EVIDENCE.index("covered")] += 1.0
    assert scorer.score(f) == pytest.approx(before)


def test_a_score_is_the_same_however_many_are_scored() -> None:
    features, gains = queries(500, "covered", seed=1)
    scorer = fit(features, gains)
    assert scorer.network is not None
    many = np.random.default_rng(3).random((3 * COMPARED, len(EVIDENCE))).astype(np.float32)
    assert scorer.score(many)[:COMPARED] == pytest.approx(scorer.score(many[:COMPARED]), rel=1e-5)


def test_evidence_that_training_never_saw_decides_nothing() -> None:
    features, gains = queries(500, "covered", seed=1)
    for f in features:
        f[:, EVIDENCE.index("contradicted")] = 0.0
    scorer = fit(features, gains)
    f = features[0].copy()
    f[3, EVIDENCE.index("contradicted")] = 1.0
    assert scorer.score(f) == pytest.approx(scorer.score(features[0]))


def test_a_saved_scorer_scores_the_same(tmp_path: Path) -> None:
    features, gains = queries(500, "covered", seed=1)
    for scorer in (fit(features, gains), Scorer.default()):
        scorer.save(tmp_path)
        found = Scorer.load(tmp_path)
        assert found.score(features[0]).tolist() == scorer.score(features[0]).tolist()
        assert found.first_phase.tolist() == scorer.first_phase.tolist()
    (tmp_path / "scorer.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match=r"scorer\.safetensors"):
        Scorer.load(tmp_path)


def test_one_query_hardly_moves_the_defaults() -> None:
    features, gains = queries(1, "covered", seed=3)
    moved = fit(features, gains, pull=1000.0).weights - Scorer.default().weights
    assert np.abs(moved).max() < 0.05


def test_evidence_that_never_occurs_keeps_its_default() -> None:
    features, gains = queries(100, "covered", seed=4)
    for f in features:
        f[:, EVIDENCE.index("value")] = 0.0
    assert fit(features, gains).named()["value"] == 0.0


def test_value_weight_is_the_shops_to_set() -> None:
    scorer = Scorer.default().with_value(2.5)
    features = np.zeros((2, len(EVIDENCE)), np.float32)
    features[:, EVIDENCE.index("value")] = [0.0, 1.0]
    assert scorer.score(features).tolist() == [0.0, 2.5]


def test_unknown_evidence_is_named() -> None:
    with pytest.raises(SettingError, match="popularity"):
        Scorer.of({"popularity": 1.0})
