"""Targets of queries and products, worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gram.codes.lexicon import Lexicon
from gram.codes.targets import CO_WEIGHT, Targets, co_targets, make_targets
from gram.records import Attribute

MENTION_RATES = [0.5, 0.2, 0.1, 0.9, 0.4]


def _lexicon(n_learnt: int = 4) -> Lexicon:
    """Five attributes, the last lexical only."""
    ones = np.ones(5, np.float32)
    return Lexicon(
        attributes=[Attribute("type", w) for w in "abcde"],
        forms=[[(w,)] for w in "abcde"],
        n_learnt=n_learnt,
        products=ones,
        queries=ones,
        mention_rate=np.array(MENTION_RATES, np.float32),
        n_products=10,
    )


def _ids(*rows: list[int]) -> list[NDArray[np.int32]]:
    return [np.array(row, np.int32) for row in rows]


def _targets(
    queries: list[list[int]], products: list[list[int]], log: list[tuple[int, int, float]], **settings: Any
) -> tuple[Targets, Targets]:
    pairs = np.array([(q, p) for q, p, _ in log], np.int64).reshape(-1, 2)
    weights = np.array([w for *_, w in log], np.float32)
    return make_targets(_lexicon(**settings), _ids(*queries), _ids(*products), pairs, weights)


def _row(targets: Targets, i: int) -> dict[int, Any]:
    attributes, weights = targets.row(i)
    assert attributes.tolist() == sorted(set(attributes.tolist()))
    return {a: pytest.approx(w) for a, w in zip(attributes.tolist(), weights.tolist(), strict=True)}


def test_a_query_says_what_its_clicked_products_have_by_their_share() -> None:
    # Query 0 holds a; product 0 (a, b) is clicked three times as much as product 1 (b, c, e).
    of_queries, _ = _targets([[0], [3]], [[0, 1], [1, 2, 4]], [(0, 0, 3.0), (0, 1, 1.0), (1, 1, 2.0)])
    assert _row(of_queries, 0) == {0: 1.0, 1: 1.0, 2: 0.25}  # e is lexical only
    assert _row(of_queries, 1) == {1: 1.0, 2: 1.0, 3: 1.0}


def test_a_product_says_what_searchers_mention_and_what_its_queries_name() -> None:
    # Product 1 holds b and c; of its two queries one names a, both name c.
    _, of_products = _targets([[0, 2], [2]], [[0], [1, 2], []], [(0, 1, 1.0), (1, 1, 1.0)])
    assert _row(of_products, 0) == {0: 0.5}
    assert _row(of_products, 1) == {
        0: 0.25 + 0.5 / 2,  # not in its text, named by half of its queries
        1: 0.2,  # lexical
        2: 0.1 + 0.5,  # lexical and named by both
    }
    assert _row(of_products, 2) == {}


def test_no_weight_exceeds_one() -> None:
    _, of_products = _targets([[3]], [[3]], [(0, 0, 1.0)])
    assert _row(of_products, 0) == {3: 1.0}  # .9 + .5


def test_without_a_log_there_are_the_lexical_attributes() -> None:
    of_queries, of_products = _targets([[0, 4]], [[2, 4], []], [])
    assert _row(of_queries, 0) == {0: 1.0}
    assert _row(of_products, 0) == {2: pytest.approx(0.1)}
    assert _row(of_products, 1) == {}


@pytest.mark.parametrize(("queries", "products"), [([], []), ([[]], [[0]]), ([], [[0, 1]])])
def test_every_text_has_its_row(queries: list[list[int]], products: list[list[int]]) -> None:
    of_queries, of_products = _targets(queries, products, [])
    assert len(of_queries.start) == len(queries) + 1
    assert len(of_products.start) == len(products) + 1
    assert of_products.start[-1] == len(of_products.attribute) == len(of_products.weight)


def test_without_learnt_attributes_every_row_is_empty() -> None:
    for targets in _targets([[0, 1]], [[0, 2]], [(0, 0, 1.0)], n_learnt=0):
        assert targets.start.tolist() == [0, 0]
        assert len(targets.attribute) == 0


def _expansions(*rows: list[int]) -> list[NDArray[np.int64]]:
    return [np.array(row, np.int64) for row in rows]


def test_each_side_learns_the_expansions_of_the_other_where_they_are_relevant() -> None:
    # Query 0 led to products 0 and 1. Both are expanded with d, one with b. The query is expanded with c, which product
    # 0 has, and with e, which neither has.
    pairs = np.array([(0, 0), (0, 1)])
    of_queries = Targets(np.array([0, 1]), np.array([0], np.int32), np.array([1.0], np.float32))
    of_products = Targets(np.array([0, 1, 1, 1]), np.array([2], np.int32), np.array([0.1], np.float32))
    queries, products = co_targets(of_queries, of_products, _expansions([2, 4]), _expansions([3, 1], [3], [0]), pairs)
    assert _row(queries, 0) == {0: 1.0, 3: CO_WEIGHT}, "one of two products is expanded with b"
    assert _row(products, 0) == {2: CO_WEIGHT / 2}, "half of the clicked products have c, none has e"
    assert _row(products, 1) == {2: CO_WEIGHT / 2}
    assert _row(products, 2) == {}, "no query leads to it"


def test_no_text_gets_more_than_the_most_and_nothing_is_lost() -> None:
    pairs = np.array([(0, 0)])
    of_queries = Targets(np.array([0, 2]), np.array([0, 1], np.int32), np.array([1.0, 0.75], np.float32))
    of_products = Targets(np.array([0, 1]), np.array([0], np.int32), np.array([0.9], np.float32))
    queries, products = co_targets(
        of_queries, of_products, _expansions([0, 1, 2]), _expansions([1, 2, 3, 4]), pairs, most=1
    )
    assert _row(queries, 0) == {0: 1.0, 1: 0.75, 2: CO_WEIGHT}, "the surest of what is new; b keeps its weight"
    assert _row(products, 0) == {0: 0.9}, "one more at most, and a has the greater weight already"
