"""Postings agree with a dense matrix of keys by products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gram.errors import IndexFolderError
from gram.index.postings import Postings

N_KEYS, N_PRODUCTS = 5, 7
Triple = tuple[int, int, float]

# Eighths are exact in float32, so sums in any order are equal and ties are real ones.
weights = st.integers(-16, 16).map(lambda eighths: eighths / 8)
triples = st.lists(st.tuples(st.integers(0, N_KEYS - 1), st.integers(0, N_PRODUCTS - 1), weights), max_size=40)
queries = st.lists(st.tuples(st.integers(0, N_KEYS - 1), weights), max_size=6)


def build(rows: list[Triple]) -> Postings:
    keys, products, weights = zip(*rows, strict=True) if rows else ((), (), ())
    return Postings.build(keys, products, weights, N_KEYS)


def dense(rows: list[Triple], n_products: int = N_PRODUCTS) -> NDArray[np.float64]:
    matrix = np.zeros((N_KEYS, n_products))
    for key, product, weight in rows:
        matrix[key, product] += weight
    return matrix


def as_rows(postings: Postings) -> list[Triple]:
    """Every posting in the order in which it is stored."""
    return [
        (key, int(product), float(weight))
        for key in range(postings.n_keys)
        for product, weight in zip(*postings.of(key), strict=True)
    ]


def in_order(rows: list[Triple]) -> list[Triple]:
    return sorted(rows, key=lambda row: (row[0], -row[2], row[1]))


@given(triples, queries)
def test_scores_are_those_of_a_dense_matrix(rows: list[Triple], query: list[tuple[int, float]]) -> None:
    postings = build(rows)
    assert as_rows(postings) == in_order(rows)
    assert len(postings) == len(rows)
    keys, query_weights = [key for key, _ in query], [weight for _, weight in query]
    expected = sum((weight * dense(rows)[key] for key, weight in query), np.zeros(N_PRODUCTS))
    scores = postings.score(keys, query_weights, N_PRODUCTS)
    assert scores.dtype == np.float32
    assert scores.tolist() == expected.tolist()
    out = np.ones(N_PRODUCTS, dtype=np.float32)
    postings.accumulate(keys, query_weights, out)
    assert out.tolist() == (expected + 1).tolist()
    assert postings.touched(keys) == sum(row[0] == key for key in keys for row in rows)


@given(triples)
def test_transposed_twice_is_the_same(rows: list[Triple]) -> None:
    by_product = build(rows).transpose(N_PRODUCTS)
    assert by_product.n_keys == N_PRODUCTS
    assert as_rows(by_product) == in_order([(product, key, weight) for key, product, weight in rows])
    assert as_rows(by_product.transpose(N_KEYS)) == in_order(rows)


def test_by_hand() -> None:
    postings = build([(3, 6, 0.5), (0, 2, 1.0), (3, 1, 2.0), (3, 0, 0.5)])
    assert postings.start.tolist() == [0, 1, 1, 1, 4, 4]
    assert postings.product.tolist() == [2, 1, 0, 6]
    assert postings.weight.tolist() == [1.0, 2.0, 0.5, 0.5]
    assert postings.score([3, 0], [2.0, 10.0], N_PRODUCTS).tolist() == [1.0, 4.0, 10.0, 0.0, 0.0, 0.0, 1.0]
    assert postings.lengths(np.array([3, 0, 1, N_KEYS])).tolist() == [3, 1, 0, 0]


@pytest.mark.parametrize("mmap", [True, False])
def test_saved_and_loaded(tmp_path: Path, mmap: bool) -> None:
    rows = [(3, 6, 0.5), (0, 2, 1.0), (3, 1, 2.0)]
    build(rows).save(tmp_path, "codes")
    build([]).save(tmp_path, "attributes")
    loaded = Postings.load(tmp_path, "codes", mmap=mmap)
    assert isinstance(loaded.weight.base, np.memmap) == mmap
    assert as_rows(loaded) == in_order(rows)
    assert loaded.score([3], [1.0], N_PRODUCTS).tolist() == dense(rows)[3].tolist()
    assert as_rows(Postings.load(tmp_path, "attributes", mmap=mmap)) == []


def test_a_folder_without_usable_postings_is_named(tmp_path: Path) -> None:
    with pytest.raises(IndexFolderError, match=r"no usable array.*make the folder again"):
        Postings.load(tmp_path, "codes")
    build([(0, 2, 1.0)]).save(tmp_path, "codes")
    np.save(tmp_path / "codes.weight.npy", np.zeros(3, dtype=np.float32))
    with pytest.raises(IndexFolderError, match=r"codes\.start\.npy: runs from 0 to"):
        Postings.load(tmp_path, "codes")


@pytest.mark.parametrize(
    ("keys", "products", "weights", "message"),
    [
        ([N_KEYS], [0], [1.0], "keys must be 0 to 4"),
        ([-1], [0], [1.0], "keys must be 0 to 4"),
        ([0], [-1], [1.0], "products ≥ 0"),
        ([0], [0, 1], [1.0], "of one length"),
        ([0, 1], [0, 1], [1.0, np.nan], "the weight at 1 is not finite"),
    ],
)
def test_what_is_no_posting_is_refused(
    keys: list[int], products: list[int], weights: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Postings.build(keys, products, weights, N_KEYS)


def test_questions_without_an_answer_are_refused() -> None:
    postings = build([(0, 6, 1.0)])
    with pytest.raises(ValueError, match="keys must be 0 to 4, not -1"):
        postings.score([-1], [1.0], N_PRODUCTS)
    with pytest.raises(ValueError, match="1 keys, but 2 weights"):
        postings.score([0], [1.0, 2.0], N_PRODUCTS)
    with pytest.raises(ValueError, match="product 6, but there are only 6 products"):
        postings.score([0], [1.0], 6)
