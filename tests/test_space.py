"""The code space: a case by hand, its promises on random texts, and a reference that tries every subset."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gram.codes.lexicon import Lexicon
from gram.codes.space import LONGEST, MAX_LEARNT, CodeSpace, CodeTargets, SpaceSettings, _make_keys, make_space
from gram.codes.targets import Targets
from gram.errors import SettingError
from gram.records import Attribute

Row = dict[int, float]
Code = tuple[int, ...]

# id, slot, value, products that hold it. Slot order is type, brand, colour, so codes run 3, 0, 1, 4, 2, 5.
ATTRIBUTES = [
    ("brand", "acme", 4),
    ("brand", "bolt", 2),
    ("colour", "red", 3),
    ("type", "rake", 5),
    ("brand", "acme pro", 1),
    ("colour", "blue", 2),
    ("type", "zx9", 1),
]


def _lexicon(n_learnt: int = 6) -> Lexicon:
    return Lexicon(
        attributes=[Attribute(slot, value) for slot, value, _ in ATTRIBUTES],
        forms=[[tuple(value.split())] for _, value, _ in ATTRIBUTES],
        n_learnt=n_learnt,
        products=np.array([n for *_, n in ATTRIBUTES], np.float32),
        queries=np.zeros(7, np.float32),
        mention_rate=np.full(7, 0.1, np.float32),
        n_products=10,
    )


def _targets(rows: list[Row]) -> Targets:
    return Targets(
        np.cumsum([0] + [len(r) for r in rows]),
        np.array([a for r in rows for a in sorted(r)], np.int32),
        np.array([r[a] for r in rows for a in sorted(r)], np.float32),
    )


def _codes(space: CodeSpace) -> list[Code]:
    return [tuple(a for a in row if a >= 0) for row in space.codes.tolist()]


def _row(space: CodeSpace, targets: CodeTargets, i: int) -> dict[Code, float]:
    at = slice(targets.start[i], targets.start[i + 1])
    codes = _codes(space)
    return {codes[c]: float(w) for c, w in zip(targets.code[at].tolist(), targets.weight[at].tolist(), strict=True)}


def test_a_case_by_hand() -> None:
    # Two red acme rakes; a query for a red rake; a blue bolt, alone with its code.
    products = [{3: 1.0, 0: 0.5, 2: 0.5}, {3: 1.0, 0: 0.5, 2: 0.5}, {1: 1.0, 5: 1.0}]
    space = make_space(_lexicon(), _targets([{3: 1.0, 2: 1.0}, {1: 1.0}]), _targets(products))
    assert _codes(space) == [(0,), (1,), (2,), (3,), (4,), (5,), (0, 2), (3, 0), (3, 0, 2), (3, 2)]
    assert space.products.tolist() == [4, 2, 3, 5, 1, 2, 2, 2, 2, 2]
    # The query has one code; a product four, all as rare, weighted by the geometric mean of their attributes.
    assert _row(space, space.of_queries, 0) == {(3, 2): 1.0}
    assert _row(space, space.of_queries, 1) == {}
    sure = {(3, 0): 0.5 ** (1 / 2), (3, 2): 0.5 ** (1 / 2), (0, 2): 0.5, (3, 0, 2): 0.25 ** (1 / 3)}
    assert _row(space, space.of_products, 0) == {c: pytest.approx(s / sum(sure.values())) for c, s in sure.items()}
    assert _row(space, space.of_products, 2) == {}


def test_a_code_that_a_query_and_one_product_share_exists_and_one_that_only_queries_share_does_not() -> None:
    queries = [{3: 1.0, 2: 1.0}, {1: 1.0, 5: 1.0}, {1: 1.0, 5: 1.0}]
    space = make_space(_lexicon(), _targets(queries), _targets([{3: 1.0, 2: 1.0}]))
    assert _codes(space)[6:] == [(3, 2)]


def test_no_code_repeats_a_word() -> None:
    text = {0: 0.9, 4: 0.8, 3: 0.5}  # acme pro is rarer than acme, so it goes first and acme stays out
    space = make_space(_lexicon(), _targets([]), _targets([text, text]))
    assert _codes(space)[6:] == [(3, 4)]


def test_the_codes_that_most_share_are_kept_when_there_are_too_many() -> None:
    products = [{3: 1.0, 2: 1.0}] * 3 + [{3: 1.0, 5: 1.0}] * 2 + [{1: 1.0, 2: 1.0}]
    space = make_space(_lexicon(), _targets([{1: 1.0, 2: 1.0}]), _targets(products), SpaceSettings(max_codes=2))
    assert set(_codes(space)[6:]) == {(3, 2), (1, 2)}  # what a searcher shares counts five times


@pytest.mark.parametrize(("queries", "products"), [([], []), ([{}], [{}]), ([], [{3: 1.0}]), ([{2: 1.0, 3: 1.0}], [])])
def test_where_nothing_combines_there_are_single_attributes_only(queries: list[Row], products: list[Row]) -> None:
    space = make_space(_lexicon(), _targets(queries), _targets(products))
    assert _codes(space) == [(a,) for a in range(6)]
    assert space.of_queries.start.tolist() == [0] * (len(queries) + 1)
    assert space.of_products.start.tolist() == [0] * (len(products) + 1)


def test_without_learnt_attributes_there_are_no_codes() -> None:
    space = make_space(_lexicon(0), _targets([{}]), _targets([{}, {}]))
    assert space.codes.shape == (0, 6)
    assert len(space.products) == 0


def test_lexical_attributes_do_not_count_against_the_size_of_keys() -> None:
    lexicon = _lexicon().extend({f"w{i}": 1 for i in range(70_000)})
    text = {3: 1.0, 0: 0.5, 2: 0.5}
    space = make_space(lexicon, _targets([]), _targets([text, text]))
    assert set(_codes(space)[6:]) == {(3, 0), (3, 0, 2), (3, 2), (0, 2)}


def test_keys_tell_all_codes_of_the_largest_lexicon_apart_and_larger_ones_are_refused() -> None:
    last = MAX_LEARNT - 1
    codes = np.array(
        [[last] * LONGEST, [last] * 3 + [last - 1], [0, -1, -1, -1], [0, 0, -1, -1], [1, -1, -1, -1]], np.int32
    )
    keys = _make_keys(codes, MAX_LEARNT)
    assert len(np.unique(keys)) == 5
    assert np.argsort(keys).tolist() == [2, 3, 4, 1, 0]
    with pytest.raises(SettingError, match=r"max_learnt=65535"):
        _make_keys(codes, MAX_LEARNT + 1)


_ROWS = st.lists(st.dictionaries(st.integers(0, 5), st.sampled_from([0.1, 0.25, 0.6, 1.0]), max_size=6), max_size=6)


def _candidates(row: Row, combined: int) -> dict[Code, float]:
    """Every subset of a text's best attributes, and how sure the text is of it."""
    lexicon = _lexicon()
    best: list[int] = []
    for a in sorted(row, key=lambda a: -np.float32(row[a]) * lexicon.idf[a]):
        if len(best) < combined and all(set(lexicon.forms[a][0]).isdisjoint(lexicon.forms[b][0]) for b in best):
            best.append(a)
    best.sort(key=lambda a: (lexicon.slots.index(lexicon.attributes[a].slot), a))
    subsets = [c for n in range(2, LONGEST + 1) for c in combinations(best, n)]
    return {c: math.prod(row[a] for a in c) ** (1 / len(c)) for c in subsets}


@settings(max_examples=60)
@given(_ROWS, _ROWS, st.integers(2, 4))
def test_it_agrees_with_the_reference_that_tries_every_subset(
    queries: list[Row], products: list[Row], combined: int
) -> None:
    queries = [dict(sorted(row.items())) for row in queries]  # of equals, the lowest id goes first
    products = [dict(sorted(row.items())) for row in products]
    space = make_space(_lexicon(), _targets(queries), _targets(products), SpaceSettings(combined=combined))
    of_query = [_candidates(row, combined + 2) for row in queries]
    of_product = [_candidates(row, combined) for row in products]
    by_query, by_product = Counter(c for row in of_query for c in row), Counter(c for row in of_product for c in row)
    exist = {c for c, n in by_product.items() if n >= 2 or by_query[c]}
    assert len(_codes(space)) == 6 + len(exist)  # so none stands twice
    assert _codes(space)[:6] == [(a,) for a in range(6)]
    assert set(_codes(space)[6:]) == exist
    assert space.products[6:].tolist() == [by_product[c] for c in _codes(space)[6:]]
    for targets, texts in ((space.of_queries, of_query), (space.of_products, of_product)):
        assert len(targets.start) == len(texts) + 1
        for i, text in enumerate(texts):
            worth = {c: sure * max(math.log(11 / (by_product[c] + 0.5)), 0.1) for c, sure in text.items() if c in exist}
            expected = {c: pytest.approx(w / sum(worth.values()), rel=1e-4) for c, w in worth.items()}
            assert _row(space, targets, i) == expected
            assert not worth or sum(_row(space, targets, i).values()) == pytest.approx(1.0)
