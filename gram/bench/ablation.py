"""What each part of GRAM is worth: the benchmark's test queries without it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from gram.bench.variants import JOINT, Gram, Variant, train_gram
from gram.bench.workshop import Workshop
from gram.coder.base import QueryRepresentation
from gram.data.log import Qrels
from gram.evaluation.measures import Run, evaluate, relevant
from gram.folders import write_json
from gram.ranking.features import NAMES, columns
from gram.ranking.scorer import Scorer
from gram.search import Searcher
from gram.training.scoring import fit_among

log = logging.getLogger("gram.bench")

MEASURES = ("R@10", "R@100", "R@300", "nDCG@10")
DEPTH = 300
WHOLE = "all features"
EXPANSION = tuple(name for name in NAMES if "expansion" in name)

VARIANTS = (
    Variant("without codes", ("codes",)),
    Variant("without expansion", EXPANSION),
    Variant("without near codes", ("soft_share",)),
    Variant("without vectors of codes", ("code_cosine", "prf_code_cosine")),
    Variant("without vectors", ("vectors",)),
    Variant("without tokens", ("tokens",)),
    Variant("without vectors and tokens", ("vectors", "tokens")),
    Variant("without words", ("words",)),
    Variant("with co-training", training={"co_training": 150}),
)


def ablate(workshop: Workshop, queries: Mapping[str, str], qrels: Qrels) -> None:
    """Measures every variant that `figures/ablation` lacks.

    Features are left out twice: with their weights set to 0 and the others as they were, and with the others fitted
    anew on the dev part, which is compared with all features fitted so. What weighs nothing is left out once only, and
    compound codes, which no fit weighs, only where they weigh something. Without a dev part nothing is fitted. What
    fitting is worth, the default weights tell.
    """
    for variant in VARIANTS:
        if variant.trained and not _path(workshop, variant.name).is_file():
            folder = workshop.folder_of(f"gram {variant.name}".replace(" ", "-"))
            train_gram(folder, workshop.data, workshop.options, variant, workshop.folder_of("gram") / JOINT)
            _keep(
                workshop,
                variant.name,
                "trained",
                Gram(folder, device=workshop.options.device).search_many(queries, DEPTH),
                qrels,
            )
    if _path(workshop, "done").is_file():
        return
    searcher = Gram(workshop.folder_of("gram"), device=workshop.options.device).searcher
    represented = dict(zip(queries, searcher.represent(list(queries.values()), compound=False), strict=True))

    def measure(name: str, way: str, scorer: Scorer) -> None:
        _keep(workshop, name, way, search(searcher, represented, scorer), qrels)

    measure("without a fitted scorer", "default weights", Scorer.default())
    dev = relevant(workshop.data.dev_qrels)
    dev_queries = searcher.represent([workshop.data.dev_queries[q] for q in dev], compound=False)
    clicks = [dict.fromkeys(product_ids, 1.0) for product_ids in dev.values()]
    for variant in (Variant(WHOLE), *VARIANTS):
        if variant.trained:
            continue
        if searcher.scorer.weights[columns(variant.without)].any():
            measure(variant.name, "weight 0", searcher.scorer.without(variant.without))
        if dev:
            scorer = fit_among(
                searcher.index, dev_queries, clicks, workshop.options.seed, ("compound", *variant.without)
            )
            measure(variant.name, "refitted", scorer)
    write_json(_path(workshop, "done"), {})


def search(searcher: Searcher, represented: Mapping[str, QueryRepresentation], scorer: Scorer) -> Run:
    """The run of represented queries (by id) under other weights: `Searcher.search_many` without reading them again."""
    weighing = searcher.with_scorer(scorer)
    return {query_id: weighing.rank(query, DEPTH) for query_id, query in represented.items()}


def _keep(workshop: Workshop, name: str, way: str, run: Run, qrels: Qrels) -> None:
    result = evaluate(qrels, run, MEASURES)
    figures = {"name": name, "way": way, "mean": result.mean, "per_query": result.per_query}
    write_json(_path(workshop, name if way == "trained" else f"{name} {way}"), figures)
    log.info("gram %s (%s): %s", name, way, ", ".join(f"{m} {v:.3f}" for m, v in result.mean.items()))


def _path(workshop: Workshop, name: str) -> Path:
    return workshop.folder / "figures" / "ablation" / f"{re.sub('[^a-z0-9]+', '-', name.lower())}.json"
