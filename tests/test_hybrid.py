"""Two engines as one: both formulas by hand, candidates that one engine lacks, and the choice on dev."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from gram.baselines.base import Engine, TrainingData
from gram.baselines.bm25 import BM25
from gram.baselines.hybrid import Hybrid, HybridSettings, Norm, tune, worth
from gram.errors import SettingError
from gram.evaluation.measures import Run, evaluate
from gram.records import Hit, Product


class Unmeasured:
    """An engine that gives the same scores to every query."""

    def __init__(self, name: str, scores: Mapping[str, float]) -> None:
        self.name, self._scores = name, dict(sorted(scores.items(), key=lambda item: (-item[1], item[0])))

    def search(self, query: str, k: int = 10) -> list[Hit]:
        return [Hit(product_id, score, product_id.upper()) for product_id, score in list(self._scores.items())[:k]]

    def search_many(self, queries: Mapping[str, str], k: int = 300) -> Run:
        return {query_id: dict(list(self._scores.items())[:k]) for query_id in queries}


class Fixed(Unmeasured):
    """The same, and it tells its size."""

    index_bytes = 100


class Scoring(Fixed):
    """The same, and it can score what it did not find."""

    def score_many(self, queries: Mapping[str, str], product_ids: Mapping[str, Sequence[str]]) -> Run:
        return {query_id: {p: self._scores.get(p, -1.0) for p in product_ids[query_id]} for query_id in queries}


WORDS = Fixed("words", {"a": 8.0, "b": 6.0, "c": 2.0})
VECTORS = Scoring("vectors", {"c": 0.9, "d": 0.5, "a": 0.4})


def test_rrf_by_hand() -> None:
    engine = Hybrid(WORDS, VECTORS, weight=2, k=10)
    assert isinstance(engine, Engine)
    expected = {"a": 1 / 11 + 2 / 13, "b": 1 / 12, "c": 1 / 13 + 2 / 11, "d": 2 / 12}
    run = engine.search_many({"q": "any"})["q"]
    assert run == pytest.approx(expected)
    assert list(run) == ["c", "a", "d", "b"]


@pytest.mark.parametrize(
    ("norm", "depth", "expected"),
    [
        # words found no more than three, so d has 0 of them; vectors score b at -1
        ("raw", 1000, {"a": 8 + 4, "b": 6 - 10, "c": 2 + 9, "d": 0 + 5}),
        ("min-max", 1000, {"a": 1 + 10 * 1.4 / 1.9, "b": 0.75, "c": 0.25 + 10, "d": 10 * 1.5 / 1.9}),
        # two of each: c and d have words' second score, 6, at most; a and b are scored by vectors
        ("raw", 2, {"a": 8 + 4, "b": 6 - 10, "c": 6 + 9, "d": 6 + 5}),
    ],
)
def test_weighted_by_hand(norm: Norm, depth: int, expected: dict[str, float]) -> None:
    engine = Hybrid(WORDS, VECTORS, "weighted", weight=10, norm=norm, depth=depth)
    assert engine.search_many({"q": "any"}, k=min(depth, 4))["q"] == pytest.approx(
        dict(sorted(expected.items(), key=lambda item: -item[1])[: min(depth, 4)])
    )


def test_search_and_search_many_agree() -> None:
    engine = Hybrid(WORDS, VECTORS, "weighted")
    hits = engine.search("any", 3)
    assert {hit.product_id: hit.score for hit in hits} == engine.search_many({"q": "any"}, 3)["q"]
    assert hits[0].title == hits[0].product_id.upper()
    with pytest.raises(SettingError, match="at least 1"):
        engine.search("any", 0)


def test_equal_scores_stand_by_id() -> None:
    engine = Hybrid(Fixed("one", {"b": 1.0}), Fixed("two", {"a": 1.0}))
    assert [hit.product_id for hit in engine.search("any")] == ["a", "b"]


def test_an_engine_that_finds_nothing_leaves_the_other() -> None:
    shop = [Product("1", "red hat"), Product("2", "red coat"), Product("3", "blue coat")]
    engine = Hybrid(BM25(shop), Fixed("none", {}), "weighted")
    assert [hit.product_id for hit in engine.search("red coat")] == ["2", "1", "3"]
    assert engine.search_many({"q": "lamp", "r": ""}) == {"q": {}, "r": {}}


def test_worth_is_what_the_measures_say() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        ids = [f"p{n:03d}" for n in range(400)]
        scores = rng.integers(0, 60, len(ids)) / 7  # with ties
        judged = {str(p): float(rng.integers(0, 4)) for p in rng.permutation([*ids, "lost 1", "lost 2"])[:80]}
        judged["p000"] = 3.0
        run = {"q": dict(zip(ids, map(float, scores), strict=True))}
        mean = evaluate({"q": judged}, run, ("R@10", "R@100", "R@300", "nDCG@10")).mean
        grades = np.array([judged.get(product_id, 0.0) for product_id in ids])
        assert worth(scores, grades, judged, 2) == pytest.approx(sum(mean.values()) / 4)


def test_tuning_leans_on_the_better_engine() -> None:
    wanted = {f"p{n:02d}": 1.0 for n in range(5)}
    good = Scoring("good", {f"p{n:02d}": 1 - n / 100 for n in range(40)})
    bad = Fixed("bad", {f"p{n:02d}": float(n) for n in range(40)})
    data = TrainingData([], [], {"q": "any"}, {"q": wanted, "not asked": wanted})
    settings = tune(bad, good, data)
    found = Hybrid(bad, good, **settings).search_many({"q": "any"}, 5)["q"]
    assert found.keys() == wanted.keys()
    assert tune(bad, good, data, ("rrf",))["how"] == "rrf"
    assert tune(good, bad, data)["weight"] < 1


def test_without_dev_queries_the_defaults_are_taken() -> None:
    data = TrainingData([], [], {}, {})
    assert tune(WORDS, VECTORS, data) == HybridSettings(how="rrf", weight=1.0, k=60, norm="min-max", depth=1000)


def test_its_index_is_both() -> None:
    engine = Hybrid(WORDS, VECTORS)
    assert engine.index_bytes == 200
    assert engine.settings["how"] == "rrf"
    assert engine.name == "words + vectors (rrf)"
    with pytest.raises(SettingError, match="size of its index"):
        _ = Hybrid(WORDS, Unmeasured("words", {})).index_bytes


@pytest.mark.parametrize("wrong", [{"how": "sum"}, {"weight": -1.0}, {"k": -1}, {"norm": "z"}, {"depth": 0}])
def test_settings_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingError):
        Hybrid(WORDS, VECTORS, **wrong)  # type: ignore[arg-type]
