"""Co-training: what the codes of one side of an interaction say becomes a target of the other side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from gram.coder.base import PRODUCT_CODING, SURE_CODING, Representations, Side
from gram.coder.encoder.coder import EncoderCoder
from gram.codes.targets import co_targets
from gram.indexing import NO_MODEL, assemble_index
from gram.ranking.candidates import find_candidates
from gram.ranking.scorer import Scorer
from gram.search import BATCH, Searcher
from gram.training.samples import HARD_TO, Samples

LEAST = 0.3  # probability of an attribute that the other side is to learn


def make_co_training_samples(coder: EncoderCoder, samples: Samples) -> Samples:
    """The same samples with targets that each side's codes give the other, and negatives from the model's ranks."""
    queries = coder.represent(samples.queries, Side.QUERY, replace(SURE_CODING, codes=0))
    coding = replace(PRODUCT_CODING, codes=0)
    products = coder.represent_tokenized(samples.tokenized, Side.PRODUCT, coding, progress="coding products")
    pairs = [(q, p) for q, row in enumerate(samples.clicked) for p in row.tolist()]
    of_queries, of_products = co_targets(
        samples.query_targets,
        samples.product_targets,
        _likely_expansions(queries),
        _likely_expansions(products),
        np.array(pairs, dtype=np.int64).reshape(-1, 2),
    )
    index = assemble_index(coder, samples.products, products, samples.bm25, {}, NO_MODEL)
    searcher = Searcher(coder, index, Scorer.default())
    near = []
    for begin in tqdm(range(0, len(samples.queries), BATCH), desc="finding hard negatives", unit="batch"):
        for query in searcher.represent(samples.queries[begin : begin + BATCH], compound=False):
            near.append(find_candidates(index, query, searcher.scorer.first_phase, keep=HARD_TO).rows)
    return replace(samples, query_targets=of_queries, product_targets=of_products, near=near)


def _likely_expansions(represented: Representations) -> list[NDArray[np.int64]]:
    """Each text's expansion attributes that are likely to be right, the likeliest first."""
    expansion, probability = represented.expansion, represented.probability
    rows = []
    for begin, end in zip(expansion.start[:-1].tolist(), expansion.start[1:].tolist(), strict=True):
        order = begin + np.argsort(-probability[begin:end], kind="stable")
        rows.append(expansion.key[order[probability[order] >= LEAST]])
    return rows
