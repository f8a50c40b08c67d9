"""`gram fit`: the scorer fitted anew to a shop's own judged or clicked queries, nothing trained again.

What is fitted is a move of the weights away from those at hand, pulled back to none; how strongly is chosen by
cross-validation, and "not at all" is among the choices, so that a shop with too few queries keeps what it has.

Letters: Q queries, C candidates of a query, F features.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gram.coder.base import LEXICON
from gram.data.log import read_log, read_qrels, read_queries
from gram.errors import SettingError
from gram.evaluation.measures import evaluate, threshold
from gram.folders import CHECKSUMS, new_folder, read_json, write_json
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


class Refit(NamedTuple):
    """What came of a fit: measures are cross-validated, each query scored by weights that did not see it."""

    scorer: Scorer
    before: dict[str, float]
    after: dict[str, float]
    queries: int
    pull: float | None  # None: nothing that was tried is better than the weights at hand, which stay


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
    base = searcher.scorer
    folds = np.random.default_rng(seed).permutation(len(ids)) % FOLDS
    before = _measure(searcher, ids, found, [base] * len(ids), judged)
    tried = {}
    for pull in PULLS:
        by_fold = [fit_move([f for f, k in zip(fits, folds, strict=True) if k != n], base, pull) for n in range(FOLDS)]
        tried[pull] = _measure(searcher, ids, found, [by_fold[k] for k in folds], judged)
    best = max(tried, key=lambda pull: sum(tried[pull].values()))
    if sum(tried[best].values()) <= sum(before.values()):
        return Refit(base, before, before, len(ids), None)
    return Refit(fit_move(fits, base, best), before, tried[best], len(ids), best)


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
) -> dict[str, float]:
    """The mean measures when each query's candidates are ranked by its scorer."""
    run = {}
    for query_id, candidates, scorer in zip(ids, found, scorers, strict=True):
        names = searcher.index.table.ids[candidates.rows].tolist()
        run[query_id] = dict(zip(names, scorer.score(candidates.features).tolist(), strict=True))
    return evaluate(qrels, run, MEASURES).mean
