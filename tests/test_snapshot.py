"""A snapshot's segments, counted by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from pyroaring import BitMap

from gram.index.postings import Postings
from gram.shop import Shop
from gram.snapshot import GIVEN, LiveSegment


def test_a_product_that_has_a_code_in_two_ways_counts_once() -> None:
    """The title says sofa, and so does the category: one key, one product, two postings."""
    lexical = Postings.build([0, 0, 0], [0, 0, 1], [1.0, 0.5, 1.0], n_keys=1)
    expansion = Postings.build([0, 0, 1], [1, 2, 2], [0.5, 0.5, 0.5], n_keys=2)
    index = SimpleNamespace(lexical=lexical, expansion=expansion)
    segment = LiveSegment(cast(Any, index), cast(Any, None), BitMap([0, 1, 2]))
    assert segment.count_having(0, np.array([True, True, True])) == 3
    assert segment.count_having(0, np.array([True, True, False])) == 2
    assert [segment.count_having(key, np.array([True] * 3)) for key in (1, 2, -1)] == [1, 0, 0]
    assert segment.having(0) == BitMap([0, 1, 2])


def test_a_product_has_what_it_was_given_with_some_weight(shop: Shop) -> None:
    """Filters, counts and refinements pass over what the model writes with less than GIVEN; a search finds by it."""
    segment = shop.live.snapshot.segments[0]
    given = segment.index.expansion
    key = next(k for k in range(given.n_keys) if len(given.of(k)[0]))
    rows, weights = given.of(key)
    held = set(segment.index.lexical.of(key)[0].tolist())
    expected = held | {r for r, w in zip(rows.tolist(), weights.tolist(), strict=True) if w >= GIVEN}
    assert set(segment.having(key)) == expected
    among = np.zeros(segment.index.n_products, dtype=bool)
    among[rows] = True
    assert segment.count_having(key, among) == len(expected & set(rows.tolist()))
    counts = shop.live.snapshot.code_counts
    assert [counts[k] for k in range(0, len(counts), 7)] == [len(segment.having(k)) for k in range(0, len(counts), 7)]
