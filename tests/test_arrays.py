"""Best of many, and ragged rows, against lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gram.arrays import SparseRows, each_once, offsets, ragged, top_k

weights = st.integers(-16, 16).map(lambda eighths: eighths / 8)  # few, so that ties are common
lists = st.lists(st.lists(st.tuples(st.integers(0, 9), weights), max_size=4), max_size=6)


@given(st.lists(weights | st.just(-np.inf), max_size=30), st.integers(0, 35))
def test_top_k_is_the_head_of_a_full_sort(values: list[float], k: int) -> None:
    scores = np.array(values, dtype=np.float32)
    ids = np.random.default_rng(len(values)).permutation(100)[: len(values)]
    for positions, given_ids in ((ids, ids), (np.arange(len(values)), None)):
        expected = sorted(zip(positions.tolist(), values, strict=True), key=lambda pair: (-pair[1], pair[0]))[:k]
        found, found_scores = top_k(scores, k, given_ids)
        assert list(zip(found.tolist(), found_scores.tolist(), strict=True)) == expected


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(ValueError, match="score at 1 is not a number"):
        top_k(np.array([0.0, np.nan]), 1)
    with pytest.raises(ValueError, match="2 scores, but 1 ids"):
        top_k(np.zeros(2), 1, np.array([7]))


@given(st.lists(st.integers(-5, 5)))
def test_each_once_is_a_sorted_set(values: list[int]) -> None:
    assert each_once(np.array(values, dtype=np.int64)).tolist() == sorted(set(values))


@given(lists)
def test_sparse_rows_are_lists_of_pairs(rows: list[list[tuple[int, float]]]) -> None:
    flat = [(row, key, weight) for row, pairs in enumerate(rows) for key, weight in pairs]
    shuffled = sorted(flat, key=lambda entry: entry[1])  # by key: a row's entries keep this order
    made = SparseRows.build(*([entry[i] for entry in shuffled] for i in range(3)), n_rows=len(rows))
    assert made.counts().tolist() == [len(pairs) for pairs in rows]
    assert made.rows().tolist() == [row for row, _, _ in flat]
    for i, pairs in enumerate(rows):
        row = made.of(i)
        expected = sorted(pairs, key=lambda pair: pair[0])
        assert list(zip(row.key.tolist(), row.weight.tolist(), strict=True)) == expected


@given(lists, st.data())
def test_ragged_reads_some_rows_after_one_another(rows: list[list[tuple[int, float]]], data: st.DataObject) -> None:
    counts = np.array([len(pairs) for pairs in rows], dtype=np.int64)
    start = offsets(counts)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=6)) if rows else []
    picked = np.array(chosen, dtype=np.int64)
    at, row = ragged(start[picked], counts[picked])
    flat = [pair for pairs in rows for pair in pairs]
    assert [flat[i] for i in at.tolist()] == [pair for i in chosen for pair in rows[i]]
    assert row.tolist() == [n for n, i in enumerate(chosen) for _ in rows[i]]
