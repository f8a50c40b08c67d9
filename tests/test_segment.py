"""The index folder comes back as it was saved, or says which file is wrong and how to mend it."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gram.arrays import SparseRows
from gram.codes.trie import CodeTrie
from gram.errors import DataError, IndexFolderError, IndexMismatch
from gram.index.bm25 import BM25Index
from gram.index.code_rows import CodeRows
from gram.index.nearest import Sketch
from gram.index.postings import Postings
from gram.index.segment import Index, same_model, value_scores
from gram.index.table import ProductTable
from gram.index.titles import Titles
from gram.index.token_vectors import TokenVectors
from gram.records import Product

SHELF = [Product("b7", "Red shoes", value=3.0), Product("a1", "Red hat"), Product("c3", "Blue dw713", value=8.0)]


def make(model_hash: str = "abc123", **parts: Any) -> Index:
    """Three products; attributes 0 red, 1 blue, 2 shoe are the model's, the lexicon lacks 3 (dw713)."""
    texts = [["red", "shoe"], ["red", "hat"], ["blue", "dw713"]]
    bm25, vectors = BM25Index.build(texts), np.arange(6, dtype=np.float32).reshape(3, 2)
    index = Index(
        table=ProductTable.build(SHELF),
        bm25=bm25,
        lexical=Postings.build([0, 0, 1, 2, 3], [0, 1, 2, 0, 2], [1.0, 0.5, 1.0, 2.0, 3.0], n_keys=4),
        expansion=Postings.build([1, 2], [0, 1], [0.25, 0.5], n_keys=3),
        compound=Postings.build([0, 1, 1], [0, 2, 0], [-1.0, -0.5, -2.0], n_keys=2),
        code_rows=CodeRows.build(
            SparseRows.build([0, 1, 2, 0, 2], [0, 0, 1, 2, 3], [1.0, 0.5, 1.0, 2.0, 3.0], 3),
            SparseRows.build([0, 1], [1, 2], [0.25, 0.5], 3),
        ),
        slots=np.eye(3, 2, dtype=bool),
        trie=CodeTrie.build(np.array([[0, 2], [1, -1]])),
        dense=vectors,
        sketch=Sketch.build(vectors),
        titles=Titles.build(texts, bm25),
        token_vectors=TokenVectors(np.array([0, 2, 4, 5]), np.arange(10, dtype=np.int8).reshape(5, 2)),
        value=value_scores(SHELF),
        extra_words=["dw713"],
        extra_counts=np.array([1], dtype=np.int64),
        meta={"model_hash": model_hash, "model": "models/shop", "keep": 40},
    )
    return dataclasses.replace(index, **parts)


@pytest.mark.parametrize("mmap", [True, False])
def test_saved_and_opened_it_is_the_same(mmap: bool, tmp_path: Path) -> None:
    index = make()
    index.save(tmp_path / "index")
    opened = Index.open(tmp_path / "index", mmap=mmap)
    assert (opened.n_products, opened.width) == (3, 2)
    assert list(opened.table) == SHELF
    assert opened.bm25.score(["red", "hat"]).tolist() == index.bm25.score(["red", "hat"]).tolist()
    for name in ("lexical", "expansion", "compound"):
        for array in ("start", "product", "weight"):
            loaded, given = getattr(getattr(opened, name), array), getattr(getattr(index, name), array)
            assert (loaded.dtype, loaded.tolist()) == (given.dtype, given.tolist())
    assert opened.trie.table()[:, :3].tolist() == [[0, 2, -1], [1, -1, -1]]
    for name in ("dense", "value", "extra_counts"):
        loaded, given = getattr(opened, name), getattr(index, name)
        assert (loaded.dtype, loaded.tolist()) == (given.dtype, given.tolist())
        assert loaded.flags.writeable == (not mmap)
    assert opened.token_vectors.start.tolist() == index.token_vectors.start.tolist()
    assert opened.token_vectors.vectors.tolist() == index.token_vectors.vectors.tolist()
    assert opened.extra_words == ["dw713"]
    opened.save(tmp_path / "index")  # also onto itself, while it is mapped
    assert Index.open(tmp_path / "index").meta == opened.meta


def test_meta_tells_what_the_folder_is(tmp_path: Path) -> None:
    make().save(tmp_path / "index")
    meta = json.loads((tmp_path / "index" / "meta.json").read_text())
    assert meta.pop("created_with").startswith("gram ")
    assert meta == {
        "format_version": 6,
        "model_hash": "abc123",
        "model": "models/shop",
        "keep": 40,
        "n_products": 3,
        "width": 2,
    }


def test_another_model_is_refused(tmp_path: Path) -> None:
    make("abc123").save(tmp_path / "index")
    meta = Index.open(tmp_path / "index").meta
    same_model(tmp_path / "index", meta, "abc123")
    with pytest.raises(IndexMismatch, match=r"abc123.*def456.*Fix: gram index MODEL PRODUCTS -o .*index"):
        same_model(tmp_path / "index", meta, "def456")


def test_every_file_is_missed_when_it_is_gone_or_cut(tmp_path: Path) -> None:
    make().save(tmp_path / "index")
    files = sorted(f for f in (tmp_path / "index").iterdir() if f.name != "checksums.json")
    assert len(files) == 37
    for file in files:
        whole = file.read_bytes()
        for content in (None, whole[:-1], b""):
            file.unlink()
            if content is not None:
                file.write_bytes(content)
            if content == whole[:-1] and file.name == "meta.json":
                continue  # only its last line break is gone
            with pytest.raises(IndexFolderError, match=f"{file.name}.*Fix: gram index MODEL PRODUCTS -o"):
                Index.open(tmp_path / "index", check=True)
            file.write_bytes(whole)
    Index.open(tmp_path / "index", check=True)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format_version": 9, "created_with": "gram 9.0"}, r"gram 9\.0 wrote format version 9, and this gram reads 6"),
        ({"format_version": None}, "no format version"),
        ({"model_hash": None}, "lacks model_hash"),
        ({"n_products": 4}, "4 products.*of 3 and 2"),
        ({"width": 3}, "width 3"),
    ],
)
def test_a_meta_that_cannot_be_used(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    make().save(tmp_path / "index")
    path = tmp_path / "index" / "meta.json"
    meta = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in meta.items() if value is not None}))
    with pytest.raises(IndexFolderError, match=f"{told}.*Fix: gram index"):
        Index.open(tmp_path / "index")


def test_a_folder_without_an_index(tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(IndexFolderError, match=r"meta\.json: there is no such file.*Fix: gram index"):
            Index.open(folder)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"value": np.zeros(2, np.float32)}, "3 products, but value"),
        ({"value": np.zeros(3)}, "value is float64"),
        ({"dense": np.zeros((4, 2), np.float32)}, "3 products, but dense"),
        ({"dense": np.zeros((3, 2))}, "float64"),
        ({"dense": np.zeros(3, np.float32)}, "dense is"),
        ({"bm25": BM25Index.build([["red"]])}, "3 products, but bm25"),
        ({"compound": Postings.build([0], [0], [1.0], n_keys=1)}, "2 code ids, but compound postings for 1"),
        ({"extra_words": []}, "0 extra words"),
        ({"lexical": Postings.build([0], [3], [1.0], n_keys=4)}, "'lexical' has a posting of product 3"),
        ({"meta": {"model": "models/shop"}}, "lacks model_hash"),
    ],
)
def test_parts_that_do_not_fit_are_not_written(parts: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        make(**parts).save(tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["value.npy", "dense.npy", "extra_counts.npy"])
def test_arrays_at_odds_are_found_when_opened(name: str, tmp_path: Path) -> None:
    make().save(tmp_path / "index")
    path = tmp_path / "index" / name
    array = np.load(path)
    np.save(path, np.concatenate([array, array]))
    with pytest.raises(IndexFolderError, match=f"{path.stem.replace('_', ' ').split()[-1]}.*Fix: gram index"):
        Index.open(tmp_path / "index")


def test_a_strangers_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="not ours"):
        make().save(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_kill_in_the_middle_leaves_the_old_index_whole(tmp_path: Path) -> None:
    make("old").save(tmp_path / "index")
    script = """
import os, signal, sys
import gram.index.segment as segment
index = segment.Index.open(sys.argv[1])
segment.write_json = lambda path, obj: os.kill(os.getpid(), signal.SIGKILL)
index.meta["model_hash"] = "new"
index.save(sys.argv[1])
"""
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "index")], check=False)
    assert killed.returncode == -signal.SIGKILL
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".draft.index", ".lock.index", "index"]  # what it had begun stands beside the old one
    left = Index.open(tmp_path / "index")
    assert (left.meta["model_hash"], list(left.table)) == ("old", SHELF)
    make("new").save(tmp_path / "index")
    assert Index.open(tmp_path / "index").meta["model_hash"] == "new"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_index_replaced_while_it_is_opened_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("old").save(tmp_path / "index")
    load = BM25Index.load
    replaced: list[bool] = []

    def replace_once(folder: Path, mmap: bool = True) -> BM25Index:
        if not replaced:
            replaced.append(True)
            make("new", dense=np.zeros((3, 5), np.float32)).save(tmp_path / "index")
        return load(folder, mmap)

    monkeypatch.setattr(BM25Index, "load", staticmethod(replace_once))
    opened = Index.open(tmp_path / "index")
    assert (opened.meta["model_hash"], opened.width) == ("new", 5)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([None, None], [0, 0]),
        ([7.0], [0.5]),
        ([7.0, 7.0], [0.5, 0.5]),
        ([2.0, None, -1.0, float("nan")], [1, 0.5, 0, 0.5]),
        ([10.0, 1e9, 10.0, 20.0, 5.0], [0.375, 1, 0.375, 0.75, 0]),  # ranks 1½ 4 1½ 3 0 of 0 … 4
    ],
)
def test_values_become_ranks(values: list[float | None], expected: list[float]) -> None:
    scores = value_scores(Product(str(i), "", value=value) for i, value in enumerate(values))
    assert scores.dtype == np.float32
    assert scores.tolist() == expected
