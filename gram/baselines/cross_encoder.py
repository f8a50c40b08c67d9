"""A cross-encoder that reads query and product together, over the first products of another engine.

The strongest common last step, and the slowest: every product costs a pass of the model when the query comes (Nogueira
& Cho, arXiv 1901.04085). Its row says what accuracy such a latency buys.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gram.baselines.base import Engine, How, TrainingData, catalogue_of, check_k, read_settings, write_meta
from gram.baselines.encoder import computing
from gram.baselines.training import DevSample, Negatives, Outcome, Pairs, Plan, features_of, fit, plan_for
from gram.errors import MissingExtra, ModelError, SettingError
from gram.evaluation.measures import Run, ranking
from gram.folders import new_folder
from gram.records import Hit, Product
from gram.text.fields import joined_text

TOKENS = 64
"""Query and product together; what is longer is cut."""

_RANKS = (1, 200)  # where negatives are taken: the products that it will have to tell apart
_RATE = 5e-5
_BATCH = 64  # pairs read at once
_DEV_QUERIES = 60
"""The model reads 100 products for each."""
_MIX = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # weights of the first engine's score beside the cross-encoder's


class First(NamedTuple):
    """The engine whose first `depth` products are reordered, and which fields of theirs the model reads."""

    engine: Engine
    fields: Sequence[str] = ("title",)
    depth: int = 100


class CrossEncoderReranker:
    """Reorders the first products of an engine; those behind keep their order.

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
        first: First,
        how: How,
    ) -> None:
        """Trains `model`, a path or hub id, with a new head, and writes a folder.

        Negatives are among the products that the engine ranks up to 200. `bf16` trains and reads many queries under
        autocast to bfloat16. `quick` takes a few steps, for trials. Raises SettingError for `depth` < 1 or no products,
        ModelError where a model cannot be loaded, and MissingExtra without the extra `bench`.
        """
        model, seed, quick, bf16, device = how
        if first.depth < 1:
            raise SettingError(f"A cross-encoder reorders at least 1 product, not {first.depth}.")
        products = catalogue_of(data)
        with new_folder(folder) as draft:
            settings: dict[str, Any] = {"fields": list(first.fields), "depth": first.depth, "seed": seed, "bf16": bf16}
            pairs = Pairs(products, data.log, seed)
            settings |= {"trained": pairs.from_log, "mix": 0.0}
            if pairs.from_log:
                encoder = _load_model(model, seed, device)
                dev = DevSample(data, products, seed, 10 if quick else _DEV_QUERIES)
                texts = [joined_text(product, first.fields) for product in products]
                engine = cls(first.engine, dict(zip(pairs.position, texts, strict=True)), encoder, settings)
                tuning = _Tuning(engine, dev)

                def find(queries: list[str], k: int) -> Iterable[Any]:
                    for found in first.engine.search_many({query: query for query in queries}, k).values():
                        yield np.array([pairs.position[p] for p in ranking(found)], dtype=np.int64), found

                plan = plan_for(pairs, quick, seed, bf16)
                outcome = _fit(encoder, pairs, texts, pairs.mine(find, _RANKS), plan, tuning.best if dev else None)
                settings |= outcome.settings(plan)
                if dev:
                    settings |= {"mix": tuning.mix(), "dev_of_first": dev.score(tuning.run)}
                encoder.save_pretrained(str(draft / "model"), create_model_card=False)
            write_meta(draft, "cross-encoder", settings, products)

    @classmethod
    def load(
        cls, folder: Path, products: Sequence[Product], first: Engine, device: str = "cpu"
    ) -> CrossEncoderReranker:
        """Opens a folder over an engine of the same catalogue; raises what `read_settings` does."""
        settings = read_settings(folder, "cross-encoder", products)
        model = _load_model(str(Path(folder) / "model"), settings["seed"], device) if settings["trained"] else None
        texts = {product.product_id: joined_text(product, settings["fields"]) for product in products}
        return cls(first, texts, model, settings)

    @property
    def name(self) -> str:
        return f"{self._first.name} + cross-encoder"

    @property
    def settings(self) -> dict[str, object]:
        return dict(self._settings)

    @property
    def index_bytes(self) -> int:
        """The first engine's, and the texts in UTF-8. Raises SettingError where the engine does not tell it."""
        size: Any = getattr(self._first, "index_bytes", None)
        if size is None:
            raise SettingError(f"The engine '{self._first.name}' does not tell the size of its index.")
        return int(size) + sum(len(text.encode()) for text in self._texts.values())

    def search(self, query: str, k: int = 10) -> list[Hit]:
        """The best `k` products, best first."""
        hits = {hit.product_id: hit for hit in self._first.search(query, self._depth_for(k))}
        scores = self._reorder({"": query}, {"": {product_id: hit.score for product_id, hit in hits.items()}})[""]
        return [Hit(product_id, scores[product_id], hits[product_id].title) for product_id in ranking(scores)[:k]]

    def search_many(self, queries: Mapping[str, str], k: int = 300) -> Run:
        """The run for many queries: query id → product id → score."""
        run = self._reorder(queries, self._first.search_many(queries, self._depth_for(k)))
        return {query_id: {p: scores[p] for p in ranking(scores)[:k]} for query_id, scores in run.items()}

    def _depth_for(self, k: int) -> int:
        check_k(k)
        return max(k, self._settings["depth"])

    def _reorder(self, queries: Mapping[str, str], run: Run) -> Run:
        if self._model is None:
            return run
        read = self._read(queries, run)
        return {query_id: self._mix(run[query_id], read[query_id], self._settings["mix"]) for query_id in queries}

    def _read(self, queries: Mapping[str, str], run: Run) -> Run:
        """The cross-encoder's logits of each query's first `depth` products.

        All pairs are batched by length; those of many queries are read as it was trained, in bfloat16 perhaps.
        """
        heads = {query_id: ranking(run[query_id])[: self._settings["depth"]] for query_id in queries}
        pairs = [
            (queries[query_id], self._texts[product_id]) for query_id, head in heads.items() for product_id in head
        ]
        if not pairs:
            return {query_id: {} for query_id in queries}
        many = len(queries) > 1
        bf16 = many and bool(self._settings.get("bf16"))
        with computing(bf16, self._model.device):
            logits = self._model.predict(
                pairs, batch_size=_BATCH, activation_fn=torch.nn.Identity(), show_progress_bar=many
            )
        read = iter(logits)
        return {query_id: {product_id: float(next(read)) for product_id in head} for query_id, head in heads.items()}

    def _mix(self, first: Mapping[str, float], read: Mapping[str, float], mix: float) -> dict[str, float]:
        order = ranking(first)
        ours = _scale(read[product_id] for product_id in order[: len(read)])
        others = _scale(first[product_id] for product_id in order[: len(read)])
        scores = dict(zip(order, (ours + mix * others).tolist(), strict=False))
        return scores | {product_id: -float(n) for n, product_id in enumerate(order) if n >= len(read)}


class _Tuning:
    """An engine's dev queries, found once and read at every checkpoint."""

    def __init__(self, engine: CrossEncoderReranker, dev: DevSample) -> None:
        self.engine, self.dev = engine, dev
        self.run = engine._first.search_many(dev.queries, engine._depth_for(100)) if dev else {}
        self._goals: dict[float, float] = {}

    def best(self) -> float:
        """The dev score under the best mix, by the model as it is now."""
        read = self.engine._read(self.dev.queries, self.run)
        for mix in _MIX:
            mixed = {q: self.engine._mix(self.run[q], read[q], mix) for q in self.dev.queries}
            self._goals[mix] = self.dev.score(mixed)
        return max(self._goals.values())

    def mix(self) -> float:
        """The best mix for the model as it is now."""
        self.best()
        return max(_MIX, key=self._goals.__getitem__)


def _fit(encoder: Any, pairs: Pairs, texts: Sequence[str], negatives: Negatives, plan: Plan, score: Any) -> Outcome:
    """Binary cross-entropy of a query with its clicked product, and with a hard negative."""

    def loss(rng: np.random.Generator, _: float) -> Tensor:
        batch = pairs.batch(plan.batch, rng, negatives, hard=1.0)
        rows = [(query, texts[position]) for query, position in zip(batch.queries * 2, batch.columns, strict=True)]
        labels = torch.arange(len(rows), device=encoder.device) < plan.batch
        logits = encoder(features_of(encoder, rows))["scores"].flatten()
        return torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), labels.float())

    return fit(encoder, [{"params": list(encoder.parameters()), "lr": _RATE}], loss, plan, score)


def _load_model(model: str, seed: int, device: str) -> Any:
    """A CrossEncoder by path or hub id; a head that the model lacks is drawn by `seed`."""
    try:
        from sentence_transformers import CrossEncoder
    except ImportError as error:
        raise MissingExtra("The cross-encoder", "bench") from error
    import torch

    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return CrossEncoder(model, num_labels=1, max_length=TOKENS, device=device)
    except (OSError, ValueError) as error:
        fix = "give a folder of a transformer, or a hub id while online"
        raise ModelError(f"The model '{model}' cannot be loaded: {str(error).splitlines()[0]} Fix: {fix}.") from error


def _scale(scores: Iterable[float]) -> np.ndarray:
    """In 0..1, shape (n,); all 0 where they are equal."""
    values = np.array(list(scores), dtype=np.float64)
    if not values.size or values.max() == values.min():
        return np.zeros_like(values)
    return (values - values.min()) / (values.max() - values.min())
