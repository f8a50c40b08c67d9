"""BM25 by impact postings: worked out by hand, against its formula written out slowly, and against bm25s."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gram.errors import IndexFolderError, SettingError
from gram.index.bm25 import BM25Index

SHELF = [["red", "shoe"], ["red", "red", "hat"], ["long", "blue", "coat"], []]

texts = st.lists(st.lists(st.sampled_from("abcdef"), max_size=8), max_size=7)
queries = st.lists(st.sampled_from("abcdefgh"), max_size=6)


def test_scores_by_hand() -> None:
    # "red" is in 2 of 4 products: log(1 + 2.5/2.5) = log 2. The mean length is 2, so the lengths' parts are
    # .9·(.25 + .75·2/2) = .9 for two words and .9·(.25 + .75·3/2) = 1.2375 for three.
    red = [math.log(2) / 1.9, math.log(2) * 2 / 3.2375, 0, 0]
    # "hat" is in 1: log(1 + 3.5/1.5) = log(10/3), divided by 1 + 1.2375.
    hat = [0, math.log(10 / 3) / 2.2375, 0, 0]
    bm25 = BM25Index.build(SHELF)
    assert bm25.score(["red", "hat"]).tolist() == pytest.approx([r + h for r, h in zip(red, hat, strict=True)])
    assert bm25.score(["red", "parrot", "red"]).tolist() == pytest.approx([2 * r for r in red])
    assert bm25.score([]).tolist() == bm25.score(["parrot"]).tolist() == [0, 0, 0, 0]
    assert bm25.score(["red"]).dtype == np.float32


def test_what_is_known_of_a_stem() -> None:
    bm25 = BM25Index.build(SHELF)
    assert ("red" in bm25, "parrot" in bm25, len(bm25)) == (True, False, 6)
    assert bm25.holding("red").tolist() == [1, 0]  # twice among three words says more than once among two
    assert bm25.holding("parrot").tolist() == []
    assert [bm25.document_frequency(stem) for stem in ("red", "coat", "parrot")] == [2, 1, 0]
    # log(1 + (4 − 2 + ½)/(2 + ½)) and, of no product, log(1 + (4 + ½)/½)
    assert [bm25.idf("red"), bm25.idf("parrot")] == pytest.approx([math.log(2), math.log(10)])


@given(texts, queries, st.sampled_from([0.0, 0.9, 2.0]), st.sampled_from([0.0, 0.4, 1.0]))
def test_agrees_with_the_formula(shelf: list[list[str]], query: list[str], k1: float, b: float) -> None:
    bm25 = BM25Index.build(iter(shelf), k1, b)
    expected = []
    for text in shelf:
        score = 0.0
        for stem in query:
            n_holding, f = sum(stem in other for other in shelf), text.count(stem)
            mean = sum(map(len, shelf)) / len(shelf)
            if f:
                idf = math.log(1 + (len(shelf) - n_holding + 0.5) / (n_holding + 0.5))
                score += idf * f / (f + k1 * (1 - b + b * len(text) / mean))
        expected.append(score)
    assert bm25.score(query).tolist() == pytest.approx(expected, rel=1e-5)


def test_agrees_with_bm25s() -> None:
    bm25s = pytest.importorskip("bm25s")
    rng = np.random.default_rng(3)
    vocabulary = [f"w{i}" for i in range(60)]
    shelf = [
        [vocabulary[int(i)] for i in rng.zipf(1.4, size=rng.integers(1, 30)) % len(vocabulary)] for _ in range(300)
    ]
    reference = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
    reference.index(shelf, show_progress=False)
    bm25 = BM25Index.build(shelf, k1=1.2, b=0.75)
    for query in (["w1"], ["w1", "w7", "w7"], ["w59", "w40", "w3", "w2"]):
        assert all(stem in bm25 for stem in query)
        np.testing.assert_allclose(bm25.score(query), reference.get_scores(query), rtol=1e-5)


def test_out_is_overwritten() -> None:
    bm25 = BM25Index.build(SHELF)
    out = np.full(4, 9, dtype=np.float32)
    assert bm25.score(["red"], out) is out
    assert out.tolist() == bm25.score(["red"]).tolist()
    with pytest.raises(ValueError, match="4 products"):
        bm25.score(["red"], np.zeros(5, dtype=np.float32))


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("shelf", [SHELF, [["größe", "½", "мир", "靴"]], [[], []], []])
def test_saved_and_loaded_it_is_the_same(shelf: list[list[str]], mmap: bool, tmp_path: Path) -> None:
    bm25 = BM25Index.build(shelf, k1=1.5, b=0.25)
    bm25.save(tmp_path)
    loaded = BM25Index.load(tmp_path, mmap)
    assert (loaded.ids, loaded.n_products, loaded.k1, loaded.b) == (bm25.ids, len(shelf), 1.5, 0.25)
    assert isinstance(loaded.postings.weight.base, np.memmap) == mmap
    query = ["red", "coat", "größe", "靴", "parrot"]
    assert loaded.score(query).tolist() == bm25.score(query).tolist()
    assert (tmp_path / "bm25.txt").read_text(encoding="utf-8").split() == list(bm25.ids)


def test_a_segment_scores_as_the_index_that_it_is_like() -> None:
    """Whatever that one's settings are: a product of both has one score in both."""
    whole = BM25Index.build(SHELF, k1=0.3, b=0.1)
    segment = BM25Index.build(SHELF[1:2], like=whole)
    assert (segment.k1, segment.b, segment.mean_length) == (0.3, 0.1, whole.mean_length)
    for word in SHELF[1]:
        assert segment.score([word])[0] == pytest.approx(whole.score([word])[1])
        assert segment.score([word])[0] > 0


def test_what_cannot_be_built() -> None:
    for k1, b in ((-1, 0.4), (0.9, 1.1), (math.nan, 0.4)):
        with pytest.raises(SettingError, match="k1"):
            BM25Index.build(SHELF, k1, b)
    for stem in ("", "two\nlines"):
        with pytest.raises(ValueError, match="no stem"):
            BM25Index.build([[stem]])


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("bm25.txt", None, "bm25.txt"),
        ("bm25.txt", b"red\nshoe\nha", "middle of a word"),
        ("bm25.txt", b"red\nred\nshoe\n", "2 different words, but postings for 6"),
        ("bm25.txt", b"r\xffd\n", "bm25.txt"),
        ("bm25.json", b'{"k1": 0.9}', "bm25.json"),
        ("bm25.json", b"[]", "bm25.json"),
        ("bm25.weight.npy", None, "bm25.weight.npy"),
    ],
)
def test_a_damaged_file_is_named_with_the_fix(name: str, content: bytes | None, told: str, tmp_path: Path) -> None:
    BM25Index.build(SHELF).save(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(IndexFolderError, match=f"{told}.*Fix: "):
        BM25Index.load(tmp_path)
