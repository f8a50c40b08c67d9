"""What trained rivals share: pairs in their shares, negatives, what is ignored, the dev score, the loop's choices."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from gram.baselines.base import TrainingData
from gram.baselines.bm25 import BM25
from gram.baselines.training import DevSample, Pairs, Plan, contrastive, fit, plan_for, pseudo_query
from gram.records import Interaction, Product

SHELF = [Product(i, t) for i, t in (("a", "red hat"), ("b", "Red Hat"), ("c", "red coat"), ("d", "red desk"))]
LOG = [Interaction("red hat", "a"), Interaction("red", "c", 3.0), Interaction("red", "sold out")]


def test_pairs_come_in_their_shares() -> None:
    rng = np.random.default_rng(0)
    pairs = Pairs(SHELF, LOG[1:], seed=0)
    drawn = pairs.draw(10, rng, ["text"] * 4, 0.3)
    assert drawn[:5] == [("red", 2)] * 5
    assert [text for text, _ in drawn[5:8]] == ["text"] * 3
    assert all(set(text.split()) <= set(SHELF[i].title.split()) for text, i in drawn[8:])
    assert pairs.from_log
    assert pseudo_query([], rng) == ""


def test_pseudo_queries_stand_in_for_an_empty_log() -> None:
    pairs = Pairs([*SHELF, Product("e", "--", attributes={"x": ("y",)})], [], seed=0)
    assert not pairs.from_log
    assert sorted(i for _, i in pairs.rows) == [0, 1, 2, 3, 4]
    assert pairs.rows == Pairs([*SHELF, Product("e", "--")], [], seed=0).rows
    assert len(pairs.draw(7, np.random.default_rng(1))) == 7


def test_pairs_are_drawn_by_weight() -> None:
    drawn = Pairs(SHELF, LOG, seed=0).draw(5000, np.random.default_rng(0))
    assert sum(query == "red" for query, _ in drawn[:4000]) == pytest.approx(3000, abs=100)


def test_hard_negatives_are_neither_clicked_nor_of_a_clicked_title() -> None:
    pairs = Pairs(SHELF, LOG, seed=0)
    find = BM25(SHELF).find
    assert pairs.mine(find, (1, 4)) == {"red hat": [2, 3], "red": [0, 1, 3]}
    assert pairs.mine(find, (2, 3))["red"] == [1]  # b and c, which was clicked
    assert pairs.mine(find, (5, 9))["red"] == [0, 1, 3]  # so deep nothing is found: all that is


def test_a_batch_ignores_what_is_no_negative() -> None:
    pairs = Pairs(SHELF, LOG, seed=0)
    assert len(pairs.batch(20, np.random.default_rng(0), {}, hard=1.0).columns) == 40
    batch = pairs.batch(20, np.random.default_rng(0), {"red hat": [2], "red": [3]})
    titles = [SHELF[i].title.lower() for i in batch.columns]
    for i, query in enumerate(batch.queries):
        right = {"red hat": {"red hat"}, "red": {"red coat"}}.get(query, set()) | {titles[i]}
        expected = [title in right and j != i for j, title in enumerate(titles)]
        assert batch.ignored[i].tolist() == expected
        if i < 10 and query in ("red hat", "red"):
            assert batch.columns[20 + i] == {"red hat": 2, "red": 3}[query]


def test_contrastive_by_hand() -> None:
    scores = torch.tensor([[1.0, 2.0, 0.0, 3.0], [0.0, 1.0, 0.0, 0.0]])
    ignored = torch.tensor([[False, True, False, True], [False, False, True, True]])
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-1))) / 2
    assert contrastive(scores, ignored).item() == pytest.approx(expected)


def test_dev_score_by_hand() -> None:
    shop = [Product(f"p{i:03d}", "x") for i in range(200)]
    data = TrainingData(shop, [], {"a": "x", "b": "x", "c": "x"}, {"a": {"p003": 1.0, "p050": 1.0}, "b": {"p001": 1.0}})
    dev = DevSample(data, shop, seed=0)
    assert list(dev.queries) == ["a", "b"]  # nothing is known of c
    run = {"a": {f"p{i:03d}": -float(i) for i in range(100)}, "b": {}}
    # a: p003 at rank 4, p050 within 100; b: nothing
    ndcg = (1 / math.log2(5)) / (1 + 1 / math.log2(3))
    assert dev.score(run) == pytest.approx((ndcg + 1) / 4)
    assert dev.score_found([(np.arange(100), -np.arange(100.0)), (np.empty(0, int), np.empty(0))]) == dev.score(run)
    assert len(dev.positions) == 200
    assert not DevSample(TrainingData(shop, [], {}, {}), shop, seed=0)


def test_a_plan_goes_over_the_log_and_asks_dev_in_time() -> None:
    pairs = Pairs(SHELF, LOG, seed=0)
    assert plan_for(pairs, False, 0, False).steps == 300
    assert Plan(12).stops() == [2, 6, 10, 12]
    assert Plan(1000, every=250, trial=100).stops() == [100, 350, 600, 850, 1000]
    assert Plan(1).stops() == [1]


class Slope(torch.nn.Module):
    """One weight; the loss pulls it down as fast as the rate allows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))


def descend(network: Slope, plan: Plan, scores: Iterator[float] | None) -> tuple[object, list[float]]:
    seen: list[float] = []

    def score() -> float:
        assert scores is not None
        seen.append(round(network.weight.item(), 6))
        return next(scores)

    def loss(rng: np.random.Generator, done: float) -> Tensor:
        return network.weight.sum()

    groups = [{"params": [network.weight], "lr": 0.1, "weight_decay": 0.0}]
    return fit(network, groups, loss, plan, None if scores is None else score), seen


def test_the_best_rate_goes_on_and_the_best_checkpoint_is_kept() -> None:
    network = Slope()
    # untrained, three trials, then three more of the one that goes on
    outcome, seen = descend(network, Plan(8), iter([0.1, 0.2, 0.3, 0.15, 0.9, 0.4, 0.5]))
    assert outcome.by_rate == {"0.4": 0.2, "1": 0.3, "2.5": 0.15}  # type: ignore[attr-defined]
    assert (outcome.step, outcome.rate, outcome.score) == (4, 1.0, 0.9)  # type: ignore[attr-defined]
    assert seen[1] / seen[2] == pytest.approx(0.4)
    assert seen[4] - seen[2] == pytest.approx(-0.1 * (6 / 7 + 5 / 7), abs=1e-3)  # taken up where it stood
    assert network.weight.item() == pytest.approx(seen[4], abs=1e-6)


def test_untrained_weights_are_kept_where_nothing_helps_and_patience_ends_it() -> None:
    network = Slope()
    outcome, seen = descend(network, Plan(80, every=10, trial=10, patience=2), iter([0.9] + [0.1] * 20))
    assert (outcome.step, network.weight.item()) == (0, 0.0)  # type: ignore[attr-defined]
    assert len(seen) == 1 + 3 + 1  # the trial counts as the first check


def test_without_a_score_the_usual_rate_goes_to_the_end() -> None:
    network = Slope()
    outcome, _ = descend(network, Plan(8), None)
    assert (outcome.step, outcome.rate, outcome.by_rate) == (8, 1.0, {"1": 0.0})  # type: ignore[attr-defined]


def test_a_rate_that_leaves_no_number_is_not_chosen() -> None:
    network = Slope()

    def loss(rng: np.random.Generator, done: float) -> Tensor:
        return network.weight.sum() / (network.weight.detach() > -0.15).float()  # 0 for what went too far

    groups = [{"params": [network.weight], "lr": 0.1, "weight_decay": 0.0}]
    outcome = fit(network, groups, loss, Plan(8), lambda: -network.weight.item())
    assert "2.5" not in outcome.by_rate
    assert math.isfinite(network.weight.item())
