"""Cells of vectors: what is near is found without reading all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gram.errors import IndexFolderError
from gram.index.cells import FEW, Cells


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Three times as many as stand in one cell, in clusters as products do."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(60, 24))
    return unit(centres[random.integers(60, size=3 * FEW)] + 0.5 * random.normal(size=(3 * FEW, 24)))


def test_few_products_are_searched_exactly(vectors: np.ndarray) -> None:
    few = vectors[:500]
    found = Cells.build(few).nearest(few, vectors[600], 20)
    assert found.tolist() == np.argsort(-(few @ vectors[600]), kind="stable")[:20].tolist()


def test_many_are_searched_nearly_so(vectors: np.ndarray) -> None:
    cells = Cells.build(vectors)
    assert sorted(cells.product.tolist()) == list(range(len(vectors)))
    random = np.random.default_rng(1)
    queries = unit(vectors[random.integers(len(vectors), size=30)] + 0.1 * random.normal(size=(30, 24)))
    shares = []
    for query in queries:
        exact = np.argsort(-(vectors @ query))[:50]
        shares.append(np.isin(exact, cells.nearest(vectors, query, 50)).mean())
    assert np.mean(shares) > 0.9


def test_the_same_seed_makes_the_same_cells(vectors: np.ndarray) -> None:
    one, two = Cells.build(vectors, seed=3), Cells.build(vectors, seed=3)
    assert one.product.tolist() == two.product.tolist()
    assert one.start.tolist() == two.start.tolist()


def test_saved_and_loaded_they_are_the_same(vectors: np.ndarray, tmp_path: Path) -> None:
    cells = Cells.build(vectors[:100])
    cells.save(tmp_path)
    assert (
        Cells.load(tmp_path).nearest(vectors[:100], vectors[5], 3).tolist()
        == cells.nearest(vectors[:100], vectors[5], 3).tolist()
    )
    np.save(tmp_path / "cells.product.npy", cells.product[:50])
    with pytest.raises(IndexFolderError, match="build the index again"):
        Cells.load(tmp_path)
