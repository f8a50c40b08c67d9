"""What training does after joint training: co-training, co-alignment, the scorer, and the report on the codes."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from gram.coder.encoder.coding import PRODUCT_CODING, QUERY_CODING, Coded, code_texts
from gram.coder.encoder.generator import Generator
from gram.coder.encoder.network import PRODUCT, QUERY
from gram.codes.space import CodeSpace
from gram.codes.targets import co_targets
from gram.index.bm25 import Words
from gram.indexing import NO_MODEL, assembled, build_index
from gram.ranking.candidates import gather
from gram.ranking.scorer import COMPARED, Scorer, fit
from gram.records import Product
from gram.search import Searcher
from gram.text.words import stems
from gram.training.co_alignment import Alignment, AlignmentSettings, WrittenCodes
from gram.training.health import health, recall_of_codes
from gram.training.samples import HARD_TO, Samples

log = logging.getLogger("gram.train")

FITTED_ON = 60_000  # products at most that the scorer is fitted among
ALIGNED_ON = 16_000  # products at most whose codes are aligned
REPORTED_ON = 8_000  # products at most that the codes' health is read from

Wanted = Mapping[str, Mapping[str, float]]
"""Query → product id → weight of the interaction."""


def co_trained(generator: Generator, samples: Samples) -> Samples:
    """The same samples with targets that each side's codes give the other, and negatives from the model's own ranks."""
    queries = code_texts(generator, samples.encoder.queries(samples.queries), QUERY, replace(QUERY_CODING, codes=0))
    coded = code_texts(
        generator, samples.encoded, PRODUCT, replace(PRODUCT_CODING, codes=0), progress="coding products"
    )
    pairs = [(q, p) for q, row in enumerate(samples.linked) for p in row.tolist()]
    of_queries, of_products = co_targets(
        samples.query_targets,
        samples.product_targets,
        _said(queries, len(samples.queries)),
        _said(coded, len(samples.products)),
        np.array(pairs, dtype=np.int64).reshape(-1, 2),
    )
    index = assembled(generator, samples.products, coded, samples.words, {}, NO_MODEL)
    searcher = Searcher(generator, index, Scorer.default())
    near = []
    for begin in tqdm(range(0, len(samples.queries), 256), desc="finding hard negatives", unit="batch"):
        for query in searcher.code(samples.queries[begin : begin + 256], deep=False):
            near.append(gather(index, query, searcher.scorer.weights, keep=HARD_TO).positions)
    return replace(samples, query_targets=of_queries, product_targets=of_products, near=near)


def _said(coded: Coded, n: int, least: float = 0.3) -> list[NDArray[np.int64]]:
    """The attributes that were generated for each of n texts and are likely to be right, the surest first."""
    text, attribute, _ = coded.written
    order = np.lexsort((-coded.sure, text))
    order = order[coded.sure[order] >= least]
    cuts = np.searchsorted(text[order], np.arange(n + 1))
    return [attribute[order[cuts[i] : cuts[i + 1]]] for i in range(n)]


def aligned(generator: Generator, samples: Samples, settings: AlignmentSettings, seed: int) -> list[dict[str, Any]]:
    """Co-alignment of codes of two and more attributes; a row of figures a step.

    Of a large catalogue, on some of the products that the log mentions.
    """
    random = np.random.default_rng(seed)
    some = np.unique(np.concatenate(samples.linked))
    if len(some) > ALIGNED_ON:
        some = np.sort(random.choice(some, ALIGNED_ON, replace=False))
    place = np.full(len(samples.products), -1)
    place[some] = np.arange(len(some))
    linked = [place[row][place[row] >= 0] for row in samples.linked]
    queries = samples.encoder.queries(samples.queries)
    products = samples.encoder.products([samples.products[i] for i in some.tolist()])
    n_codes = generator.trie.n_code_ids
    of_queries = code_texts(generator, queries, QUERY, QUERY_CODING).deep
    of_products = code_texts(generator, products, PRODUCT, PRODUCT_CODING, progress="coding products").deep
    written = (
        WrittenCodes.of(of_queries, len(queries), n_codes),
        WrittenCodes.of(of_products, len(products), n_codes),
    )
    codes = generator.trie.table().astype(np.int32)
    return Alignment(generator, queries, products, linked, written, codes, settings, seed).run()


def codes_alone(generator: Generator, part: Sequence[Product], wanted: Wanted) -> dict[str, float]:
    """What codes of two and more attributes bring back alone in a part of the catalogue."""
    index = build_index(generator, part)
    searcher = Searcher(generator, index, Scorer.default())
    coded = searcher.code(list(wanted))
    positions = [[index.table.position(p) for p in row] for row in wanted.values()]
    return recall_of_codes(index.deep, [query.deep for query in coded], positions, index.n_products)


def fitted(generator: Generator, products: Sequence[Product], words: Words, wanted: Wanted, seed: int) -> Scorer:
    """The scorer that held-out interactions ask for; the default one where there are none. `words`: of all products."""
    scorer = Scorer.default()
    if not wanted:
        return scorer
    part = part_of(products, words, wanted, generator.lexicon.language, FITTED_ON, seed)
    index = build_index(generator, part, coding=replace(PRODUCT_CODING, codes=0))
    coded = Searcher(generator, index, scorer).code(list(wanted), deep=False)
    for refine in (False, True):  # first the sum that finds, then the scorer of what it finds
        first = scorer.weights
        found = [gather(index, query, first, keep=COMPARED) for query in coded]
        gains = [_gains(part, f.positions, row) for f, row in zip(found, wanted.values(), strict=True)]
        features = [f.features for f in found]
        scorer = fit(features, gains, first=first, without=("deep",), seed=seed, refine=refine)
    log.info("scorer: %s", json.dumps(scorer.named()))
    return scorer


def reported(
    generator: Generator, scorer: Scorer, part: Sequence[Product], wanted: Wanted, space: CodeSpace
) -> dict[str, Any]:
    """The health of the codes, read from a part of the catalogue."""
    return health(Searcher(generator, build_index(generator, part), scorer), wanted, space)


def _gains(
    products: Sequence[Product], positions: NDArray[np.int64], wanted: Mapping[str, float]
) -> NDArray[np.float32]:
    """(C,) the weights of the interactions that candidates have."""
    return np.array([wanted.get(products[i].product_id, 0.0) for i in positions.tolist()], dtype=np.float32)


def part_of(
    products: Sequence[Product], words: Words, wanted: Wanted, language: str, at_most: int, seed: int
) -> list[Product]:
    """At most so many products: the wanted ones, those their words find for the same queries, and random others."""
    if len(products) <= at_most:
        return list(products)
    chosen = {product_id for row in wanted.values() for product_id in row}
    near: Counter[int] = Counter()
    for query in wanted:
        scores = words.score(stems(query, language))
        near.update(np.argpartition(-scores, 30)[:30].tolist())
    chosen |= {products[i].product_id for i, _ in near.most_common(at_most // 2)}
    order: NDArray[np.int64] = np.random.default_rng(seed).permutation(len(products))
    for i in order.tolist():
        if len(chosen) >= at_most:
            break
        chosen.add(products[i].product_id)
    return [p for p in products if p.product_id in chosen]
