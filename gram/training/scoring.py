"""The scorer's stage: weights that held-out interactions ask for, among the products of the catalogue."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gram.coder.base import PRODUCT_CODING, Coder, QueryRepresentation
from gram.data.dataset import hold_out
from gram.index.bm25 import BM25Index
from gram.index.segment import Index
from gram.indexing import build_index
from gram.ranking.candidates import find_candidates
from gram.ranking.features import GROUPS, other_groups
from gram.ranking.fit import JudgedQuery, fit_scorer
from gram.ranking.scorer import ALONE, COMPARED, Scorer
from gram.records import Interaction, Product
from gram.search import Searcher
from gram.text.analysis import Analyzer
from gram.training.run import Clicks, sum_clicks

log = logging.getLogger("gram.train")

COMPOUND = 4.0
"""What the compound codes weigh without a log where they are what the coder is for. Not tuned."""
FITTED_ON = 60_000  # products at most that the scorer is fitted among


def fit_to_clicks(
    coder: Coder,
    products: Sequence[Product],
    bm25: BM25Index,
    clicks: Clicks,
    seed: int,
    without: Sequence[str] = (),
    compound: bool = False,
) -> dict[tuple[str, ...], Scorer]:
    """The scorers that these interactions ask for; default ones where there are none. `bm25`: of all products.

    `compound` weighs the compound codes that the coder writes too, and without interactions by COMPOUND.

    Under the empty tuple the one of all features, less those of `without`; under each of `ALONE` the one of these
    groups alone.
    """
    by_groups: dict[tuple[str, ...], Sequence[str]] = {(): without}
    if not without:
        by_groups |= {groups: other_groups(groups) for groups in ALONE}
    starts = {groups: Scorer.default(groups or GROUPS) for groups in by_groups}
    if compound:
        starts = {groups: scorer.with_weights({"compound": COMPOUND}) for groups, scorer in starts.items()}
    if not clicks:
        return {groups: starts[groups].without(left_out) for groups, left_out in by_groups.items()}
    part = sample_products(products, bm25, clicks, coder.lexicon.analyzer, FITTED_ON, seed)
    index = build_index(coder, part, coding=PRODUCT_CODING if compound else replace(PRODUCT_CODING, codes=0))
    queries = Searcher(coder, index, Scorer.default()).represent(list(clicks), compound=compound)
    scorers = {}
    for groups, left_out in by_groups.items():
        left_out = left_out if compound else ("compound", *left_out)
        scorers[groups] = fit_among(index, queries, list(clicks.values()), seed, left_out, starts[groups])
        log.debug("scorer %s: %s", "+".join(groups), json.dumps(scorers[groups].by_name()))
    return scorers


def fit_among(
    index: Index,
    queries: Sequence[QueryRepresentation],
    clicks: Sequence[Mapping[str, float]],
    seed: int,
    without: Sequence[str] = (),
    start: Scorer | None = None,
) -> Scorer:
    """The scorer that these queries' clicks ask for among the products of an index, or the default one of no queries.

    Features of `without`, or of groups named there, are left out of finding candidates and of scoring them.
    """
    start = scorer = (start or Scorer.default()).without(without)
    for refine in (False, True) if queries else ():  # first the sum that finds, then the scorer of what it finds
        first_phase, judged = (scorer.weights if refine else start.first_phase), []
        for query, clicked in zip(queries, clicks, strict=True):
            found = find_candidates(index, query, first_phase, keep=COMPARED)
            gains = [clicked.get(product_id, 0.0) for product_id in index.table.ids[found.rows].tolist()]
            judged.append(JudgedQuery(found.features, np.array(gains, dtype=np.float32)))
        scorer = fit_scorer(judged, start, first_phase, without, seed, refine)
    return scorer


def fit_groups(
    searcher: Searcher, interactions: Sequence[Interaction], seed: int, groups: Mapping[str, Sequence[str]]
) -> dict[str, Scorer]:
    """The scorers of some groups of features alone, by their names, for an engine that is trained.

    Each begins at the weights declared for its groups, and is fitted to the interactions that the engine's training
    with this seed held out of the log, which may be none, among the candidates that these groups find.
    """
    clicks = sum_clicks(hold_out(interactions, seed)[1])
    queries = searcher.represent(list(clicks), compound=False)
    return {
        name: fit_among(
            searcher.index,
            queries,
            list(clicks.values()),
            seed,
            ("compound", *other_groups(chosen)),
            Scorer.default(chosen),
        )
        for name, chosen in groups.items()
    }


def sample_products(
    products: Sequence[Product], bm25: BM25Index, clicks: Clicks, analyzer: Analyzer, at_most: int, seed: int
) -> list[Product]:
    """At most so many products: the clicked ones, those that BM25 finds for the same queries, and random others."""
    if len(products) <= at_most:
        return list(products)
    chosen = {product_id for row in clicks.values() for product_id in row}
    near: Counter[int] = Counter()
    for query in clicks:
        scores = bm25.score(analyzer.stems(query))
        near.update(np.argpartition(-scores, 30)[:30].tolist())
    chosen |= {products[i].product_id for i, _ in near.most_common(at_most // 2)}
    order: NDArray[np.int64] = np.random.default_rng(seed).permutation(len(products))
    for i in order.tolist():
        if len(chosen) >= at_most:
            break
        chosen.add(products[i].product_id)
    return [p for p in products if p.product_id in chosen]
