"""SPLADE, learned sparse retrieval: a masked-language model weighs the tokens of a text, and adds tokens it lacks.

    w(v|x) = log(1 + relu(max_l logit(v|x, l)))        score(q, p) = Σ_v w(v|q) · w(v|p)

with l the positions of the text x and v a token of the vocabulary (SPLADE-max: Formal et al., arXiv 2109.10086). It is
trained with negatives in the batch and a hard one each, and the FLOPS penalty Σ_v (mean_x w(v|x))² on either side,
whose weight grows quadratically over the first third of the steps (arXiv 2205.04733).

Letters: N products, V tokens of the vocabulary, Q queries, B queries of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gram.arrays import top_k
from gram.baselines.base import Found, How, Rival, TrainingData, catalogue_of, read_settings, write_meta
from gram.baselines.bm25 import BM25, FIELD_SETS
from gram.baselines.encoder import computing
from gram.baselines.splade_encoder import encode, fit_head, open_encoder
from gram.baselines.training import DevSample, Negatives, Pairs, Plan, contrastive, encode_batch, fit, plan_for
from gram.folders import new_folder
from gram.records import Product
from gram.text.fields import FIELDS, joined_text

RATE, NEW_HEAD_RATE = 5e-5, 1e-4
"""Usual rates of a model with a masked-language head of its own, and of one whose head is new."""
QUERY_PENALTY, PRODUCT_PENALTY = 1e-3, 1e-3
TOKENS = 64
"""A longer text is cut."""
MAX_TERMS = 192
"""The heaviest terms of a text that are kept."""
_ARRAYS = ("indptr", "indices", "weights")


def search_postings(queries: Any, postings: Any, k: int) -> Iterator[Found]:
    """The best `k` products that share a term with each query: a CSR matrix (Q, V) over postings, one of (V, N)."""
    for row in range(queries.shape[0]):
        terms = slice(queries.indptr[row], queries.indptr[row + 1])
        scores = postings[queries.indices[terms]].T @ queries.data[terms]  # (N,)
        found = np.flatnonzero(scores > 0)
        yield top_k(scores[found], k, found)


class Splade(Rival):
    """SPLADE over one catalogue, as sentence-transformers' SparseEncoder holds it.

    `train` fine-tunes `model` the way Qdrant's `sparse-finetune` does: products of the same batch and one hard negative
    speak against each query; hard negatives are BM25's in the first half of the steps, then the model's own among the
    whole catalogue, mined once.

    `model` is a hub id or a folder. A masked-language model, or a published SPLADE, is used as it is; a BERT without
    the head, such as all-MiniLM-L6-v2, gets one: a linear map, fitted by least squares so that a token's last state
    reads as the token, with LayerNorm, before the tied token embeddings.

    The dev part chooses the fields (title or all, by BM25), the rate and the checkpoint, the untrained model among
    them. Without a dev part: all fields, the usual rate, the last step.
    """

    name = "splade"

    def __init__(
        self, encoder: Any, products: Sequence[Product], postings: Any, settings: Mapping[str, Any], index_bytes: int
    ) -> None:
        """`postings` is a SciPy CSR matrix (V, N), its products in the order of their ids."""
        super().__init__(products, settings)
        self._encoder, self._postings, self._bytes = encoder, postings, index_bytes

    @classmethod
    def train(
        cls,
        folder: Path,
        data: TrainingData,
        how: How,
        plan: Plan | None = None,
    ) -> None:
        """Writes the folder: meta.json, the encoder, and the postings as .npy arrays.

        `bf16` computes in bfloat16 where that loses little. `quick` takes a few steps only, to try things out. Raises
        MissingExtra without the extra `bench`, ModelError for a model without token logits, SettingError for no
        products.
        """
        model, seed, quick, bf16, device = how
        products = catalogue_of(data)
        with new_folder(folder) as draft, torch.random.fork_rng():
            torch.manual_seed(seed)
            encoder, new_head = open_encoder(model, TOKENS, device=device)
            dev, pairs = DevSample(data, products, seed), Pairs(products, data.log, seed)
            fields = _choose_fields(products, dev)
            texts = [joined_text(product, fields) for product in products]
            if new_head:
                fit_head(encoder, texts, seed)
            settings: dict[str, object] = {"fields": list(fields), "model": Path(model).name, "bf16": bf16}
            if pairs.rows:
                negatives = pairs.mine(BM25(products, fields=fields).find)
                tuning = _FineTuning(encoder, pairs, texts, negatives, dev)
                settings |= tuning.fit(plan or plan_for(pairs, quick, seed, bf16), NEW_HEAD_RATE if new_head else RATE)
            represented = encode(encoder, texts, MAX_TERMS, bf16, progress=True)
            queries = encode(encoder, list(pairs.clicked)[:1000], MAX_TERMS, bf16)
            settings |= {"query_terms": _mean_terms(queries), "product_terms": _mean_terms(represented)}
            encoder.save_pretrained(str(draft / "encoder"), create_model_card=False)
            postings = represented.T.tocsr()  # (V, N)
            np.save(draft / "indptr.npy", postings.indptr.astype(np.int64))
            np.save(draft / "indices.npy", postings.indices.astype(np.int32))
            np.save(draft / "weights.npy", postings.data.astype(np.float16))
            write_meta(draft, cls.name, settings | {"new_head": new_head}, products)

    @classmethod
    def load(cls, folder: Path, products: Sequence[Product], device: str = "cpu") -> Splade:
        """Opens what `train` wrote. Raises DataError, ModelError and IndexMismatch as `read_settings` does."""
        from scipy.sparse import csr_matrix

        folder = Path(folder)
        settings = read_settings(folder, cls.name, products)
        encoder, _ = open_encoder(str(folder / "encoder"), TOKENS, settings["new_head"], device)
        indptr, indices, weights = (np.load(folder / f"{name}.npy") for name in _ARRAYS)
        shape = (len(indptr) - 1, len(products))
        postings = csr_matrix((weights.astype(np.float32), indices, indptr), shape=shape)
        size = sum((folder / f"{name}.npy").stat().st_size for name in _ARRAYS)
        return cls(encoder, products, postings, settings, size)

    @property
    def index_bytes(self) -> int:
        """Bytes of the postings on disk; the encoder is the query side and left out."""
        return self._bytes

    def find(self, queries: Sequence[str], k: int) -> Iterator[Found]:
        """The best `k` of each query, of those that share a term with it; queries are encoded in batches."""
        return search_postings(encode(self._encoder, list(queries), MAX_TERMS, bf16=False), self._postings, k)


class _FineTuning:
    """One training of an encoder: `fit` leaves the best checkpoint's weights in it."""

    def __init__(self, encoder: Any, pairs: Pairs, texts: Sequence[str], negatives: Negatives, dev: DevSample) -> None:
        self.encoder, self.pairs, self.texts, self.negatives, self.dev = encoder, pairs, texts, negatives, dev

    def fit(self, plan: Plan, rate: float) -> dict[str, object]:
        """Trains; what there is to tell of it."""
        from sentence_transformers.sparse_encoder.losses import FlopsLoss

        self.plan, flops = plan, FlopsLoss(self.encoder)

        def loss(rng: np.random.Generator, done: float) -> Tensor:
            batch = self.pairs.batch(plan.batch, rng, self.negatives)
            penalty = min(1.0, 3 * done) ** 2
            queries = self._weights(batch.queries)  # (B, V)
            products = self._weights([self.texts[i] for i in batch.columns])  # (C, V)
            with computing(False, self.encoder.device):  # bfloat16's steps between scores of 16 and more are 1/8
                total = contrastive(queries.float() @ products.float().T, batch.ignored)
                total = total + penalty * QUERY_PENALTY * flops.compute_loss_from_embeddings(queries)
                return total + penalty * PRODUCT_PENALTY * flops.compute_loss_from_embeddings(products)

        groups = [{"params": list(self.encoder.parameters()), "lr": rate}]
        outcome = fit(self.encoder, groups, loss, plan, self._score if self.dev else None, self._mine)
        return outcome.settings(plan) | {"usual_rate": rate}

    def _weights(self, texts: Sequence[str]) -> Tensor:
        return encode_batch(self.encoder, texts)

    def _find(self, queries: Sequence[str], texts: Sequence[str], k: int, progress: bool = False) -> Iterator[Found]:
        """The best of some texts for each query, as the encoder reads both now."""
        postings = encode(self.encoder, texts, MAX_TERMS, self.plan.bf16, progress=progress).T.tocsr()  # (V, N)
        return search_postings(encode(self.encoder, list(queries), MAX_TERMS, self.plan.bf16), postings, k)

    def _score(self) -> float:
        sample = [self.texts[position] for position in self.dev.positions]
        return self.dev.score_found(self._find(list(self.dev.queries.values()), sample, 100))

    def _mine(self) -> None:
        self.negatives = self.pairs.mine(lambda queries, k: self._find(queries, self.texts, k, progress=True))


def _mean_terms(represented: Any) -> float:
    return round(represented.nnz / max(represented.shape[0], 1), 1)


def _choose_fields(products: Sequence[Product], dev: DevSample) -> tuple[str, ...]:
    """Title or all fields, whichever BM25 does better with on dev; all without a dev part."""
    if not dev:
        return FIELDS
    return max(
        FIELD_SETS[::-1], key=lambda fields: dev.score(BM25(products, fields=fields).search_many(dev.queries, 100))
    )
