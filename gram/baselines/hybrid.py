"""Two engines as one, keywords and vectors say, by their ranks or by their scores.

    rrf:       score(q, p) = 1/(k + rank₁(q, p)) + w · 1/(k + rank₂(q, p))      (Cormack et al., SIGIR 2009)
    weighted:  score(q, p) = norm(s₁(q, p)) + w · norm(s₂(q, p))

Both engines' first `depth` products are the candidates. An engine that did not find a candidate adds nothing to rrf; to
the weighted sum its true score if it has `score_many`, else the least it could be: that of its last product where its
list is full, and 0 where it found nothing more. `norm` is the score itself ("raw"), or brings an engine's scores of the
query's candidates to 0..1 ("min-max").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product as combinations
from typing import Any, Literal, NamedTuple, Protocol, TypedDict, runtime_checkable

import numpy as np

from gram.baselines.base import Engine, TrainingData, check_k
from gram.errors import SettingError
from gram.evaluation.measures import Run, ranking, threshold
from gram.records import Hit

How = Literal["rrf", "weighted"]
Norm = Literal["min-max", "raw"]

_CUTS = (10, 100, 300)
_K = (10, 20, 60, 100)
_RRF_WEIGHTS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)
_WEIGHTS = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)


@runtime_checkable
class ScoresAny(Protocol):
    """An engine that can score any product of its catalogue, found or not: query id → product id → score."""

    def score_many(self, queries: Mapping[str, str], product_ids: Mapping[str, Sequence[str]]) -> Run: ...


class HybridSettings(TypedDict):
    """What `tune` chooses and `Hybrid` takes; `k` is read by rrf, `norm` by the weighted sum."""

    how: How
    weight: float
    k: int
    norm: Norm
    depth: int


class Hybrid:
    """Two engines over one catalogue as one.

    Nothing is learned here: without a log it is what its engines are. Raises SettingError for a setting out of range.
    """

    def __init__(
        self,
        first: Engine,
        second: Engine,
        how: How = "rrf",
        *,
        weight: float = 1.0,
        k: int = 60,
        norm: Norm = "min-max",
        depth: int = 1000,
    ) -> None:
        if how not in ("rrf", "weighted") or norm not in ("min-max", "raw"):
            raise SettingError(f"A hybrid is 'rrf' or 'weighted', 'min-max' or 'raw', not '{how}', '{norm}'.")
        if not 0 <= weight < math.inf or k < 0 or depth < 1:
            raise SettingError(f"A hybrid needs weight ≥ 0, k ≥ 0, depth ≥ 1, not {weight}, {k}, {depth}.")
        self._first, self._second = first, second
        self._chosen = HybridSettings(how=how, weight=weight, k=k, norm=norm, depth=depth)

    @property
    def name(self) -> str:
        return f"{self._first.name} + {self._second.name} ({self._chosen['how']})"

    @property
    def settings(self) -> dict[str, object]:
        return dict(self._chosen)

    @property
    def index_bytes(self) -> int:
        """Both engines' together. Raises SettingError where one of them does not tell it."""
        parts: list[Any] = [getattr(engine, "index_bytes", None) for engine in (self._first, self._second)]
        if None in parts:
            raise SettingError(f"An engine of '{self.name}' does not tell the size of its index.")
        return int(sum(parts))

    def search(self, query: str, k: int = 10) -> list[Hit]:
        """The best `k` candidates, best first."""
        check_k(k)
        depth = max(self._chosen["depth"], k)
        found = [engine.search(query, depth) for engine in (self._first, self._second)]
        runs: list[Run] = [{"": {hit.product_id: hit.score for hit in hits}} for hits in found]
        titles = {hit.product_id: hit.title for hits in found for hit in hits}
        pool = pools((self._first, self._second), runs, {"": query}, depth)[""]
        return [Hit(product_id, score, titles[product_id]) for product_id, score in self._best(pool, k).items()]

    def search_many(self, queries: Mapping[str, str], k: int = 300) -> Run:
        """The run for many queries: query id → product id → score."""
        check_k(k)
        found = candidates(self._first, self._second, queries, max(self._chosen["depth"], k))
        return {query_id: self._best(pool, k) for query_id, pool in found.items()}

    def _best(self, pool: Pool, k: int) -> dict[str, float]:
        scores = fuse(pool, self._chosen)
        return {pool.product_ids[i]: float(scores[i]) for i in np.argsort(-scores, kind="stable")[:k]}


class Pool(NamedTuple):
    """One query's candidates, C of them, in the order of their ids.

    `ranks` (2, C) by either engine, from 1, infinite where it did not find the product; `scores` (2, C).
    """

    product_ids: list[str]
    ranks: np.ndarray
    scores: np.ndarray


def candidates(first: Engine, second: Engine, queries: Mapping[str, str], depth: int) -> dict[str, Pool]:
    """Each query's candidates: what either engine finds among its first `depth`."""
    engines = (first, second)
    return pools(engines, [engine.search_many(queries, depth) for engine in engines], queries, depth)


def pools(engines: Sequence[Engine], runs: Sequence[Run], queries: Mapping[str, str], depth: int) -> dict[str, Pool]:
    """The same from what the two engines found."""
    ids = {query_id: sorted({*runs[0][query_id], *runs[1][query_id]}) for query_id in queries}
    missing = [_missing(engine, run, queries, ids, depth) for engine, run in zip(engines, runs, strict=True)]
    found = {}
    for query_id, union in ids.items():
        ranks, scores = np.full((2, len(union)), np.inf), np.zeros((2, len(union)))
        for row, (run, others) in enumerate(zip(runs, missing, strict=True)):
            rank = {product_id: n for n, product_id in enumerate(ranking(run[query_id]), start=1)}
            ranks[row] = [rank.get(product_id, np.inf) for product_id in union]
            known = {**others[query_id], **run[query_id]}
            scores[row] = [known[product_id] for product_id in union]
        found[query_id] = Pool(union, ranks, scores)
    return found


def fuse(pool: Pool, settings: HybridSettings) -> np.ndarray:
    """The candidates' scores (C,)."""
    weight = settings["weight"]
    if settings["how"] == "rrf":
        first, second = 1 / (settings["k"] + pool.ranks)
    elif settings["norm"] == "raw":
        first, second = pool.scores
    else:
        first, second = _min_max(pool.scores)
    return first + weight * second


def tune(
    first: Engine, second: Engine, data: TrainingData, hows: Sequence[How] = ("rrf", "weighted"), depth: int = 1000
) -> HybridSettings:
    """The settings best on the dev part, for `Hybrid(first, second, **tune(first, second, data))`.

    Best is the mean of R@10, R@100, R@300 and nDCG@10. Both engines answer the dev queries once. The raw sum's weights
    are tried in units of how much further apart the first engine's scores lie than the second's. Without judged
    dev queries these are the defaults of `hows[0]`.
    """
    least = threshold(data.dev_qrels)
    judged = {q: g for q, g in data.dev_qrels.items() if q in data.dev_queries and max(g.values(), default=0) >= least}
    found = candidates(first, second, {q: data.dev_queries[q] for q in judged}, depth)
    spreads = [
        np.mean([pool.scores[row].std() for pool in found.values() if pool.product_ids] or [1]) for row in (0, 1)
    ]
    unit = float(spreads[0] / spreads[1]) if min(spreads) > 0 else 1.0
    tried: list[HybridSettings] = []
    for how in hows:
        default = HybridSettings(how=how, weight=1.0, k=60, norm="min-max", depth=depth)
        tried.append(default)
        if how == "rrf":
            tried += [{**default, "k": k, "weight": w} for k, w in combinations(_K, _RRF_WEIGHTS)]
        else:
            tried += [{**default, "weight": w} for w in _WEIGHTS]
            tried += [{**default, "norm": "raw", "weight": float(f"{w * unit:.3g}")} for w in _WEIGHTS]
    if not found:
        return tried[0]
    grades = {q: (np.array([judged[q].get(p, 0.0) for p in pool.product_ids]), judged[q]) for q, pool in found.items()}

    def goal(settings: HybridSettings) -> float:
        return sum(worth(fuse(pool, settings), *grades[q], least) for q, pool in found.items())

    return max(tried, key=goal)


def worth(scores: np.ndarray, grades: np.ndarray, judged: Mapping[str, float], least: float) -> float:
    """One query's mean of R@10, R@100, R@300 and nDCG@10, as `gram.evaluation.measures.evaluate` has them.

    `scores` and `grades` (C,) are those of the candidates in the order of their ids, `judged` all grades of the query.
    """
    order = np.argsort(-scores, kind="stable")[: _CUTS[-1]]
    found = grades[order] >= least
    recalls = [found[:cut].sum() / sum(grade >= least for grade in judged.values()) for cut in _CUTS]
    discount = 1 / np.log2(np.arange(2, 12))  # (10,)
    ideal = np.array(sorted(judged.values(), reverse=True)[:10]).clip(min=0)
    gained = grades[order][:10].clip(min=0)
    ndcg = gained @ discount[: len(gained)] / (ideal @ discount[: len(ideal)])
    return float((sum(recalls) + ndcg) / 4)


def _missing(engine: Engine, run: Run, queries: Mapping[str, str], ids: Mapping[str, Sequence[str]], depth: int) -> Run:
    """The scores of the candidates that an engine did not find."""
    others = {query_id: [p for p in union if p not in run[query_id]] for query_id, union in ids.items()}
    if isinstance(engine, ScoresAny):
        return engine.score_many(queries, others)
    least = {q: min(found.values()) if len(found) >= depth else 0.0 for q, found in run.items()}
    return {query_id: dict.fromkeys(products, least[query_id]) for query_id, products in others.items()}


def _min_max(scores: np.ndarray) -> np.ndarray:
    """(2, C), each row in 0..1; a row of equal scores is all 0."""
    if not scores.size:
        return scores
    low, high = scores.min(axis=1, keepdims=True), scores.max(axis=1, keepdims=True)
    return (scores - low) / np.where(high > low, high - low, 1)
