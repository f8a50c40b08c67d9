"""A cross-encoder that reads query and product together, over the first products of another engine.

The strongest common last step, and the slowest: every product costs a pass of the model when the query comes (Nogueira
& Cho, arXiv 1901.04085). Its row says what accuracy such a latency buys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from gram.baselines.base import Engine, Run, TrainingData
from gram.baselines.bm25 import field_text
from gram.baselines.dense import hard_negatives, logged_pairs, run_trainer, trainer_arguments
from gram.errors import MissingExtra, ModelError, SettingError
from gram.evaluation.measures import evaluate, ranking, relevant
from gram.folders import new_folder, read_json, write_json
from gram.records import Hit, Interaction, Product

PIECES = 64
"""Query and product together; what is longer is cut."""

_RANKS = (1, 200)  # where negatives are taken: the products that it will have to tell apart
_NEGATIVES = 3  # for each wanted product
_BATCH = 64
_MIX = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # weights of the first engine's score beside the cross-encoder's


class CrossEncoderReranker:
    """Reorders the first `depth` products of an engine; those behind keep their order.

    A product's score is the cross-encoder's plus `mix` times the first engine's, both brought to 0..1 within the query;
    dev chooses `mix`. Behind the first `depth`, scores are negative ranks. With an empty log there is nothing to train
    its head on: the first engine's order stays, and no model is kept.
    """

    def __init__(self, first: Engine, texts: Mapping[str, str], model: Any, settings: Mapping[str, Any]) -> None:
        """`texts` maps product ids to what the model reads; without a `model`, nothing is reordered."""
        self._first, self._texts, self._model, self._settings = first, texts, model, dict(settings)

    @classmethod
    def train(
        cls,
        folder: Path,
        data: TrainingData,
        first: Engine,
        *,
        model: str,
        fields: Sequence[str] = ("title",),
        depth: int = 100,
        seed: int = 0,
        quick: bool = False,
        bf16: bool = False,
        most_rows: int = 24_000,
    ) -> None:
        """Trains `model`, a path or hub id, with a new head, and writes a folder.

        Rows are a query and a wanted product, or one of three that `first` ranks up to 200 and the log does not link to
        the query; binary cross-entropy. At most `most_rows` of them are drawn, pairs by their weight. `bf16` trains
        and reads many queries under autocast to bfloat16. `quick` takes a few steps, for trials.

        Raises SettingError for `depth` < 1, ModelError where a model cannot be loaded, and MissingExtra without the
        extra `bench`.
        """
        if depth < 1:
            raise SettingError(f"A cross-encoder reorders at least 1 product, not {depth}.")
        rng = np.random.default_rng(seed)
        with new_folder(folder) as written:
            rows = labelled_pairs(data, first, fields, rng, 256 if quick else most_rows)
            settings: dict[str, object] = {
                "fields": list(fields),
                "depth": depth,
                "rows": len(rows),
                "seed": seed,
                "bf16": bf16,
            }
            if rows:
                encoder = _load_model(model, seed)
                _fit(encoder, rows, seed, bf16)
                encoder.save_pretrained(str(written / "model"), create_model_card=False)
                texts = {product.product_id: field_text(product, fields) for product in data.products}
                trained = cls(first, texts, encoder, {**settings, "mix": 0.0})
                settings |= trained._tune(data, rng, 10 if quick else 100)
            write_json(written / "meta.json", settings)

    @classmethod
    def load(cls, folder: Path, products: Sequence[Product], first: Engine) -> CrossEncoderReranker:
        """Opens a folder over an engine of the same catalogue. Raises DataError or ModelError for no such folder."""
        settings = read_json(Path(folder) / "meta.json")
        model = _load_model(str(Path(folder) / "model"), settings["seed"]) if settings["rows"] else None
        texts = {product.product_id: field_text(product, settings["fields"]) for product in products}
        return cls(first, texts, model, settings)

    @property
    def name(self) -> str:
        return f"{self._first.name} + cross-encoder"

    @property
    def settings(self) -> dict[str, object]:
        return dict(self._settings)

    @property
    def index_bytes(self) -> int:
        """The first engine's, and the texts in UTF-8. Raises SettingError where the engine does not tell its own."""
        size: Any = getattr(self._first, "index_bytes", None)
        if size is None:
            raise SettingError(f"The engine '{self._first.name}' does not tell the size of its index.")
        return int(size) + sum(len(text.encode()) for text in self._texts.values())

    def search(self, query: str, k: int = 10) -> list[Hit]:
        """The best `k` products, best first."""
        hits = {hit.product_id: hit for hit in self._first.search(query, self._fetched(k))}
        scores = self._reordered({"": query}, {"": {product_id: hit.score for product_id, hit in hits.items()}})[""]
        return [Hit(product_id, scores[product_id], hits[product_id].title) for product_id in ranking(scores)[:k]]

    def search_many(self, queries: Mapping[str, str], k: int = 300) -> Run:
        """The run for many queries: query id → product id → score."""
        run = self._reordered(queries, self._first.search_many(queries, self._fetched(k)))
        return {query_id: {p: scores[p] for p in ranking(scores)[:k]} for query_id, scores in run.items()}

    def _fetched(self, k: int) -> int:
        if k < 1:
            raise SettingError(f"k counts the products wanted: at least 1, not {k}.")
        return max(k, self._settings["depth"])

    def _reordered(self, queries: Mapping[str, str], run: Run) -> Run:
        if self._model is None:
            return run
        read = self._read(queries, run)
        return {query_id: self._mixed(run[query_id], read[query_id], self._settings["mix"]) for query_id in queries}

    def _read(self, queries: Mapping[str, str], run: Run) -> Run:
        """The cross-encoder's logits of each query's first `depth` products.

        All pairs are batched by length; those of many queries are read as it was trained, in bfloat16 perhaps.
        """
        import torch

        heads = {query_id: ranking(run[query_id])[: self._settings["depth"]] for query_id in queries}
        pairs = [
            (queries[query_id], self._texts[product_id]) for query_id, head in heads.items() for product_id in head
        ]
        if not pairs:
            return {query_id: {} for query_id in queries}
        many = len(queries) > 1
        bf16 = many and bool(self._settings.get("bf16"))
        with torch.autocast(self._model.device.type, dtype=torch.bfloat16, enabled=bf16):
            logits = self._model.predict(
                pairs, batch_size=_BATCH, activation_fn=torch.nn.Identity(), show_progress_bar=many
            )
        read = iter(logits)
        return {query_id: {product_id: float(next(read)) for product_id in head} for query_id, head in heads.items()}

    def _mixed(self, first: Mapping[str, float], read: Mapping[str, float], mix: float) -> dict[str, float]:
        order = ranking(first)
        own = _scaled(read[product_id] for product_id in order[: len(read)])
        others = _scaled(first[product_id] for product_id in order[: len(read)])
        scores = dict(zip(order, (own + mix * others).tolist(), strict=False))
        return scores | {product_id: -float(n) for n, product_id in enumerate(order) if n >= len(read)}

    def _tune(self, data: TrainingData, rng: np.random.Generator, most_queries: int) -> dict[str, object]:
        """The mix best on dev by nDCG@10 + R@10, on a sample: the model reads 100 products a query."""
        answered = sorted(set(relevant(data.dev_qrels)) & set(data.dev_queries))
        queries = {
            query_id: data.dev_queries[query_id] for query_id in rng.permutation(answered)[:most_queries].tolist()
        }
        if not queries:
            return {"mix": 0.0}
        qrels = {query_id: data.dev_qrels[query_id] for query_id in queries}
        run = self._first.search_many(queries, self._settings["depth"])
        read = self._read(queries, run)

        def goal(mix: float | None) -> float:
            mixed = run if mix is None else {q: self._mixed(run[q], read[q], mix) for q in queries}
            return sum(evaluate(qrels, mixed, ("nDCG@10", "R@10")).mean.values())

        goals = {mix: goal(mix) for mix in _MIX}
        chosen = max(_MIX, key=goals.__getitem__)
        return {"mix": chosen, "goal": goals[chosen], "goal_of_first": goal(None)}


def labelled_pairs(
    data: TrainingData, first: Engine, fields: Sequence[str], rng: np.random.Generator, most_rows: int
) -> list[tuple[str, str, float]]:
    """Query, product's text, and 1 for a wanted one, 0 for one of its negatives."""
    texts = {product.product_id: field_text(product, fields) for product in data.products}
    pairs, chance = logged_pairs(data)
    if not pairs:
        return []
    size = min(len(pairs), max(1, most_rows // (1 + _NEGATIVES)))
    drawn = [pairs[place] for place in rng.choice(len(pairs), size, replace=False, p=chance)]
    asked = {query for query, _ in drawn}
    log = [Interaction(query, product_id) for query, product_id in pairs if query in asked]
    negatives = hard_negatives(first, log, data.products, _RANKS)
    rows = []
    for query, wanted in drawn:
        rows.append((query, texts[wanted], 1.0))
        others = negatives[query]
        for place in rng.choice(len(others), min(_NEGATIVES, len(others)), replace=False) if others else ():
            rows.append((query, texts[others[place]], 0.0))
    return rows


def _fit(encoder: Any, rows: Sequence[tuple[str, str, float]], seed: int, bf16: bool) -> None:
    from datasets import Dataset
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    columns = ("query", "product", "label")
    with TemporaryDirectory() as scratch:
        trainer = CrossEncoderTrainer(
            model=encoder,
            args=CrossEncoderTrainingArguments(scratch, **trainer_arguments(seed, bf16)),
            train_dataset=Dataset.from_dict({c: [row[n] for row in rows] for n, c in enumerate(columns)}),
            loss=BinaryCrossEntropyLoss(encoder),
        )
        run_trainer(trainer, "Cross-encoder")


def _load_model(model: str, seed: int) -> Any:
    """A CrossEncoder by path or hub id; a head that the model lacks is drawn by `seed`."""
    try:
        from sentence_transformers import CrossEncoder
    except ImportError as error:
        raise MissingExtra("The cross-encoder", "bench") from error
    import torch

    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return CrossEncoder(model, num_labels=1, max_length=PIECES)
    except (OSError, ValueError) as error:
        fix = "give a folder of a transformer, or a hub id while online"
        raise ModelError(f"The model '{model}' cannot be loaded: {str(error).splitlines()[0]} Fix: {fix}.") from error


def _scaled(scores: Iterable[float]) -> np.ndarray:
    """In 0..1, shape (n,); all 0 where they are equal."""
    values = np.array(list(scores), dtype=np.float64)
    if not values.size or values.max() == values.min():
        return np.zeros_like(values)
    return (values - values.min()) / (values.max() - values.min())
