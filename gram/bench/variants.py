"""GRAM in the shape of its rivals, whole or without something.

A variant without some features either weighs the trained GRAM's other features anew, which takes minutes, or is trained
anew, where leaving the features out of the score would leave what they taught the encoder in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gram.arrays import top_k
from gram.baselines.base import TrainingData
from gram.bench.workshop import Options
from gram.evaluation.measures import Run
from gram.folders import new_folder, read_json
from gram.ranking.features import other_groups
from gram.ranking.scorer import FILE, Scorer
from gram.records import Hit

QUICK_STEPS = 6
JOINT = "joint.safetensors"
"""Weights of GRAM's joint training, from which variants of what comes after it begin."""
FILES = {
    "codes": ("lexical.", "expansion.", "compound.", "trie.", "code_rows.", "slots."),
    "vectors": ("dense.", "sketch."),
    "tokens": ("token_vectors.",),
    "words": ("bm25.", "titles."),
}
"""What the files of an index begin with that only one group of features reads."""


@dataclass(frozen=True)
class Variant:
    """GRAM without some features or groups of them, or with other settings of training (then it is trained anew)."""

    name: str
    without: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    alignment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trained(self) -> bool:
        return bool(self.training or self.alignment)


NO_CODES = Variant("everything-but-codes", ("codes",), {"code_losses": False}, {"steps": 0})
ALL_BUT_CODES = Variant("all-but-codes", ("codes",))
CODES_AND_WORDS = Variant("codes-and-words", other_groups(("codes", "words")))
CODES_ALONE = Variant("codes-alone", other_groups(("codes",)))


class Gram:
    """An engine that `train_gram` made; with another scorer than its model's where one is given."""

    name = "gram"

    def __init__(
        self, folder: Path, without: Sequence[str] = (), scorer: Scorer | None = None, device: str = "cpu"
    ) -> None:
        """`without` names the groups of features that the scorer is deaf to."""
        from gram.search import Searcher

        self.folder, self.without = folder, tuple(without)
        searcher = Searcher.load(folder / "index", folder / "model", device)
        self.searcher = searcher if scorer is None else searcher.with_scorer(scorer)

    def search(self, query: str, k: int = 10) -> list[Hit]:
        return self.searcher.search(query, k)

    def search_many(self, queries: Mapping[str, str], k: int = 300) -> Run:
        return self.searcher.search_many(queries, k)

    @property
    def settings(self) -> dict[str, object]:
        training = read_json(self.folder / "model" / "config.json")["settings"]["training"]
        return {"training": training, "scorer": self.searcher.scorer.by_name(), "without": list(self.without)}

    @property
    def index_bytes(self) -> int:
        """All of the index folder but what only left-out features read, and the product table, which other engines
        need as well to show titles."""
        unread = ("products.", *(start for group in self.without for start in FILES.get(group, ())))
        files = [file for file in (self.folder / "index").iterdir() if not file.name.startswith(unread)]
        return sum(file.stat().st_size for file in files)


class ExportedCodes:
    """The vectors of `gram export`, scored by the dot product and nothing else, as an engine of sparse vectors does."""

    name = "codes-exported"

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        from gram.export import product_vectors
        from gram.index.postings import Postings

        self.searcher = Gram(folder, device=device).searcher
        self.index = self.searcher.index
        vectors = product_vectors(self.index, np.arange(self.index.n_products))
        n_keys = max(self.index.lexical.n_keys, self.index.expansion.n_keys)
        self.postings = Postings.build(vectors.key, vectors.rows(), vectors.weight, n_keys)

    def search(self, query: str, k: int = 10) -> list[Hit]:
        found = self.search_many({"": query}, k)[""]
        table = self.index.table
        return [Hit(product_id, score, table.title(table.row(product_id))) for product_id, score in found.items()]

    def search_many(self, queries: Mapping[str, str], k: int = 300) -> Run:
        from gram.export import query_vector

        run = {}
        represented = self.searcher.represent(list(queries.values()), compound=False)
        for query_id, query in zip(queries, represented, strict=True):
            vector = query_vector(query)
            known = vector.key < self.postings.n_keys
            scores = self.postings.score(vector.key[known], vector.weight[known], self.index.n_products)
            found = np.flatnonzero(scores > 0)
            rows, best = top_k(scores[found], k, found)
            run[query_id] = dict(zip(self.index.table.ids[rows].tolist(), best.tolist(), strict=True))
        return run

    @property
    def settings(self) -> dict[str, object]:
        return {"entries": len(self.postings), "entries_a_product": len(self.postings) / max(self.index.n_products, 1)}

    @property
    def index_bytes(self) -> int:
        """An id of four bytes and a weight of four an entry."""
        return 8 * len(self.postings)


def train_gram(
    folder: Path, data: TrainingData, options: Options, variant: Variant | None = None, joint: Path | None = None
) -> None:
    """Trains, from where a run that was stopped had come, and indexes, as `gram train` and `gram index` do.

    `joint` names a file of joint training's weights, taken over where it is there, else written.
    """
    from gram.indexing import make_index
    from gram.training.co_alignment import CoAlignmentSettings
    from gram.training.joint import TrainingSettings
    from gram.training.pipeline import train
    from gram.training.run import Settings

    variant = variant or Variant("gram")
    training = replace(TrainingSettings(seed=options.seed, steps=options.steps), **variant.training)
    alignment = replace(CoAlignmentSettings(), **variant.alignment)
    if options.quick:
        training = replace(training, steps=QUICK_STEPS, co_training=min(2, training.co_training))
        alignment = replace(alignment, steps=min(2, alignment.steps))
    settings = Settings(
        backbone=options.model,
        device=options.device,
        training=training,
        alignment=alignment,
        without=variant.without,
    )
    model = folder / "model"
    folder.mkdir(parents=True, exist_ok=True)
    if not (model / "config.json").is_file():
        begun = (folder / "model.work").is_dir()
        train(data.products, data.log, model, settings, resume=begun, joint=joint)
    make_index(model, data.products, folder / "index", options.device)


def weigh_anew(folder: Path, gram: Path, data: TrainingData, options: Options, variant: Variant) -> None:
    """Writes the scorer of the trained GRAM in the folder `gram` without a variant's groups of features.

    It is fitted on the interactions that GRAM's scorer was fitted on, to candidates that the other features found, and
    begins with the declared weights of these, which it keeps where there is no such interaction.
    """
    from gram.training.scoring import fit_groups

    searcher, groups = Gram(gram, device=options.device).searcher, other_groups(variant.without)
    scorer = fit_groups(searcher, data.log, options.seed, {variant.name: groups})[variant.name]
    with new_folder(folder, marker=FILE) as draft:
        scorer.save(draft)
