"""Co-training of a language model: the codes that it writes of one side of an interaction, the other learns to write.

Only what passes the relevance filter: a code of a query's products that at least half of them write, two or more where
there are as many; and of a product's queries, a code that the query writes and at least half of its products write too.
"""

from __future__ import annotations

from collections import Counter, defaultdict

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
    for_queries: dict[int, dict[int, float]] = {}
    for_products: defaultdict[int, dict[int, float]] = defaultdict(dict)
    for q, row in zip(queries, of_query, strict=True):
        clicked = samples.clicked[q].tolist()
        counts = Counter(code for p in clicked for code in says[p])
        least = max(len(clicked) / 2, min(2, len(clicked)))
        agreed = [(code, n / len(clicked)) for code, n in counts.most_common() if n >= least]
        for_queries[q] = dict(agreed[:MOST])
        for code in row.code.tolist():
            if counts[code] >= least:
                for p in clicked:
                    for_products[p][code] = max(for_products[p].get(code, 0.0), counts[code] / len(clicked))
    for_products_best = {p: dict(Counter(row).most_common(MOST)) for p, row in for_products.items()}
    return samples.with_targets(
        add_targets(samples.of_queries, for_queries), add_targets(samples.of_products, for_products_best)
    )
