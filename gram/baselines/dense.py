"""A bi-encoder fine-tuned on the log: the vector engine that a search team would build today.

A sentence-transformers model, trained as its users do: in-batch and hard negatives under cross-entropy of the scaled
cosines (MultipleNegativesRankingLoss: Henderson et al., arXiv 1705.00652). Hard negatives are BM25's in the first half
of the steps, then the model's own, mined once.

Letters: N products, D dimensions, Q queries, B queries of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from gram.arrays import top_k
from gram.baselines.base import Found, How, Rival, TrainingData, catalogue_of, read_settings, write_meta
from gram.baselines.bm25 import BM25
from gram.baselines.encoder import computing
from gram.baselines.training import DevSample, Negatives, Pairs, Plan, contrastive, encode_batch, fit, plan_for
from gram.errors import MissingExtra, ModelError
from gram.evaluation.measures import Run, relevant
from gram.folders import new_folder
from gram.records import Product
from gram.text.fields import FIELDS, joined_text

FIELD_SETS: tuple[tuple[str, ...], ...] = (("title",), ("title", "brand", "category"), FIELDS)
"""What a product's text may be; dev chooses."""

TOKENS, TRAINED_TOKENS = 256, 32
"""A longer text is cut; the published MiniLM reads as much of one unless told otherwise. In training earlier, for a
batch is padded to its longest text."""

_BLOCK = 256  # queries scored at once
_RATE = 5e-5
_SCALE = 20.0  # of cosines, the loss's own default
_M, _EF_BUILT = 16, 200  # of the graph, hnswlib's own defaults
_EF = (100, 200, 400, 800)  # dev chooses
_LOSS_OF_GRAPH = 0.002  # of R@100


def nearest(queries: np.ndarray, vectors: np.ndarray, k: int) -> Iterator[Found]:
    """Of each query (Q, D) the `k` vectors (N, D) of the greatest product, exactly."""
    for start in range(0, len(queries), _BLOCK):
        for scores in queries[start : start + _BLOCK] @ vectors.T:  # (N,)
            yield top_k(scores, k)


class Exact:
    """Every product's vector against the query's. `at` gives vectors (n, D) of n positions."""

    file = "vectors.npy"

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._vectors = np.load(folder / self.file, allow_pickle=False).astype(np.float32)  # (N, D)

    def at(self, positions: np.ndarray) -> np.ndarray:
        return self._vectors[positions]

    def nearest(self, queries: np.ndarray, k: int) -> Iterator[Found]:
        return nearest(queries, self._vectors, k)


class Graph:
    """The same by an HNSW graph (Malkov & Yashunin, arXiv 1603.09320), which holds the vectors too."""

    file = "graph.hnsw"

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._size, self._ef = int(settings["products"]), int(settings["ef"])
        self._graph = _hnswlib().Index(space="ip", dim=int(settings["dimensions"]))
        self._graph.load_index(str(folder / self.file), max_elements=self._size)

    def at(self, positions: np.ndarray) -> np.ndarray:
        return np.asarray(self._graph.get_items(positions.tolist()), dtype=np.float32)

    def nearest(self, queries: np.ndarray, k: int) -> Iterator[Found]:
        k = min(k, self._size)
        self._graph.set_ef(max(self._ef, k))
        for query in queries:
            positions, distances = self._graph.knn_query(query, k=k)
            yield positions[0].astype(np.int64), 1 - distances[0]


class Dense(Rival):
    """A sentence-transformers model, and the vectors of all products, searched exactly.

    Where training does not help on the dev part, or there is neither a log nor a dev part, the model is the one given.
    """

    name = "dense"
    _index: ClassVar[type[Exact] | type[Graph]] = Exact

    def __init__(self, folder: Path, products: Sequence[Product], device: str = "cpu") -> None:
        """Opens what `train` wrote; `load` says which errors come."""
        super().__init__(products, read_settings(folder, Dense.name, products))
        self._positions = {product_id: position for position, product_id in enumerate(self._ids)}
        self._model = load_model(str(folder / "model"), device)
        self._store = self._index(folder, self._settings)
        self._bytes = (folder / self._index.file).stat().st_size
        self._encoded: tuple[list[str], np.ndarray] = ([], np.empty((0, 0), np.float32))

    @classmethod
    def train(
        cls,
        folder: Path,
        data: TrainingData,
        how: How,
        plan: Plan | None = None,
    ) -> None:
        """Fine-tunes `model`, a path or hub id, and writes a folder that both `Dense` and `DenseHNSW` load.

        Dev chooses the product's text (by the model as given), the rate, the checkpoint, and how far the graph is
        searched. A plan of no steps leaves the weights as they are. `bf16` trains and encodes the catalogue under
        autocast to bfloat16; `quick` takes a few steps, for trials. Raises ModelError for a model that cannot be
        loaded, SettingError for no products, and MissingExtra without the extra `bench`.
        """
        model, seed, quick, bf16, device = how
        _hnswlib()
        products = catalogue_of(data)
        with new_folder(folder) as draft:
            encoder = load_model(model, device)
            dev = DevSample(data, products, seed)
            sample = [products[i] for i in dev.positions]

            def score(fields: Sequence[str]) -> float:
                queries = encode(encoder, list(dev.queries.values()), "query", bf16)
                vectors = encode(encoder, [joined_text(p, fields) for p in sample], "document", bf16)
                return dev.score_found(nearest(queries, vectors, 100))

            by_fields = {fields: score(fields) if dev else 0.0 for fields in FIELD_SETS}
            fields = max(FIELD_SETS, key=lambda fields: by_fields[fields])
            settings: dict[str, object] = {"fields": fields, "best_step": 0, "seed": seed}
            settings["dev_by_fields"] = {"+".join(tried): value for tried, value in by_fields.items()}
            texts = [joined_text(product, fields) for product in products]
            pairs = Pairs(products, data.log, seed)
            plan = plan or plan_for(pairs, quick, seed, bf16)
            if plan.steps and pairs.rows and (pairs.from_log or dev):
                negatives = pairs.mine(BM25(products, fields=fields).find)
                tuning = _FineTuning(encoder, pairs, texts, negatives, bf16)
                settings |= tuning.fit(plan, (lambda: score(fields)) if dev else None)
            encoder.save_pretrained(str(draft / "model"), create_model_card=False)
            vectors = encode(encoder, texts, "document", bf16, progress=True).astype(np.float16)
            np.save(draft / Exact.file, vectors)
            ef, lost = _write_graph(draft / Graph.file, vectors.astype(np.float32), encoder, products, data, seed)
            settings |= {"M": _M, "ef": ef, "R@100 lost by the graph": lost}
            settings |= {"products": len(products), "dimensions": vectors.shape[1]}
            write_meta(draft, cls.name, settings, products)

    @classmethod
    def load(cls, folder: Path, products: Sequence[Product], device: str = "cpu") -> Dense:
        """Opens a folder. Raises DataError for none, IndexMismatch where it was made from other products."""
        return cls(Path(folder), products, device)

    @property
    def index_bytes(self) -> int:
        """The file that is searched: vectors in float16, or the graph with its vectors in float32."""
        return self._bytes

    def find(self, queries: Sequence[str], k: int) -> Iterator[Found]:
        """The nearest `k` of each query, by cosine."""
        return self._store.nearest(self._vectors_of(list(queries)), k)

    def score_many(self, queries: Mapping[str, str], product_ids: Mapping[str, Sequence[str]]) -> Run:
        """The scores of chosen products (query id → product ids), whether they would be found or not."""
        vectors = self._vectors_of(list(queries.values()))  # (Q, D)
        run: Run = {}
        for query_id, vector in zip(queries, vectors, strict=True):
            chosen = product_ids[query_id]
            positions = np.array([self._positions[product_id] for product_id in chosen], dtype=np.int64)
            scores = self._store.at(positions) @ vector if len(positions) else ()
            run[query_id] = dict(zip(chosen, map(float, scores), strict=True))
        return run

    def _vectors_of(self, queries: list[str]) -> np.ndarray:
        """(Q, D); the last ones are kept, for a hybrid searches and then scores."""
        known, vectors = self._encoded
        if known != queries:
            vectors = encode(self._model, queries, "query")
            self._encoded = queries, vectors
        return vectors


class DenseHNSW(Dense):
    """The same vectors searched by an HNSW graph, as vector databases do: fast, and nearly exact."""

    name = "dense-hnsw"
    _index = Graph


class _FineTuning:
    """One training of a model on pairs of queries and products' texts."""

    def __init__(self, encoder: Any, pairs: Pairs, texts: Sequence[str], negatives: Negatives, bf16: bool) -> None:
        self.encoder, self.pairs, self.texts, self.negatives, self.bf16 = encoder, pairs, texts, negatives, bf16

    def fit(self, plan: Plan, score: Callable[[], float] | None) -> dict[str, object]:
        """Trains; what there is to tell of it."""

        def loss(rng: np.random.Generator, _: float) -> Tensor:
            batch = self.pairs.batch(plan.batch, rng, self.negatives)
            queries = self._vectors(batch.queries, "query")  # (B, D)
            products = self._vectors([self.texts[i] for i in batch.columns], "document")  # (C, D)
            return contrastive(_SCALE * queries @ products.T, batch.ignored)

        groups = [{"params": list(self.encoder.parameters()), "lr": _RATE}]
        return fit(self.encoder, groups, loss, plan, score, self._mine).settings(plan)

    def _vectors(self, texts: Sequence[str], side: str) -> Tensor:
        """(B, D) unit vectors, with their gradient."""
        prompt = (self.encoder.prompts or {}).get(side) or ""
        longest = self.encoder.max_seq_length
        self.encoder.max_seq_length = min(TRAINED_TOKENS, longest)
        found = encode_batch(self.encoder, [prompt + text for text in texts])
        self.encoder.max_seq_length = longest
        return torch.nn.functional.normalize(found.float(), dim=-1)

    def _mine(self) -> None:
        vectors = encode(self.encoder, self.texts, "document", self.bf16, progress=True)
        self.negatives = self.pairs.mine(
            lambda queries, k: nearest(encode(self.encoder, queries, "query", self.bf16), vectors, k)
        )


def load_model(model: str, device: str = "cpu") -> Any:
    """A SentenceTransformer by path or hub id."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingExtra("The dense rival", "bench") from error
    try:
        loaded = SentenceTransformer(model, device=device)
    except (OSError, ValueError) as error:
        fix = "give a folder of a sentence-transformers model, or a hub id while online"
        raise ModelError(f"The model '{model}' cannot be loaded: {str(error).splitlines()[0]} Fix: {fix}.") from error
    loaded.max_seq_length = min(TOKENS, loaded.max_seq_length or TOKENS)
    return loaded


@torch.no_grad()
def encode(model: Any, texts: Sequence[str], side: str, bf16: bool = False, progress: bool = False) -> np.ndarray:
    """Unit vectors (n, D), float32. `side` is "query" or "document": some models have a prompt for each."""
    if not texts:
        return np.empty((0, model.get_embedding_dimension()), dtype=np.float32)
    ways = {"query": model.encode_query, "document": model.encode_document}
    with computing(bf16, model.device):
        found = ways[side](list(texts), batch_size=64, convert_to_tensor=True, show_progress_bar=progress)
    return torch.nn.functional.normalize(found.float(), dim=-1).cpu().numpy()


def _write_graph(
    path: Path, vectors: np.ndarray, encoder: Any, products: Sequence[Product], data: TrainingData, seed: int
) -> tuple[int, float]:
    """Writes the graph; the smallest ef that loses at most .002 of R@100 on dev, and what it loses."""
    answers = relevant({q: grades for q, grades in data.dev_qrels.items() if q in data.dev_queries})
    positions = {product.product_id: position for position, product in enumerate(products)}
    expected = [{positions[p] for p in row if p in positions} for row in answers.values()]
    queries = encode(encoder, [data.dev_queries[q] for q in answers], "query")
    k = min(100, len(vectors))

    def recall(found: Sequence[np.ndarray]) -> float:
        shares = [len(e & set(f.tolist())) / max(len(e), 1) for e, f in zip(expected, found, strict=True)]
        return sum(shares) / max(len(shares), 1)

    whole = recall([found for found, _ in nearest(queries, vectors, k)])
    graph = _hnswlib().Index(space="ip", dim=vectors.shape[1])
    graph.init_index(max_elements=len(vectors), M=_M, ef_construction=_EF_BUILT, random_seed=seed)
    graph.add_items(vectors, num_threads=1)  # by several, the graph differs each time
    graph.save_index(str(path))
    for ef in _EF:
        graph.set_ef(max(ef, k))
        lost = whole - recall([graph.knn_query(query, k=k)[0][0] for query in queries])
        if lost <= _LOSS_OF_GRAPH:
            break
    return ef, lost


def _hnswlib() -> Any:
    try:
        import hnswlib
    except ImportError as error:
        raise MissingExtra("The dense rival's graph", "bench") from error
    return hnswlib
