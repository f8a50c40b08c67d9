"""Co-training of a language model: the codes that it writes of one side of an interaction, the other learns to write.

Only what passes the relevance filter: a code of a query's products that at least half of them write, two or more where
there are as many; and of a product's queries, a code that the query writes and at least half of its products write too.
What a code gains counts by its retrieval efficiency: one that every product writes tells nothing.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np

from gram.coder.base import Side
from gram.coder.causal.coder import CausalCoder
from gram.codes.space import add_targets
from gram.training.causal.samples import CodeSamples

MOST = 10
"""Codes that a text may gain, as in the paper."""


def make_co_training_samples(coder: CausalCoder, samples: CodeSamples, most: int, seed: int) -> CodeSamples:
    """The same samples with the codes that each side's writing gives the other, of at most `most` queries."""
    rng = np.random.default_rng(seed)
    queries = np.sort(rng.permutation(len(samples.queries))[:most]).tolist()
    products = sorted({int(p) for q in queries for p in samples.clicked[q]})
    of_query = coder.write([samples.queries[q] for q in queries], Side.QUERY, progress="writing codes of queries")
    of_product = coder.write(
        [samples.products[p] for p in products], Side.PRODUCT, progress="writing codes of products"
    )
    says = {p: set(row.code.tolist()) for p, row in zip(products, of_product, strict=True)}
    spread = Counter(code for codes in says.values() for code in codes)
    rarity = {
        code: math.log((len(products) + 1) / (n + 0.5)) / math.log(len(products) + 1) for code, n in spread.items()
    }
    for_queries: dict[int, dict[int, float]] = {}
    for_products: defaultdict[int, dict[int, float]] = defaultdict(dict)
    for q, row in zip(queries, of_query, strict=True):
        clicked = samples.clicked[q].tolist()
        counts = Counter(code for p in clicked for code in says[p])
        least = max(len(clicked) / 2, min(2, len(clicked)))
        gains = {code: n / len(clicked) * max(rarity[code], 0.0) for code, n in counts.items() if n >= least}
        for_queries[q] = _best(gains)
        for code in row.code.tolist():
            if code in gains:
                for p in clicked:
                    for_products[p][code] = max(for_products[p].get(code, 0.0), gains[code])
    of_products = {p: _best(row) for p, row in for_products.items()}
    return samples.with_targets(
        add_targets(samples.of_queries, for_queries), add_targets(samples.of_products, of_products)
    )


def _best(gains: Mapping[int, float]) -> dict[int, float]:
    """The codes that gain most."""
    return dict(Counter({code: gain for code, gain in gains.items() if gain > 0}).most_common(MOST))
