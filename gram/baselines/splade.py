"""SPLADE, learned sparse retrieval: a masked-language model weighs the word pieces of a text, and adds pieces it lacks.

    w(v|x) = log(1 + relu(max_l logit(v|x, l)))        score(q, p) = Σ_v w(v|q) · w(v|p)

with l the places of the text x and v a piece of the vocabulary (SPLADE-max: Formal et al., arXiv 2109.10086). It is
trained with negatives in the batch and a hard one each, and the FLOPS penalty Σ_v (mean_x w(v|x))² on either side,
whose weight grows quadratically over the first third of the steps (arXiv 2205.04733).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from gram.arrays import top_k
from gram.baselines.base import Run, TrainingData, fingerprint
from gram.baselines.bm25 import BM25, FIELDS, field_text
from gram.baselines.splade_encoder import autocast, encode, features_of, fit_head, open_encoder, weights_of
from gram.errors import IndexFolderError, SettingError
from gram.evaluation.measures import evaluate
from gram.folders import new_folder, read_json, write_json
from gram.records import Hit, Product

VERSION = 1
_ARRAYS = ("indptr", "indices", "weights")
_NEGATIVE_RANKS = (5, 60)
"""Hard negatives come from these ranks: what a log does not link at the very top is often wanted all the same."""


@dataclass(frozen=True)
class SpladeSettings:
    """How the encoder is trained. `learning_rate` is that of a model with a masked-language head of its own.

    `steps` 0 is one pass over the log, of at least 300 and at most 1,200 steps.
    """

    steps: int = 0
    batch: int = 32
    learning_rate: float = 5e-5
    new_head_learning_rate: float = 1e-4
    query_penalty: float = 1e-3
    product_penalty: float = 1e-3
    max_pieces: int = 64
    max_terms: int = 192
    mined_products: int = 8000
    checkpoints: int = 4
    dev_queries: int = 200
    dev_products: int = 1000


class _Pair(NamedTuple):
    query: str
    place: int
    """Of the wanted product in the catalogue."""


class Splade:
    """SPLADE over one catalogue, as sentence-transformers' SparseEncoder holds it.

    `train` fine-tunes `model` on the shop's log the way Qdrant's `sparse-finetune` does: products of the same batch and
    one hard negative speak against each query; hard negatives are products that the log does not link to the query,
    from BM25's ranks 5 to 60 in the first half of the steps, then from the same ranks of the model's own answers, mined
    once (`sparse-finetune` re-indexes the whole catalogue in every round; here it is `mined_products` drawn products).

    With an empty log the queries are made up, for its queries written by a language model: one to four of a product's
    own words, in their order, drawn at random by `seed`.

    `model` is a hub id or a folder. A masked-language model, or a published SPLADE, is used as it is; a BERT without
    the head, such as all-MiniLM-L6-v2, gets one: a linear map, fitted by least squares so that a piece's last state
    reads as the piece, with LayerNorm, before the tied word-piece embeddings.

    The dev part chooses the fields (title or all, by BM25) and the checkpoint, the untrained model among them, by
    nDCG@10 on a part of the catalogue. Without a dev part: all fields, the last step. Raises MissingExtra without the
    extra `bench`, ModelError for a model without word-piece logits.
    """

    name = "splade"

    def __init__(
        self, encoder: Any, products: Sequence[Product], postings: Any, settings: Mapping[str, Any], index_bytes: int
    ) -> None:
        """`postings` is a SciPy CSR matrix (V, N), its products in the order of their ids."""
        by_id = sorted(products, key=lambda product: product.product_id)
        self._ids = [product.product_id for product in by_id]
        self._titles = {product.product_id: product.title for product in by_id}
        self._encoder, self._postings = encoder, postings
        self._settings, self._index_bytes = dict(settings), index_bytes

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
        settings: SpladeSettings | None = None,
    ) -> None:
        """Writes the folder: meta.json, the encoder, and the postings as .npy arrays.

        `bf16` computes in bfloat16 where that loses little. `quick` takes a few steps only, to try things out.
        """
        if not data.products:
            raise SettingError("SPLADE has no products to learn from. Fix: give a catalogue.")
        chosen = settings or SpladeSettings()
        if quick:
            chosen = replace(
                chosen, steps=12, batch=8, checkpoints=2, mined_products=200, dev_queries=30, dev_products=200
            )
        if chosen.steps == 0:
            chosen = replace(chosen, steps=min(1200, max(300, math.ceil(len(data.log) / chosen.batch))))
        by_id = sorted(data.products, key=lambda product: product.product_id)
        with new_folder(folder) as new, torch.random.fork_rng():
            torch.manual_seed(seed)
            encoder, new_head = open_encoder(model, chosen.max_pieces)
            fields = _choose_fields(by_id, data)
            texts = [field_text(product, fields) for product in by_id]
            if new_head:
                fit_head(encoder, texts, seed)
            tuned = _FineTuning(encoder, by_id, texts, fields, data, chosen, seed, bf16)
            tuned.run(chosen.new_head_learning_rate if new_head else chosen.learning_rate)
            coded = encode(encoder, texts, chosen.max_terms, bf16, progress=True)
            queries = list(tuned.linked)[:1000]
            found = {
                "fields": list(fields),
                "model": Path(model).name,
                "bf16": bf16,
                "best_step": tuned.best_step,
                "dev": tuned.dev,
                "query_terms": _mean_terms(encode(encoder, queries, chosen.max_terms, bf16)),
                "product_terms": _mean_terms(coded),
            }
            encoder.save_pretrained(str(new / "encoder"), create_model_card=False)
            postings = coded.T.tocsr()  # (V, N)
            np.save(new / "indptr.npy", postings.indptr.astype(np.int64))
            np.save(new / "indices.npy", postings.indices.astype(np.int32))
            np.save(new / "weights.npy", postings.data.astype(np.float16))
            meta = {"version": VERSION, "ids": fingerprint(by_id), "new_head": new_head}
            write_json(new / "meta.json", {**meta, "settings": {**asdict(chosen), **found}})

    @classmethod
    def load(cls, folder: Path, products: Sequence[Product]) -> Splade:
        """Opens what `train` wrote. Raises IndexFolderError for another version or another catalogue."""
        from scipy.sparse import csr_matrix

        folder = Path(folder)
        meta = read_json(folder / "meta.json")
        if meta.get("version") != VERSION:
            raise IndexFolderError(f"{folder} is no SPLADE folder of version {VERSION}. Fix: train it again.")
        if meta["ids"] != fingerprint(products):
            raise IndexFolderError(f"{folder} was made of other products. Fix: train it on this catalogue.")
        encoder, _ = open_encoder(str(folder / "encoder"), int(meta["settings"]["max_pieces"]), meta["new_head"])
        indptr, indices, weights = (np.load(folder / f"{name}.npy") for name in _ARRAYS)
        shape = (len(indptr) - 1, len(products))
        postings = csr_matrix((weights.astype(np.float32), indices, indptr), shape=shape)
        size = sum((folder / f"{name}.npy").stat().st_size for name in _ARRAYS)
        return cls(encoder, products, postings, meta["settings"], size)

    @property
    def settings(self) -> dict[str, object]:
        """Those of training and those chosen on dev; `query_terms` and `product_terms` are mean numbers of terms."""
        return dict(self._settings)

    @property
    def index_bytes(self) -> int:
        """Bytes of the postings on disk; the encoder is the query side and left out."""
        return self._index_bytes

    def search(self, query: str, k: int = 10) -> list[Hit]:
        """The best `k` products for a query, best first; products that share no term with it are not returned."""
        found = self.search_many({"": query}, k)[""]
        return [Hit(product_id, score, self._titles[product_id]) for product_id, score in found.items()]

    def search_many(self, queries: Mapping[str, str], k: int = 300) -> Run:
        """The run for many queries, encoded in batches."""
        if k < 1:
            raise SettingError(f"k counts the products wanted: at least 1, not {k}.")
        coded = encode(self._encoder, list(queries.values()), self._settings["max_terms"], bf16=False)
        run: Run = {}
        for row, query_id in enumerate(queries):
            own = slice(coded.indptr[row], coded.indptr[row + 1])
            scores = self._postings[coded.indices[own]].T @ coded.data[own]  # (N,)
            run[query_id] = {self._ids[i]: float(scores[i]) for i in _best(scores, k)}
        return run


class _FineTuning:
    """One training of an encoder: `run` leaves the best checkpoint's weights in it."""

    def __init__(
        self,
        encoder: Any,
        products: Sequence[Product],
        texts: Sequence[str],
        fields: Sequence[str],
        data: TrainingData,
        settings: SpladeSettings,
        seed: int,
        bf16: bool,
    ) -> None:
        self.encoder, self.texts, self.settings, self.bf16 = encoder, texts, settings, bf16
        self.random = np.random.default_rng(seed)
        self.best_step, self.dev = 0, dict[str, float]()
        places = {product.product_id: place for place, product in enumerate(products)}
        self.pairs = [_Pair(i.query, places[i.product_id]) for i in data.log if i.product_id in places]
        if not self.pairs:
            self.pairs = list(_pseudo_pairs(texts, settings.steps * settings.batch, self.random))
        self.linked: dict[str, set[int]] = {}
        for query, place in self.pairs:
            self.linked.setdefault(query, set()).add(place)
        self.negatives = self._mined(BM25(products, fields=fields).search_many, places)
        self.dev_places, self.dev_queries, self.dev_qrels = self._dev_part(data, places)

    def run(self, learning_rate: float) -> None:
        from sentence_transformers.sparse_encoder.losses import FlopsLoss, SparseMultipleNegativesRankingLoss

        s, encoder = self.settings, self.encoder
        if not self.pairs:
            return
        ranking, flops = SparseMultipleNegativesRankingLoss(encoder), FlopsLoss(encoder)
        optimizer = torch.optim.AdamW(encoder.parameters(), lr=learning_rate, weight_decay=0.01)
        every = math.ceil(s.steps / s.checkpoints)
        best, kept = self._judge(0), weights_of(encoder)
        batches = self._batches()
        for step in tqdm(range(1, s.steps + 1), desc="splade"):
            if step == s.steps // 2 + 1:
                self._mine_from_model()
            warm = min(1.0, step / (s.steps / 10)) * (1 - step / (s.steps + 1))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * warm
            penalty = min(1.0, step / (s.steps / 3)) ** 2
            encoder.train()
            asked, wanted, hard = next(batches)
            with autocast(encoder, self.bf16):
                queries = encoder(features_of(encoder, asked))["sentence_embedding"]  # (B, V)
                products = encoder(features_of(encoder, wanted + hard))["sentence_embedding"]  # (2B, V)
            # The losses are SpladeLoss's, but not in bfloat16: its steps between scores of 16 and more are 1/8.
            total = ranking.compute_loss_from_embeddings([queries, *products.chunk(2)], torch.empty(0))
            total = total + penalty * s.query_penalty * flops.compute_loss_from_embeddings(queries)
            total = total + penalty * s.product_penalty * flops.compute_loss_from_embeddings(products)
            total.backward()
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            if step % every == 0 or step == s.steps:
                score = self._judge(step)
                if score > best or not self.dev_queries:
                    best, kept, self.best_step = score, weights_of(encoder), step
        encoder.load_state_dict(kept)
        encoder.eval()

    def _batches(self) -> Iterator[tuple[list[str], list[str], list[str]]]:
        """Queries, wanted products, hard negatives: no two pairs of a batch share a query or a wanted product.

        A product that the log links to another query of the batch is not drawn with it either.
        """
        size = min(self.settings.batch, len(self.linked))
        waiting: list[_Pair] = []
        while True:
            batch: list[_Pair] = []
            wanted: set[int] = set()
            skipped: list[_Pair] = []
            while len(batch) < size:
                if not waiting:
                    if len(skipped) >= len(self.pairs):
                        break  # the log is so small that no full batch exists
                    waiting = [self.pairs[i] for i in self.random.permutation(len(self.pairs))]
                pair = waiting.pop()
                if (
                    pair.place in wanted
                    or wanted & self.linked[pair.query]
                    or any(pair.place in self.linked[other.query] for other in batch)
                ):
                    skipped.append(pair)
                    continue
                batch.append(pair)
                wanted.add(pair.place)
            waiting += skipped
            linked = set().union(*(self.linked[pair.query] for pair in batch))
            drawn = [self._negative(pair.query, linked) for pair in batch]
            yield (
                [pair.query for pair in batch],
                [self.texts[pair.place] for pair in batch],
                [self.texts[place] for place in drawn],
            )

    def _negative(self, query: str, linked: Set[int]) -> int:
        """A hard negative that the log links to no query of the batch: it speaks against all of them."""
        mined = [place for place in self.negatives.get(query, ()) if place not in linked]
        return mined[int(self.random.integers(len(mined)))] if mined else int(self.random.integers(len(self.texts)))

    def _mined(self, search_many: Any, places: Mapping[str, int]) -> dict[str, list[int]]:
        first, last = _NEGATIVE_RANKS
        found: dict[str, list[int]] = {}
        for query, scores in search_many({query: query for query in self.linked}, last).items():
            ranked = [places[product_id] for product_id in list(scores)]
            ranked = ranked[first:] or ranked
            found[query] = [place for place in ranked if place not in self.linked[query]]
        return found

    def _mine_from_model(self) -> None:
        count = min(self.settings.mined_products, len(self.texts))
        drawn = np.sort(self.random.choice(len(self.texts), count, replace=False))
        index = encode(self.encoder, [self.texts[i] for i in drawn], self.settings.max_terms, self.bf16).T.tocsr()
        queries = list(self.linked)
        coded = encode(self.encoder, queries, self.settings.max_terms, self.bf16)
        places = {str(place): int(place) for place in drawn}

        def search_many(_: Mapping[str, str], k: int) -> Run:
            return {
                query: {str(drawn[i]): 0.0 for i in _best((coded[row] @ index).toarray()[0], k)}
                for row, query in enumerate(queries)
            }

        self.negatives = self._mined(search_many, places)

    def _dev_part(
        self, data: TrainingData, places: Mapping[str, int]
    ) -> tuple[list[int], dict[str, str], dict[str, dict[str, float]]]:
        """Some dev queries, and the part of the catalogue they are asked of: what was judged, and drawn products."""
        judged = [q for q in sorted(data.dev_queries) if any(p in places for p in data.dev_qrels.get(q, ()))]
        picked = self.random.permutation(len(judged))[: self.settings.dev_queries]
        queries = {judged[i]: data.dev_queries[judged[i]] for i in picked}
        qrels = {q: {str(places[p]): g for p, g in data.dev_qrels[q].items() if p in places} for q in queries}
        drawn = self.random.permutation(len(self.texts))[: self.settings.dev_products].tolist()
        return sorted({int(place) for grades in qrels.values() for place in grades} | set(drawn)), queries, qrels

    def _judge(self, step: int) -> float:
        if not self.dev_queries:
            return 0.0
        texts = [self.texts[place] for place in self.dev_places]
        index = encode(self.encoder, texts, self.settings.max_terms, self.bf16).T.tocsr()
        coded = encode(self.encoder, list(self.dev_queries.values()), self.settings.max_terms, self.bf16)
        run: Run = {}
        for row, query_id in enumerate(self.dev_queries):
            scores = (coded[row] @ index).toarray()[0]
            run[query_id] = {str(self.dev_places[i]): float(scores[i]) for i in _best(scores, 10)}
        value = evaluate(self.dev_qrels, run, ["nDCG@10"]).mean["nDCG@10"]
        self.dev[str(step)] = round(value, 4)
        return value


def _mean_terms(coded: Any) -> float:
    return round(coded.nnz / max(coded.shape[0], 1), 1)


def _best(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Places of the best k scores above 0, best first; equal ones in the order of their places."""
    found = np.flatnonzero(scores > 0)
    return top_k(scores[found], k, found)[0]


def _choose_fields(products: Sequence[Product], data: TrainingData) -> tuple[str, ...]:
    """Title or all fields, whichever BM25 does better with on dev; all without a dev part."""
    if not data.dev_queries or not data.dev_qrels:
        return FIELDS
    scores = {}
    for fields in (FIELDS, ("title",)):
        run = BM25(products, fields=fields).search_many(data.dev_queries, 10)
        scores[fields] = evaluate(data.dev_qrels, run, ["nDCG@10"]).mean["nDCG@10"]
    return max(scores, key=lambda fields: scores[fields])


def _pseudo_pairs(texts: Sequence[str], limit: int, random: np.random.Generator) -> Iterator[_Pair]:
    """Queries made up of products' words, one a product, at most `limit`."""
    for place in random.permutation(len(texts))[:limit].tolist():
        words = list(dict.fromkeys(re.findall(r"\w+", texts[place].lower())))
        if words:
            count = min(len(words), 1 + int(random.integers(4)))
            chosen = np.sort(random.choice(len(words), count, replace=False))
            yield _Pair(" ".join(words[i] for i in chosen), place)
