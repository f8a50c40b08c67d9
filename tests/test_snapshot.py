"""A snapshot's segments, counted by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from pyroaring import BitMap

from gram.index.postings import Postings
from gram.snapshot import LiveSegment


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
