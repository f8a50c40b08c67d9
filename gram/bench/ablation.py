"""What each part of GRAM is worth: the benchmark's test queries without it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gram.bench.rows import Gram, Workshop
from gram.data.log import Qrels
from gram.evaluation.measures import Run, evaluate, threshold
from gram.folders import write_json
from gram.index.titles import KINDS as TITLE_KINDS
from gram.index.token_vectors import KINDS as PIECE_KINDS
from gram.ranking.candidates import EVIDENCE, CodedQuery, gather
from gram.ranking.scorer import COMPARED, Scorer, fit
from gram.search import Searcher

log = logging.getLogger("gram.bench")

MEASURES = ("R@10", "R@100", "R@300", "nDCG@10")
DEPTH = 300
GENERATED = ("own_written", "written_own", "written_written")
COVERAGE = ("covered", "all_covered", "numbers", "contradicted")


@dataclass(frozen=True)
class Variant:
    """GRAM without something: kinds of evidence, or with other settings of training (then it is trained anew)."""

    name: str
    without: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    alignment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trained(self) -> bool:
        return bool(self.training or self.alignment)


VARIANTS = (
    *(
        Variant(f"without {kind}", (kind,))
        for kind in EVIDENCE
        if kind not in ("deep", "value", *TITLE_KINDS, *PIECE_KINDS)
    ),
    Variant("without titles", TITLE_KINDS),
    Variant("without late interaction", PIECE_KINDS),
    Variant("without vectors and late interaction", ("vectors", "alike", *PIECE_KINDS)),
    Variant("without generated attributes", GENERATED),
    Variant("without codes", ("own_own", *GENERATED, "deep")),
    Variant("without coverage", COVERAGE),
    Variant("without keywords and coverage", ("words", *COVERAGE)),
    Variant("with co-training", training={"co_training": 150}),
    Variant("without co-alignment", alignment={"steps": 0}),
)
"""`value` has no weight unless the shop gives it one; `deep` has none, for it added nothing."""


def ablate(workshop: Workshop, queries: Mapping[str, str], qrels: Qrels) -> None:
    """Measures every variant that `figures/ablation` lacks.

    A kind of evidence is left out twice: with its weight set to 0 and the others as they were, and with the others
    fitted again, on the dev part, which is compared with all evidence fitted so. A kind that weighs nothing is left
    out once only. Without a dev part nothing is fitted again. What fitting is worth, the default weights tell.
    """
    todo = [v for v in VARIANTS if v.trained and not _path(workshop, v.name).is_file()]
    for variant in todo:
        folder = workshop.place(f"gram {variant.name}".replace(" ", "-"))
        Gram.train(folder, workshop.data, workshop.options, variant, workshop.place("gram"))
        _keep(workshop, variant.name, "trained", Gram(folder).search_many(queries, DEPTH), qrels)
    if _path(workshop, "done").is_file():
        return
    searcher = Gram(workshop.place("gram")).searcher
    coded = dict(zip(queries, searcher.code(list(queries.values())), strict=True))
    _keep(workshop, "without a fitted scorer", "default weights", search(searcher, coded, Scorer.default()), qrels)
    refitting = Refitting(searcher, workshop.data.dev_queries, workshop.data.dev_qrels, workshop.options.seed)
    if refitting.coded:
        found = search(searcher, coded, refitting.scorer(()))
        _keep(workshop, "all evidence", "refitted", found, qrels)
    for variant in VARIANTS:
        if variant.trained:
            continue
        if searcher.scorer.weights[np.isin(EVIDENCE, variant.without)].any():
            found = search(searcher, coded, searcher.scorer.without(variant.without))
            _keep(workshop, variant.name, "weight 0", found, qrels)
        if refitting.coded:
            _keep(workshop, variant.name, "refitted", search(searcher, coded, refitting.scorer(variant.without)), qrels)
    write_json(_path(workshop, "done"), {})


def search(searcher: Searcher, coded: Mapping[str, CodedQuery], scorer: Scorer) -> Run:
    """The run of coded queries (by id) under other weights: `Searcher.search_many` without coding them again."""
    weighing = searcher.with_scorer(scorer)
    return {query_id: weighing.found(query, DEPTH) for query_id, query in coded.items()}


class Refitting:
    """Judged queries, to fit a scorer to with any kinds of evidence left out."""

    def __init__(self, searcher: Searcher, queries: Mapping[str, str], qrels: Qrels, seed: int) -> None:
        self.searcher, self.seed, least = searcher, seed, threshold(qrels)
        self.coded = searcher.code(list(queries.values()), deep=False) if queries else []
        self.wanted = [{p for p, g in qrels.get(q, {}).items() if g >= least} for q in queries]

    def scorer(self, without: Sequence[str]) -> Scorer:
        """The scorer fitted as in training, to candidates found without these kinds too."""
        first = self.searcher.scorer.without(without).finding
        found = [gather(self.searcher.index, query, first, keep=COMPARED) for query in self.coded]
        ids = self.searcher.index.table.ids
        gains = [
            np.array([i in wanted for i in ids[f.positions].tolist()], dtype=np.float32)
            for f, wanted in zip(found, self.wanted, strict=True)
        ]
        left_out = (*without, "deep")
        return fit([f.features for f in found], gains, first=first, without=left_out, seed=self.seed).without(left_out)


def _keep(workshop: Workshop, name: str, way: str, run: Run, qrels: Qrels) -> None:
    result = evaluate(qrels, run, MEASURES)
    figures = {"name": name, "way": way, "mean": result.mean, "per_query": result.per_query}
    write_json(_path(workshop, name if way == "trained" else f"{name} {way}"), figures)
    log.info("gram %s (%s): %s", name, way, ", ".join(f"{m} {v:.3f}" for m, v in result.mean.items()))


def _path(workshop: Workshop, name: str) -> Any:
    return workshop.folder / "figures" / "ablation" / f"{re.sub('[^a-z0-9]+', '-', name.lower())}.json"
