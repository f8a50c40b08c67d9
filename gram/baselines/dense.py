"""A bi-encoder fine-tuned on the log: the vector engine that a search team would build today.

Trained with sentence-transformers as its users do: triplets of query, wanted product and hard negative, in-batch
negatives (MultipleNegativesRankingLoss: Henderson et al., arXiv 1705.00652), no text twice in a batch.

Letters: N products, D dimensions, Q queries, k hits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, TypeAlias

import numpy as np
from tqdm import tqdm

from gram.arrays import top_k
from gram.baselines.base import Engine, Run, TrainingData, fingerprint
from gram.baselines.bm25 import BM25, field_text
from gram.baselines.bm25 import FIELDS as ALL_FIELDS
from gram.errors import IndexFolderError, MissingExtra, ModelError, SettingError
from gram.evaluation.measures import evaluate, relevant
from gram.folders import new_folder, read_json, write_json
from gram.records import Hit, Interaction, Product

FIELDS: tuple[tuple[str, ...], ...] = (("title",), ("title", "brand", "category"), ALL_FIELDS)
"""What a product's text may be; dev chooses."""

PIECES, TRAINED_PIECES = 64, 32
"""A longer text is cut. In training earlier, for a batch is padded to its longest text."""

_BATCH, _BLOCK = 64, 256
_RATE = 5e-5
_RANKS = (15, 200)  # of BM25, where hard negatives are taken: above 15 stand too many that are wanted but not logged
_M, _EF_BUILT = 16, 200  # of the graph, hnswlib's own defaults
_EF = (100, 200, 400, 800)  # dev chooses
_LOSS_OF_GRAPH = 0.002  # of R@100

Found: TypeAlias = tuple[np.ndarray, np.ndarray]
"""Places in the catalogue and their scores, best first, at most k of each."""


class Exact:
    """Every product's vector against the query's. `at` gives vectors (n, D) of n places."""

    file = "vectors.npy"

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._vectors = np.load(folder / self.file, allow_pickle=False).astype(np.float32)  # (N, D)

    def at(self, places: np.ndarray) -> np.ndarray:
        return self._vectors[places]

    def nearest(self, queries: np.ndarray, k: int) -> Iterator[Found]:
        for start in range(0, len(queries), _BLOCK):
            for scores in queries[start : start + _BLOCK] @ self._vectors.T:  # (N,)
                yield top_k(scores, k)


class Graph:
    """The same by an HNSW graph (Malkov & Yashunin, arXiv 1603.09320), which holds the vectors too."""

    file = "graph.hnsw"

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._size, self._ef = int(settings["products"]), int(settings["ef"])
        self._graph = _hnswlib().Index(space="ip", dim=int(settings["dimensions"]))
        if self._size:
            self._graph.load_index(str(folder / self.file), max_elements=self._size)

    def at(self, places: np.ndarray) -> np.ndarray:
        return np.asarray(self._graph.get_items(places.tolist()), dtype=np.float32)

    def nearest(self, queries: np.ndarray, k: int) -> Iterator[Found]:
        k = min(k, self._size)
        if not k:
            yield from ((np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries)
            return
        self._graph.set_ef(max(self._ef, k))
        for query in queries:
            places, distances = self._graph.knn_query(query, k=k)
            yield places[0].astype(np.int64), 1 - distances[0]


class Dense:
    """A sentence-transformers model, and the vectors of all products, searched exactly.

    With an empty log, or where training does not help on the dev part, the model is the one given: nothing is trained.
    """

    name = "dense"
    _index: ClassVar[type[Exact] | type[Graph]] = Exact

    def __init__(self, folder: Path, products: Sequence[Product]) -> None:
        """Opens what `train` wrote; `load` says which errors come."""
        self._settings: dict[str, Any] = read_json(folder / "meta.json")
        by_id = sorted(products, key=lambda product: product.product_id)
        if self._settings["catalogue"] != fingerprint(by_id):
            raise IndexFolderError(f"{folder} was made from other products. Fix: give the catalogue it was trained on.")
        self._ids = [product.product_id for product in by_id]
        self._titles = [product.title for product in by_id]
        self._places = {product_id: place for place, product_id in enumerate(self._ids)}
        self._model = load_model(str(folder / "model"))
        self._store = self._index(folder, self._settings)
        self._bytes = (folder / self._index.file).stat().st_size
        self._encoded: tuple[list[str], np.ndarray] = ([], np.empty((0, 0), np.float32))

    @classmethod
    def train(
        cls,
        folder: Path,
        data: TrainingData,
        *,
        model: str,
        seed: int = 0,
        quick: bool = False,
        bf16: bool = False,
        most_rows: int = 36_000,
    ) -> None:
        """Fine-tunes `model`, a path or hub id, and writes a folder that both `Dense` and `DenseHNSW` load.

        Dev chooses the product's text (by the model as given) and whether to train at all, by nDCG@10 + R@100, and how
        far the graph is searched. Training goes twice over the log's pairs, each time with another hard negative, or
        over `most_rows` of them drawn by weight. `bf16` trains and encodes the catalogue under autocast to bfloat16.
        `quick` takes a few steps, for trials. Raises ModelError for a model that cannot be loaded, and MissingExtra
        without the extra `bench`.
        """
        _hnswlib()
        by_id = sorted(data.products, key=lambda product: product.product_id)
        rng = np.random.default_rng(seed)
        with new_folder(folder) as written:
            encoder = load_model(model)
            judge = _Judge(data, rng, *((50, 500) if quick else (500, 6000)))
            goals = {fields: judge.goal(encoder, fields, bf16) for fields in FIELDS}
            fields = max(FIELDS, key=lambda fields: goals[fields])
            rows = triplets(data, fields, rng, 256 if quick else most_rows)
            goal = goals[fields]
            if rows:
                before = {name: value.clone() for name, value in encoder.state_dict().items()}
                _fit(encoder, rows, seed, bf16)
                goal = judge.goal(encoder, fields, bf16)
                if goal < goals[fields]:
                    encoder.load_state_dict(before)
            encoder.save_pretrained(str(written / "model"), create_model_card=False)
            texts = [field_text(product, fields) for product in by_id]
            vectors = encode(encoder, texts, "document", bf16, progress=True).astype(np.float16)
            np.save(written / Exact.file, vectors)
            ef, lost = _write_graph(written / Graph.file, vectors.astype(np.float32), encoder, by_id, data, seed)
            settings: dict[str, object] = {
                "fields": fields,
                "goal_by_fields": {"+".join(tried): goals[tried] for tried in FIELDS},
                "goal_after_training": goal,
                "rows": len(rows),
                "seed": seed,
                "M": _M,
                "ef": ef,
                "R@100 lost by the graph": lost,
                "products": len(by_id),
                "dimensions": vectors.shape[1],
                "catalogue": fingerprint(by_id),
            }
            write_json(written / "meta.json", settings)

    @classmethod
    def load(cls, folder: Path, products: Sequence[Product]) -> Dense:
        """Opens a folder. Raises DataError for none, IndexFolderError where it was made from other products."""
        return cls(Path(folder), products)

    @property
    def settings(self) -> dict[str, object]:
        return dict(self._settings)

    @property
    def index_bytes(self) -> int:
        """The file that is searched: vectors in float16, or the graph with its vectors in float32."""
        return self._bytes

    def search(self, query: str, k: int = 10) -> list[Hit]:
        """The nearest `k` products, by cosine."""
        ((places, scores),) = self._nearest([query], k)
        return [Hit(self._ids[i], float(s), self._titles[i]) for i, s in zip(places, scores, strict=True)]

    def search_many(self, queries: Mapping[str, str], k: int = 300) -> Run:
        """The run for many queries: query id → product id → cosine."""
        found = self._nearest(list(queries.values()), k)
        return {
            query_id: {self._ids[i]: float(s) for i, s in zip(places, scores, strict=True)}
            for query_id, (places, scores) in zip(queries, found, strict=True)
        }

    def score_many(self, queries: Mapping[str, str], product_ids: Mapping[str, Sequence[str]]) -> Run:
        """The scores of chosen products (query id → product ids), whether they would be found or not."""
        vectors = self._vectors_of(list(queries.values()))  # (Q, D)
        run: Run = {}
        for query_id, vector in zip(queries, vectors, strict=True):
            wanted = product_ids[query_id]
            places = np.array([self._places[product_id] for product_id in wanted], dtype=np.int64)
            scores = self._store.at(places) @ vector if len(places) else ()
            run[query_id] = dict(zip(wanted, map(float, scores), strict=True))
        return run

    def _nearest(self, queries: list[str], k: int) -> list[Found]:
        if k < 1:
            raise SettingError(f"k counts the products wanted: at least 1, not {k}.")
        return list(self._store.nearest(self._vectors_of(queries), k))

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


def load_model(model: str) -> Any:
    """A SentenceTransformer by path or hub id."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingExtra("The dense rival", "bench") from error
    try:
        loaded = SentenceTransformer(model)
    except (OSError, ValueError) as error:
        fix = "give a folder of a sentence-transformers model, or a hub id while online"
        raise ModelError(f"The model '{model}' cannot be loaded: {str(error).splitlines()[0]} Fix: {fix}.") from error
    loaded.max_seq_length = min(PIECES, loaded.max_seq_length or PIECES)
    return loaded


def encode(model: Any, texts: Sequence[str], side: str, bf16: bool = False, progress: bool = False) -> np.ndarray:
    """Unit vectors (n, D), float32. `side` is "query" or "document": some models have a prompt for each."""
    import torch

    if not texts:
        return np.empty((0, model.get_embedding_dimension()), dtype=np.float32)
    ways = {"query": model.encode_query, "document": model.encode_document}
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16):
        found = ways[side](list(texts), batch_size=_BATCH, convert_to_tensor=True, show_progress_bar=progress)
    return torch.nn.functional.normalize(found.float(), dim=-1).cpu().numpy()


def hard_negatives(
    engine: Engine, log: Sequence[Interaction], products: Sequence[Product], ranks: tuple[int, int]
) -> dict[str, list[str]]:
    """Query → products that the engine ranks there (from 1, both ends included), best first.

    Left out are those that the log links to the query, and those of the same title as one of these.
    """
    titles = {product.product_id: product.title.lower() for product in products}
    wanted: dict[str, set[str]] = {}
    for interaction in log:
        wanted.setdefault(interaction.query, set()).add(titles[interaction.product_id])
    run = engine.search_many({query: query for query in wanted}, ranks[1])
    return {q: [p for p in list(run[q])[ranks[0] - 1 :] if titles[p] not in wanted[q]] for q in wanted}


def logged_pairs(data: TrainingData) -> tuple[list[tuple[str, str]], np.ndarray]:
    """The log's pairs of query and product id, each once, and how likely each is to be drawn: its share of weight."""
    known = {product.product_id for product in data.products}
    weights: dict[tuple[str, str], float] = {}
    for i in data.log:
        if i.product_id in known:
            weights[i.query, i.product_id] = weights.get((i.query, i.product_id), 0.0) + i.weight
    return list(weights), np.array(list(weights.values())) / (sum(weights.values()) or 1.0)


def triplets(
    data: TrainingData, fields: Sequence[str], rng: np.random.Generator, most_rows: int
) -> list[tuple[str, str, str]]:
    """Texts of query, wanted product and hard negative; where BM25 finds no negative, any other product is one."""
    texts = {product.product_id: field_text(product, fields) for product in data.products}
    pairs, chance = logged_pairs(data)
    if not pairs or len(texts) < 2:
        return []
    ids = list(texts)
    engine = BM25(data.products, fields=fields)
    log = [Interaction(query, product_id) for query, product_id in pairs]
    negatives = hard_negatives(engine, log, data.products, _RANKS)
    size = min(len(pairs), most_rows)
    passes = [rng.choice(len(pairs), size, replace=False, p=chance) for _ in range(2)]
    rows = []
    for place in np.concatenate(passes)[:most_rows]:
        query, wanted = pairs[place]
        others = negatives[query] or [product_id for product_id in ids if texts[product_id] != texts[wanted]]
        if others:
            rows.append((query, texts[wanted], texts[others[rng.integers(len(others))]]))
    return rows


def run_trainer(trainer: Any, label: str) -> None:
    """Trains with one progress bar, on stderr."""
    from transformers import PrinterCallback, ProgressCallback, TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar = tqdm(total=state.max_steps, desc=label, unit=" steps")

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar.update()

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.bar.close()

    for callback in (PrinterCallback, ProgressCallback):  # they write to stdout
        trainer.remove_callback(callback)
    trainer.add_callback(Watch())
    trainer.train()


def trainer_arguments(seed: int, bf16: bool, rate: float = _RATE, batch: int = _BATCH) -> dict[str, Any]:
    """What every training here has in common: one pass, warm-up over a tenth, nothing written or reported."""
    import torch

    return {
        "num_train_epochs": 1,
        "per_device_train_batch_size": batch,
        "learning_rate": rate,
        "warmup_steps": 0.1,
        "seed": seed,
        "bf16": bf16,
        "use_cpu": not torch.cuda.is_available(),
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "dataloader_pin_memory": False,
    }


def _fit(encoder: Any, rows: Sequence[tuple[str, str, str]], seed: int, bf16: bool) -> None:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    columns = ("query", "positive", "negative")
    prompts = {side: (encoder.prompts or {}).get(side) or "" for side in ("query", "document")}
    longest = encoder.max_seq_length
    encoder.max_seq_length = min(TRAINED_PIECES, longest)
    with TemporaryDirectory() as scratch:
        arguments = SentenceTransformerTrainingArguments(
            scratch,
            batch_sampler="no_duplicates",
            prompts=dict(zip(columns, (prompts["query"], prompts["document"], prompts["document"]), strict=True)),
            **trainer_arguments(seed, bf16),
        )
        trainer = SentenceTransformerTrainer(
            model=encoder,
            args=arguments,
            train_dataset=Dataset.from_dict({c: [row[n] for row in rows] for n, c in enumerate(columns)}),
            loss=MultipleNegativesRankingLoss(encoder),
        )
        run_trainer(trainer, "Dense")
    encoder.max_seq_length = longest


class _Judge:
    """Dev queries, and a part of the catalogue to find their products in: all judged ones, and others by chance."""

    def __init__(self, data: TrainingData, rng: np.random.Generator, most_queries: int, most_products: int) -> None:
        answered = sorted(set(relevant(data.dev_qrels)) & set(data.dev_queries))
        chosen = sorted(rng.permutation(answered)[:most_queries].tolist())
        self._queries = {query_id: data.dev_queries[query_id] for query_id in chosen}
        self._qrels = {query_id: data.dev_qrels[query_id] for query_id in chosen}
        judged = {product_id for grades in self._qrels.values() for product_id in grades}
        first = {
            p.product_id: (p.product_id not in judged, c)
            for p, c in zip(data.products, rng.random(len(data.products)), strict=True)
        }
        self._products = sorted(data.products, key=lambda p: first[p.product_id])[: max(most_products, len(judged))]

    def goal(self, model: Any, fields: Sequence[str], bf16: bool) -> float:
        """nDCG@10 + R@100; 0 without dev queries, so that the first text and the trained weights are taken."""
        if not self._queries:
            return 0.0
        vectors = encode(model, [field_text(product, fields) for product in self._products], "document", bf16)
        queries = encode(model, list(self._queries.values()), "query", bf16)
        run: Run = {}
        for query_id, scores in zip(self._queries, queries @ vectors.T, strict=True):
            places, kept = top_k(scores, 100)
            run[query_id] = {self._products[i].product_id: float(s) for i, s in zip(places, kept, strict=True)}
        return sum(evaluate(self._qrels, run, ("nDCG@10", "R@100")).mean.values())


def _write_graph(
    path: Path, vectors: np.ndarray, encoder: Any, by_id: Sequence[Product], data: TrainingData, seed: int
) -> tuple[int, float]:
    """Writes the graph; the smallest ef that loses at most .002 of R@100 on dev, and what it loses."""
    if not len(vectors):
        path.touch()
        return _EF[0], 0.0
    answers = relevant({q: grades for q, grades in data.dev_qrels.items() if q in data.dev_queries})
    places = {product.product_id: place for place, product in enumerate(by_id)}
    wanted = [{places[p] for p in products if p in places} for products in answers.values()]
    queries = encode(encoder, [data.dev_queries[q] for q in answers], "query")
    k = min(100, len(vectors))

    def recall(found: Sequence[np.ndarray]) -> float:
        shares = [len(w & set(f.tolist())) / max(len(w), 1) for w, f in zip(wanted, found, strict=True)]
        return sum(shares) / max(len(shares), 1)

    whole = recall([top_k(vectors @ query, k)[0] for query in queries])
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
