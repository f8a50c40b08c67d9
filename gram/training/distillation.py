"""Distillation: what the whole score says of the products that it ranks first is taught to the codes' own score.

    L = KL( softmax over a query's products of the whole score ‖ softmax of the codes' score )

The whole score, fitted to held-out interactions, knows what dense vectors, token vectors and words tell, and the codes'
score is to rank as it does (Hofstätter et al., arXiv 2010.02666, with a list of products in place of pairs). Joint
training goes on beside it, so that nothing else is unlearnt.

Letters: B queries of a step, K products of each, U different products of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from gram.coder.base import Side
from gram.coder.precision import computing
from gram.records import Product
from gram.search import BATCH, Searcher
from gram.training.joint import JointTrainer
from gram.training.losses import code_scores


@dataclass(frozen=True)
class DistillationSettings:
    """How the codes learn from the whole score. `steps` = 0 leaves it out."""

    steps: int = 0
    batch: int = 24  # queries a step
    products: int = 6  # of each
    queries: int = 4000  # that are ranked, at most
    depth: int = 100  # ranks that products are drawn from
    weight: float = 1.0


@dataclass(frozen=True)
class Ranked:
    """Queries, by number, with the rows of the products that the whole score ranks first, and their scores."""

    queries: NDArray[np.int64]
    rows: Sequence[NDArray[np.int64]]
    scores: Sequence[NDArray[np.float32]]


def rank_queries(
    searcher: Searcher, queries: Sequence[str], products: Sequence[Product], settings: DistillationSettings, seed: int
) -> Ranked:
    """Ranks some of the queries; a searcher may know a part of the `products` only."""
    row_of = {product.product_id: row for row, product in enumerate(products)}
    order = np.random.default_rng(seed).permutation(len(queries))[: settings.queries]
    numbers, rows, scores = [], [], []
    for begin in tqdm(range(0, len(order), BATCH), desc="ranking queries", unit="batch"):
        chosen = order[begin : begin + BATCH].tolist()
        for number, query in zip(chosen, searcher.represent([queries[i] for i in chosen], compound=False), strict=True):
            found = searcher.rank(query, settings.depth)
            if len(found) >= settings.products:
                numbers.append(number)
                rows.append(np.array([row_of[product_id] for product_id in found], dtype=np.int64))
                scores.append(np.array(list(found.values()), dtype=np.float32))
    return Ranked(np.array(numbers, dtype=np.int64), rows, scores)


class Distiller:
    """The loss of one step; a trainer adds it to its own."""

    def __init__(self, trainer: JointTrainer, ranked: Ranked, settings: DistillationSettings) -> None:
        self.trainer, self.ranked, self.settings = trainer, ranked, settings

    def __call__(self, rng: np.random.Generator) -> Tensor:
        trainer, ranked, settings = self.trainer, self.ranked, self.settings
        coder, samples = trainer.coder, trainer.samples
        picked = rng.choice(len(ranked.queries), min(settings.batch, len(ranked.queries)), replace=False).tolist()
        drawn = [_draw(len(ranked.rows[i]), settings.products, rng) for i in picked]
        rows = np.stack([ranked.rows[i][at] for i, at in zip(picked, drawn, strict=True)])  # (B, K)
        taught = np.stack([ranked.scores[i][at] for i, at in zip(picked, drawn, strict=True)])  # (B, K)
        products, column = np.unique(rows, return_inverse=True)  # (U,)
        texts = [samples.queries[ranked.queries[i]] for i in picked]
        with computing(coder.device):
            attributes = coder.attributes()
            queries = samples.tokenizer.queries(texts).batch(np.arange(len(texts))).to(coder.device)
            query = coder.network(queries, Side.QUERY, attributes)
            read = trainer.read_products(products, {}, attributes)
        lexical = (queries.tag_row, queries.tag_attribute, query.lexical)
        codes = code_scores(lexical, query.expansion, read.lexical, read.expansion)  # (B, U)
        mine = codes.gather(1, torch.from_numpy(column.reshape(rows.shape)).to(coder.device))  # (B, K)
        ideal = torch.from_numpy(taught).to(coder.device).log_softmax(1)
        student = (coder.log_temperature.exp() * mine).float().log_softmax(1)
        return settings.weight * F.kl_div(student, ideal, log_target=True, reduction="batchmean")


def _draw(found: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Ranks to learn from, the first ones more often."""
    chance = 1 / (10 + np.arange(found))
    return rng.choice(found, count, replace=False, p=chance / chance.sum())
