"""`gram fit`: the scorer fitted anew to a shop's own judged or clicked queries, nothing trained again.

What is fitted is a move of the weights away from those at hand, pulled back to none; how strongly is chosen by
cross-validation within cross-validation, and nothing is moved unless that makes the queries left out significantly
better, so that a shop with too few queries keeps what it has.

Letters: Q queries, C candidates of a query, F features.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from gram.apart import CHECKSUMS
from gram.coder.base import LEXICON
from gram.data.log import read_log, read_qrels, read_queries
from gram.errors import SettingError
from gram.evaluation.measures import Result, evaluate, threshold
from gram.evaluation.significance import LEVEL, significance
from gram.folders import new_folder, read_json, write_json
from gram.ranking.candidates import FROM_POSTINGS, NEAREST, Candidates, find_candidates
from gram.ranking.fit import JudgedQuery, fit_move
from gram.ranking.scorer import COMPARED, Scorer
from gram.search import Searcher
from gram.training.run import sum_clicks

LEAST = 30
"""Queries with a relevant product that it takes to fit anything."""
PULLS = (3.0, 10.0, 30.0, 100.0)
"""Queries' worth of pull to the weights at hand that are tried."""
FOLDS = 5
CONFIG = "config.json"
MEASURES = ("R@10", "R@100", "nDCG@10")

Qrels = Mapping[str, Mapping[str, float]]
_Part: TypeAlias = tuple[JudgedQuery, Candidates, Mapping[str, float]]
"""A query as fits see it, its candidates, and its judgements."""


class Refit(NamedTuple):
    """What came of a fit: `after` is cross-validated, each query scored by weights and a pull chosen without it."""

    scorer: Scorer
    before: dict[str, float]
    after: dict[str, float]
    queries: int
    p: float  # of the gain, one-sided, paired randomisation over queries; 1 for none
    better: bool  # else `scorer` is the one at hand


def refit(searcher: Searcher, queries: Mapping[str, str], qrels: Qrels, seed: int = 0) -> Refit:
    """The scorer for these queries (query_id → query) and their judgements.

    Raises SettingError for under LEAST queries with a relevant product in the index.
    """
    known = set(searcher.index.table.ids.tolist())
    least = threshold(qrels)
    judged = {q: {p: g for p, g in qrels[q].items() if p in known} for q in queries if q in qrels}
    judged = {q: row for q, row in judged.items() if any(g >= least for g in row.values())}
    if len(judged) < LEAST:
        problem = f"{len(judged)} queries have a relevant product in this index"
        raise SettingError(f"{problem}, and it takes {LEAST} to fit a scorer. Fix: judge more queries")
    ids = list(judged)
    represented = searcher.represent([queries[q] for q in ids], compound=False)
    first_phase, depth = searcher.scorer.first_phase, FROM_POSTINGS + NEAREST
    found = [find_candidates(searcher.index, query, first_phase, depth) for query in represented]
    fits = [_judged(searcher, f, judged[q], least) for q, f in zip(ids, found, strict=True)]
    base, parts = searcher.scorer, list(zip(fits, found, judged.values(), strict=True))
    folds = np.random.default_rng(seed).permutation(len(ids)) % FOLDS
    before = _measure(searcher, ids, found, [base] * len(ids), judged)
    scorers = [
        _choose(searcher, [p for p, k in zip(parts, folds, strict=True) if k != n], base, seed) for n in range(FOLDS)
    ]
    after = _measure(searcher, ids, found, [scorers[k] for k in folds], judged)
    gained = sum(after.mean.values()) > sum(before.mean.values())
    p = significance(_sums(after), _sums(before)) / 2 if gained else 1.0  # one-sided: worse is not asked for
    better = p < LEVEL
    scorer = _choose(searcher, parts, base, seed) if better else base
    return Refit(scorer, before.mean, after.mean, len(ids), p, better)


def _choose(searcher: Searcher, parts: Sequence[_Part], base: Scorer, seed: int) -> Scorer:
    """The scorer moved as far as these queries ask; how far is told by folds of them alone."""
    fits, found, judged = zip(*parts, strict=True)
    ids = [str(i) for i in range(len(parts))]
    qrels = dict(zip(ids, judged, strict=True))
    folds = np.random.default_rng((seed, 1)).permutation(len(ids)) % FOLDS
    worth = {}
    for pull in PULLS:
        moved = [fit_move([f for f, k in zip(fits, folds, strict=True) if k != n], base, pull) for n in range(FOLDS)]
        worth[pull] = sum(_measure(searcher, ids, found, [moved[k] for k in folds], qrels).mean.values())
    return fit_move(fits, base, max(worth, key=lambda pull: worth[pull]))


def _sums(result: Result) -> dict[str, float]:
    """Each query's measures, added up."""
    return {q: sum(result.per_query[name][q] for name in MEASURES) for q in result.per_query[MEASURES[0]]}


def write_scorer(model: Path, scorer: Scorer) -> None:
    """The model folder with another scorer, whole or not at all; indexes built with the model stay good."""
    with new_folder(model, marker=LEXICON) as draft:
        for file in model.iterdir():
            if file.name not in (CHECKSUMS, CONFIG):
                shutil.copy(file, draft / file.name)
        scorer.save(draft)
        write_json(draft / CONFIG, read_json(model / CONFIG) | {"scorer": scorer.by_name()})


def read_judged(
    queries: Path, qrels: Path | None, product_ids: Collection[str]
) -> tuple[dict[str, str], dict[str, dict[str, float]]]:
    """Queries and their judgements from their files; without qrels, `queries` is a log, whose clicks are relevant.

    Errors: `DataError` and its kinds, as of the readers.
    """
    if qrels is not None:
        return read_queries(queries), read_qrels(qrels)
    clicks = sum_clicks(read_log(str(queries), set(product_ids)))
    texts = {f"q{number}": query for number, query in enumerate(clicks)}
    return texts, {query_id: dict.fromkeys(clicks[query], 1.0) for query_id, query in texts.items()}


def _judged(searcher: Searcher, found: Candidates, grades: Mapping[str, float], least: float) -> JudgedQuery:
    ids = searcher.index.table.ids[found.rows[:COMPARED]].tolist()
    gains = np.array([float(grades.get(product_id, 0.0) >= least) for product_id in ids], dtype=np.float32)
    return JudgedQuery(found.features[:COMPARED], gains)


def _measure(
    searcher: Searcher, ids: Sequence[str], found: Sequence[Candidates], scorers: Sequence[Scorer], qrels: Qrels
) -> Result:
    """The measures when each query's candidates are ranked by its scorer."""
    run = {}
    for query_id, candidates, scorer in zip(ids, found, scorers, strict=True):
        names = searcher.index.table.ids[candidates.rows].tolist()
        run[query_id] = dict(zip(names, scorer.score(candidates.features).tolist(), strict=True))
    return evaluate(qrels, run, MEASURES)
