"""Cuts of queries: by shared words, by numbers, and with a typo put in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gram.data.dataset import Dataset, Judged
from gram.evaluation.groups import keyword_gap_queries, misspell_query, no_common_word, with_numbers
from gram.records import Product

SHOP = [
    Product("1", "Road Runners for Men", description="A sneaker."),
    Product("2", "Three-Seat Sofa"),
    Product("3", "Couch Cover"),
]
QUERIES = {
    "synonym": "sneakers for men's feet",
    "gap": "sneakers for him",
    "plural": "sofas",
    "other": "couch",
    "nothing": "tent",
    "absent": "x",
}
QRELS = {
    "synonym": {"1": 3.0},
    "gap": {"1": 3.0},
    "plural": {"2": 3.0},
    "other": {"2": 2.0, "3": 1.0},
    "nothing": {"1": 0.0},
    "absent": {"9": 3.0},
}


def test_no_common_word() -> None:
    # "for" is no common word, "men" and "Men" are, and so are "sofas" and "Sofa"; product 3 is not relevant
    assert no_common_word({**QUERIES, "synonym": "men shoes"}, QRELS, SHOP) == ["gap", "other"]
    assert no_common_word(QUERIES, QRELS, SHOP, ("title", "description")) == ["other"]


def test_gap_queries_read_every_field() -> None:
    dataset = Dataset(SHOP, [], {"dev": Judged({}, {}), "test": Judged(QUERIES, QRELS)})
    assert keyword_gap_queries(dataset) == ["other"]
    assert keyword_gap_queries(dataset, "dev") == []


def test_with_numbers() -> None:
    assert with_numbers({"a": "2 ft planter", "b": "planter", "c": "KR-2240", "d": "4k tv"}) == ["a", "c", "d"]


@pytest.mark.parametrize("query", ["tv", "red hat", "kr2240 9x12", ""])
def test_short_words_and_numbers_stay(query: str) -> None:
    assert all(misspell_query(query, seed) == query for seed in range(5))


def test_every_way_to_slip() -> None:
    found = {misspell_query("tent", seed) for seed in range(200)}
    assert {"tnet", "tet", "tentt", "tebt"} <= found  # swapped, dropped, doubled, neighbouring key
    assert misspell_query("tent", 7) == misspell_query("tent", 7)


@given(st.text("abcdefg 12", max_size=30), st.integers(0, 1000))
def test_one_typo_in_one_word(query: str, seed: int) -> None:
    new = misspell_query(query, seed)
    old_words, new_words = query.split(" "), new.split(" ")
    changed = [(old, word) for old, word in zip(old_words, new_words, strict=True) if old != word]
    long_enough = any(len(run) >= 4 for word in old_words for run in word.replace("1", " ").replace("2", " ").split())
    assert len(changed) == (1 if long_enough else 0)
    assert all(abs(len(old) - len(word)) <= 1 and old[0] == word[0] for old, word in changed)
