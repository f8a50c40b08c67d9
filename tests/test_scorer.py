"""The scorer: defaults without data, the data's weights with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gram.errors import ModelError, SettingError
from gram.ranking.features import FEATURES, NAMES
from gram.ranking.fit import JudgedQuery, fit_scorer
from gram.ranking.scorer import COMPARED, Scorer


def make_queries(n: int, telling: str, seed: int) -> list[JudgedQuery]:
    """Queries whose relevant candidate is the one with the most of one feature; all else is noise."""
    rng = np.random.default_rng(seed)
    queries = []
    for _ in range(n):
        features = rng.random((20, len(NAMES))).astype(np.float32)
        best = features[:, NAMES.index(telling)].argmax()
        queries.append(JudgedQuery(features, np.eye(20, dtype=np.float32)[best]))
    return queries


def test_without_data_the_defaults_stay() -> None:
    assert fit_scorer([]).by_name() == {feature.name: feature.weight for feature in FEATURES}


def test_the_telling_feature_gets_the_weight() -> None:
    scorer = fit_scorer(make_queries(200, "idf_coverage", seed=1), pull=1.0)
    held_out = make_queries(100, "idf_coverage", seed=2)

    def right(scorer: Scorer) -> float:
        return float(np.mean([scorer.score(q.features).argmax() == q.gains.argmax() for q in held_out]))

    assert right(scorer) > 0.8
    assert right(Scorer.default()) < 0.3


def test_how_sure_the_defaults_are_is_sought_without_a_pull() -> None:
    """Relevance drawn by scores a fifth as sharp: however strong the pull, the fit is a fifth of the defaults."""
    default, rng = Scorer.default().without(("value", "compound")), np.random.default_rng(3)
    queries = []
    for _ in range(100):
        features = rng.random((40, len(NAMES))).astype(np.float32)
        chance = np.exp(default.score(features) / 5)
        queries.append(JudgedQuery(features, np.eye(40, dtype=np.float32)[rng.choice(40, p=chance / chance.sum())]))
    fitted = fit_scorer(queries[:20], pull=1e6).weights  # too few to calibrate, which would hide it
    assert fitted @ default.weights > 0.999 * np.linalg.norm(fitted) * np.linalg.norm(default.weights)
    assert 0.1 < np.linalg.norm(fitted) / np.linalg.norm(default.weights) < 0.4


def test_a_log_that_contradicts_the_defaults_is_learnt() -> None:
    """A hundred clicks decided by a feature that weighs nothing by default; ranks by the defaults give .09."""
    scorer = fit_scorer(make_queries(100, "last_term", seed=1), refine=False)
    ranks = [
        1 + int((scorer.score(f) > scorer.score(f)[g.argmax()]).sum()) for f, g in make_queries(200, "last_term", 2)
    ]
    assert np.mean(1 / np.array(ranks)) > 0.5


def test_only_features_declared_to_do_so_count_against_a_product() -> None:
    """Also where one feature counts against it only once another is left out."""
    may = {feature.name for feature in FEATURES if feature.sign < 0}
    assert may == {name for name in NAMES if name.endswith("_conflict")} | {"left_out", "only_for"}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        features = (rng.random((60, 20, 1)) + 0.3 * rng.random((60, 20, len(NAMES)))).astype(np.float32)
        queries = [JudgedQuery(f, np.eye(20, dtype=np.float32)[rng.integers(20)]) for f in features]
        against = {name for name, weight in fit_scorer(queries, pull=0.1).by_name().items() if weight < 0}
        assert against <= may


def test_the_network_finds_what_a_sum_cannot() -> None:
    """Relevant is what has one of two features but not both."""
    a, b = NAMES.index("idf_coverage"), NAMES.index("number_match")

    def made(n: int, seed: int) -> list[JudgedQuery]:
        rng = np.random.default_rng(seed)
        queries = []
        for _ in range(n):
            features = rng.random((20, len(NAMES))).astype(np.float32)
            features[:, [a, b]] = rng.integers(0, 2, (20, 2))
            queries.append(JudgedQuery(features, (features[:, a] != features[:, b]).astype(np.float32)))
        return queries

    def precision(scorer: Scorer) -> float:
        """P@5."""
        best = [(q.gains, np.argsort(-scorer.score(q.features))[:5]) for q in made(100, seed=2)]
        return float(np.mean([gains[rows].mean() for gains, rows in best]))

    scorer = fit_scorer(made(500, seed=1))
    assert scorer.network is not None
    assert precision(scorer) > precision(Scorer(scorer.weights, scorer.weights)) + 0.1
    assert fit_scorer(made(500, seed=1), refine=False).network is None


def test_scores_are_logarithms_of_odds() -> None:
    scorer = fit_scorer(make_queries(500, "idf_coverage", seed=1), pull=1.0)
    unseen = make_queries(300, "idf_coverage", seed=2)
    chance = 1 / (1 + np.exp(-np.concatenate([scorer.score(q.features) for q in unseen])))
    relevant = np.concatenate([q.gains for q in unseen])
    assert chance.mean() == pytest.approx(relevant.mean(), abs=0.01)
    sure = chance > 0.3
    assert relevant[sure].mean() == pytest.approx(chance[sure].mean(), abs=0.1)


def test_a_scorer_deaf_to_a_feature_or_a_group_does_not_hear_it() -> None:
    queries = make_queries(500, "idf_coverage", seed=1)
    fitted = fit_scorer(queries)
    for name in ("idf_coverage", "words"):
        scorer = fitted.without([name])
        features = queries[0].features.copy()
        before = scorer.score(features)
        features[3, NAMES.index("idf_coverage")] += 1.0
        assert scorer.score(features) == pytest.approx(before)
    assert not np.allclose(fitted.score(features), fitted.score(queries[0].features))


def test_what_a_fit_leaves_out_has_no_weight() -> None:
    for n in (100, 500):  # a sum; a sum and a network
        scorer = fit_scorer(make_queries(n, "idf_coverage", seed=1), without=("words", "dense"))
        gone = [i for i, feature in enumerate(FEATURES) if feature.group == "words" or feature.name == "dense"]
        assert not scorer.weights[gone].any()
        assert scorer.weights.any()


def test_a_score_is_the_same_however_many_are_scored() -> None:
    scorer = fit_scorer(make_queries(500, "idf_coverage", seed=1))
    assert scorer.network is not None
    many = np.random.default_rng(3).random((3 * COMPARED, len(NAMES))).astype(np.float32)
    assert scorer.score(many)[:COMPARED] == pytest.approx(scorer.score(many[:COMPARED]), rel=1e-5)


@pytest.mark.parametrize("n", [60, 500])  # a sum; a sum and a network
def test_a_rare_feature_keeps_its_declared_weight_on_the_scale_of_what_is_fitted(n: int) -> None:
    """Nine queries in which it tells the one click apart, which is what a fit would follow."""
    rare = NAMES.index("left_out")
    queries = make_queries(n, "idf_coverage", seed=1)
    for i, query in enumerate(queries):
        query.features[:, rare] = query.gains if i < 9 else 0.0
    scorer, without = fit_scorer(queries), fit_scorer(queries, without=("left_out",))
    seen = np.concatenate([query.features for query in queries])
    assert without.weights[rare] == 0
    share = np.std(np.concatenate([without.score(q.features) for q in queries])) / np.std(
        seen @ Scorer.default().weights
    )
    assert 0.3 < scorer.weights[rare] / Scorer.default().weights[rare] / share < 1.5
    queries[9].features[:, rare] = queries[9].gains
    assert fit_scorer(queries).weights[rare] >= 0, "ten queries move it"


def test_a_saved_scorer_scores_the_same(tmp_path: Path) -> None:
    queries = make_queries(500, "idf_coverage", seed=1)
    for scorer in (fit_scorer(queries), Scorer.default()):
        scorer.save(tmp_path)
        found = Scorer.load(tmp_path)
        assert found.score(queries[0].features).tolist() == scorer.score(queries[0].features).tolist()
        assert found.first_phase.tolist() == scorer.first_phase.tolist()


def test_a_scorer_that_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Scorer.default().save(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("gram.ranking.scorer.NAMES", (*NAMES[:-1], "popularity"))
        with pytest.raises(
            ModelError, match=r"scorer\.safetensors: weighs other features.*[(]popularity value[)].*Fix"
        ):
            Scorer.load(tmp_path)
    for part in ("weights", "first_phase"):
        replace(Scorer.default(), **{part: np.full(len(NAMES), np.nan, np.float32)}).save(tmp_path)
        with pytest.raises(ModelError, match="has other numbers"):
            Scorer.load(tmp_path)
        replace(Scorer.default(), **{part: np.ones(3, np.float32)}).save(tmp_path)
        with pytest.raises(ModelError, match="has other numbers"):
            Scorer.load(tmp_path)
    (tmp_path / "scorer.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match=r"scorer\.safetensors: the scorer cannot be read.*Fix"):
        Scorer.load(tmp_path)


@pytest.mark.parametrize("later", ["left_out", "soft_share", "only_for"])
def test_a_scorer_of_before_a_feature_scores_as_it_did(
    later: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = make_queries(500, "idf_coverage", seed=1)
    fitted, new = fit_scorer(queries), NAMES.index(later)
    queries[0].features[:, new] = 0.0
    network = fitted.network
    assert network is not None
    kept = np.arange(len(NAMES)) != new
    old = Scorer(
        fitted.weights[kept],
        fitted.first_phase[kept],
        network._replace(mean=network.mean[kept], spread=network.spread[kept], inner=network.inner[np.tile(kept, 2)]),
        fitted.shift,
    )
    with monkeypatch.context() as patch:
        patch.setattr("gram.ranking.scorer.NAMES", tuple(name for name in NAMES if name != NAMES[new]))
        old.save(tmp_path)
        expected = old.score(queries[0].features[:, kept])
    found = Scorer.load(tmp_path)
    assert found.by_name()[NAMES[new]] == 0.0
    assert found.score(queries[0].features) == pytest.approx(expected, abs=1e-5)


def test_one_query_hardly_moves_the_defaults() -> None:
    fitted, default = fit_scorer(make_queries(1, "idf_coverage", seed=3), pull=1000.0).weights, Scorer.default().weights
    scale = fitted @ default / (default @ default)
    assert 0 < np.abs(fitted / scale - default).max() < 0.2


def test_a_feature_that_never_occurs_keeps_its_default() -> None:
    queries = make_queries(100, "idf_coverage", seed=4)
    for query in queries:
        query.features[:, NAMES.index("value")] = 0.0
    assert fit_scorer(queries).by_name()["value"] == 0.0


def test_candidates_are_found_by_the_weights_that_were_given() -> None:
    first_phase = np.arange(len(NAMES), dtype=np.float32)
    for n in (0, 100, 500):
        assert fit_scorer(make_queries(n, "bm25", seed=1), first_phase=first_phase).first_phase.tolist() == list(
            range(len(NAMES))
        )


def test_value_weight_is_the_shops_to_set() -> None:
    scorer = Scorer.default().with_value(2.5)
    features = np.zeros((2, len(NAMES)), np.float32)
    features[:, NAMES.index("value")] = [0.0, 1.0]
    assert scorer.score(features).tolist() == [0.0, 2.5]
    with pytest.raises(SettingError, match="plain number"):
        scorer.with_value(float("nan"))


def test_an_unknown_feature_is_named() -> None:
    with pytest.raises(SettingError, match=r"no feature 'popularity'.*Fix: choose from the groups codes"):
        Scorer.default().without(["popularity"])
    with pytest.raises(SettingError, match="no feature 'popularity'"):
        fit_scorer(make_queries(2, "bm25", seed=0), without=["popularity"])
