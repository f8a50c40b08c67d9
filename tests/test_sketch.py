"""A sketch of vectors: what is near is found without reading all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gram.errors import IndexFolderError
from gram.index.nearest import FEW, WIDTH, Sketch


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Three times as many as are all read, wider than a sketch, their variance falling as that of texts does."""
    rng = np.random.default_rng(0)
    return unit(rng.normal(size=(3 * FEW, 2 * WIDTH)) / np.sqrt(np.arange(1, 2 * WIDTH + 1)))


def nearest(vectors: np.ndarray, query: np.ndarray, k: int) -> list[int]:
    return np.argsort(-(vectors @ query), kind="stable")[:k].tolist()


def test_few_products_are_searched_exactly(vectors: np.ndarray) -> None:
    few = vectors[:500]
    assert Sketch.build(few).nearest(few, vectors[600], 20).tolist() == nearest(few, vectors[600], 20)


def test_many_are_searched_nearly_so(vectors: np.ndarray) -> None:
    sketch = Sketch.build(vectors)
    assert sketch.coordinates.shape == (WIDTH, len(vectors))
    rng = np.random.default_rng(1)
    queries = unit(vectors[rng.integers(len(vectors), size=30)] + 0.05 * rng.normal(size=(30, 2 * WIDTH)))
    shares = [np.isin(nearest(vectors, q, 50), sketch.nearest(vectors, q, 50)).mean() for q in queries]
    assert np.mean(shares) > 0.95


def test_a_catalogue_that_lists_colours_in_turn_is_read_evenly() -> None:
    """A sample of every fourth product would be of one colour alone."""
    rng = np.random.default_rng(2)
    colours = 3 * np.eye(4, 2 * WIDTH)
    forms = rng.normal(size=(4096, 1, 2 * WIDTH)) / np.sqrt(np.arange(1, 2 * WIDTH + 1))
    vectors = unit((forms + colours).reshape(-1, 2 * WIDTH))
    sketch = Sketch.build(vectors)
    for colour in range(4):
        query = unit(vectors[[colour]] + 0.05 * rng.normal(size=(1, 2 * WIDTH)))[0]
        assert np.isin(nearest(vectors, query, 300), sketch.nearest(vectors, query, 300)).mean() > 0.95


def test_as_many_as_asked_come_back(vectors: np.ndarray) -> None:
    """Also where many products are the same to the sketch, and where the border is told from a few."""
    same = np.concatenate([np.repeat(vectors[:1], 2 * FEW, axis=0), vectors[:FEW]])
    for rows in (same, vectors):
        sketch = Sketch.build(rows)
        for k in (1, 300, len(rows) // 2, len(rows)):
            found = sketch.nearest(rows, vectors[7], k)
            assert len(np.unique(found)) == k
            assert (np.diff(rows[found] @ vectors[7]) <= 1e-6).all()


def test_saved_and_loaded_it_is_the_same(vectors: np.ndarray, tmp_path: Path) -> None:
    sketch = Sketch.build(vectors)
    sketch.save(tmp_path)
    again = Sketch.load(tmp_path)
    assert again.nearest(vectors, vectors[5], 3).tolist() == sketch.nearest(vectors, vectors[5], 3).tolist()
    np.save(tmp_path / "sketch.axes.npy", sketch.axes[:50])
    with pytest.raises(IndexFolderError, match="build the index again"):
        Sketch.load(tmp_path)
