"""Evidence of a hand-made index, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from gram.codes.trie import CodeTrie
from gram.index.bm25 import BM25Index
from gram.index.nearest import Sketch
from gram.index.postings import Postings
from gram.index.segment import Index
from gram.index.table import ProductTable
from gram.index.titles import KINDS, Titles
from gram.index.token_vectors import UNIT, TokenVectors
from gram.ranking.candidates import EVIDENCE, Candidates, QueryRepresentation, find_candidates
from gram.records import Product

TEXTS = [["red", "hose", "50", "ft"], ["hose", "25", "ft"], ["lamp"], ["garden", "pipe"]]


@pytest.fixture
def index() -> Index:
    words, vectors = BM25Index.build(TEXTS), np.eye(4, 2, dtype=np.float32)
    return Index(
        table=ProductTable.build([Product(str(i), " ".join(t)) for i, t in enumerate(TEXTS)]),
        words=words,
        lexical=Postings.build([0, 0, 1], [0, 1, 3], [2.0, 1.0, 1.5], n_keys=3),
        expansion=Postings.build([0, 2], [3, 2], [0.5, 1.0], n_keys=3),
        compound=Postings.build([0, 0], [0, 3], [0.5, 0.25], n_keys=1),
        trie=CodeTrie.build(np.array([[0, 1]])),
        vectors=vectors,
        sketch=Sketch.build(vectors),
        titles=Titles.build(TEXTS, words),
        pieces=TokenVectors(
            np.array([0, 2, 3, 3, 4]), np.array([[UNIT, 0], [0, UNIT], [UNIT, 0], [0, -UNIT]], dtype=np.int8)
        ),
        value=np.array([0.0, 1.0, 0.5, 0.25], dtype=np.float32),
        extra_words=[],
        extra_counts=np.zeros(0, dtype=np.int64),
        meta={"model_hash": "", "model": ""},
    )


def represented(
    stems: list[str], lexical: dict[int, float], expansion: dict[int, float], compound: dict[int, float]
) -> QueryRepresentation:
    parts = [
        (np.array(list(d), dtype=np.int64), np.array(list(d.values()), dtype=np.float32))
        for d in (lexical, expansion, compound)
    ]
    pieces = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    weights = np.array([0.75, 0.25], dtype=np.float32)
    return QueryRepresentation(
        stems, parts[0], parts[1], parts[2], np.array([0.6, 0.8], dtype=np.float32), pieces, weights
    )


def by_position(found: Candidates) -> dict[int, dict[str, float]]:
    rows = zip(found.positions.tolist(), found.features.tolist(), strict=True)
    return {p: dict(zip(EVIDENCE, f, strict=True)) for p, f in rows}


def test_every_kind_of_evidence_by_hand(index: Index) -> None:
    query = represented(["hose", "50", "ft"], lexical={0: 3.0}, expansion={1: 2.0}, compound={0: 1.0})
    found = find_candidates(index, query, np.ones(len(EVIDENCE), np.float32), keep=4)
    rows = {
        int(p): dict(zip(EVIDENCE, f.tolist(), strict=True))
        for p, f in zip(found.positions, found.features, strict=True)
    }
    assert sorted(rows) == [0, 1, 2, 3], "the lamp shares no code and no word, and is found by its vector"
    assert not any(rows[2][kind] for kind in ("own_own", "own_written", "written_own", "words", "covered"))
    assert rows[0]["own_own"] == 6.0
    assert rows[1]["own_own"] == 3.0
    assert rows[3]["own_written"] == 1.5
    assert rows[3]["written_own"] == 3.0
    assert rows[0]["deep"] == 0.5
    assert rows[0]["vectors"] == pytest.approx(0.6)
    assert rows[1]["vectors"] == pytest.approx(0.8)
    assert rows[1]["value"] == 1.0
    assert rows[0]["covered"] == pytest.approx(1.0)
    assert rows[0]["all_covered"] == 1.0
    idf = {s: index.words.idf(s) for s in ("hose", "50", "ft")}
    assert rows[1]["covered"] == pytest.approx((idf["hose"] + idf["ft"]) / sum(idf.values()), rel=1e-5)
    assert rows[1]["all_covered"] == 0.0


def test_a_measure_of_another_size_is_contradicted(index: Index) -> None:
    query = represented(["hose", "50", "ft"], lexical={0: 1.0}, expansion={}, compound={})
    found = find_candidates(index, query, np.ones(len(EVIDENCE), np.float32), keep=4)
    rows = {
        int(p): dict(zip(EVIDENCE, f.tolist(), strict=True))
        for p, f in zip(found.positions, found.features, strict=True)
    }
    assert (rows[0]["numbers"], rows[0]["contradicted"]) == (1.0, 0.0)
    assert (rows[1]["numbers"], rows[1]["contradicted"]) == (0.0, 1.0)


def test_where_words_stand_in_a_title(index: Index) -> None:
    query = represented(["hose", "50", "ft"], lexical={0: 3.0}, expansion={}, compound={})
    found = by_position(find_candidates(index, query, np.ones(len(EVIDENCE), np.float32), keep=4))
    idf = {s: index.words.idf(s) for s in ("hose", "50", "ft")}
    whole = {k: found[0][k] for k in KINDS}  # "red hose 50 ft"
    assert whole["title_covered"] == pytest.approx(1.0)
    assert whole["adjacent"] == pytest.approx(1.0)
    assert whole["last"] == 1.0
    part = {k: found[1][k] for k in KINDS}  # "hose 25 ft"
    assert part["adjacent"] == 0.0, "50 does not stand between hose and ft"
    assert part["title_covered"] == pytest.approx((idf["hose"] + idf["ft"]) / (idf["hose"] + idf["50"] + idf["ft"]))
    assert part["last"] == 1.0
    assert not any(found[2][k] for k in KINDS), "the lamp's title names nothing"


def test_each_piece_of_a_query_is_met_by_the_nearest_of_a_products(index: Index) -> None:
    query = represented(
        ["hose", "50", "ft"], lexical={}, expansion={}, compound={}
    )  # pieces along both axes, ¾ and ¼ of the weight
    found = by_position(find_candidates(index, query, np.ones(len(EVIDENCE), np.float32), keep=4))
    met = {p: (row["maxsim"], row["least_maxsim"]) for p, row in found.items()}
    assert met == {0: (1.0, 1.0), 1: (0.75, 0.0), 2: (0.0, 0.0), 3: (-0.25, -1.0)}, "the lamp has no pieces"


def test_a_query_without_pieces_is_met_nowhere(index: Index) -> None:
    query = represented(["hose"], {}, {}, {})._replace(pieces=np.zeros((0, 2), np.float32), token_weights=np.zeros(0))
    found = find_candidates(index, query, np.ones(len(EVIDENCE), np.float32), keep=4)
    assert len(found.positions)
    assert not found.features[:, [EVIDENCE.index("maxsim"), EVIDENCE.index("least_maxsim")]].any()


def test_titles_like_those_of_the_best_by_hand(index: Index) -> None:
    idf = {s: index.words.idf(s) for text in TEXTS for s in text}
    unit = [{s: idf[s] / sum(idf[t] ** 2 for t in text) ** 0.5 for s in text} for text in TEXTS]
    share = {0: 0.75, 3: 0.25}  # "red hose 50 ft" and "garden pipe" were found best
    expected = [sum(share[b] * unit[b].get(s, 0.0) * w for b in share for s, w in title.items()) for title in unit]
    likeness = index.titles.likeness(
        index.titles.read(np.arange(4)),
        np.array(list(share)),
        np.array(list(share.values()), dtype=np.float32),
    )
    assert likeness == pytest.approx(expected, rel=1e-5)
    assert likeness[0] > likeness[1] > likeness[2] == 0.0


def test_a_word_said_twice_makes_a_title_no_more_like_itself() -> None:
    texts = [["2", "in", "2", "in"], ["2", "in"], ["hose"]]
    words = BM25Index.build(texts)
    titles = Titles.build(texts, words)
    likeness = titles.likeness(titles.read(np.arange(3)), np.array([0]), np.ones(1, dtype=np.float32))
    assert likeness.tolist() == pytest.approx([1.0, 1.0, 0.0])


def test_the_best_are_kept(index: Index) -> None:
    query = represented(["hose", "50", "ft"], lexical={0: 3.0}, expansion={}, compound={})
    weights = np.ones(len(EVIDENCE), np.float32)
    every = find_candidates(index, query, weights, keep=4)
    two = find_candidates(index, query, weights, keep=2)
    best = every.positions[np.argsort(-(every.features @ weights))][:2]
    assert two.positions.tolist() == best.tolist()


def test_without_weight_for_vectors_they_find_nothing(index: Index) -> None:
    weights = np.ones(len(EVIDENCE), np.float32)
    weights[EVIDENCE.index("vectors")] = 0.0
    found = find_candidates(index, represented(["hose"], lexical={}, expansion={}, compound={}), weights, keep=4)
    assert sorted(found.positions.tolist()) == [0, 1]


def test_with_nothing_in_common_it_finds_what_is_near(index: Index) -> None:
    found = find_candidates(index, represented(["sofa"], {}, {}, {}), np.ones(len(EVIDENCE), np.float32), keep=4)
    assert sorted(found.positions.tolist()) == [0, 1, 2, 3]
    assert not found.features[:, : EVIDENCE.index("vectors")].any()


def test_without_words_it_finds_nothing(index: Index) -> None:
    found = find_candidates(index, represented([], {}, {}, {}), np.ones(len(EVIDENCE), np.float32), keep=4)
    assert len(found.positions) == 0


def test_keys_newer_than_the_index_are_passed_over(index: Index) -> None:
    found = find_candidates(index, represented(["lamp"], {99: 5.0}, {}, {}), np.ones(len(EVIDENCE), np.float32), keep=4)
    assert by_position(found)[2]["own_own"] == 0.0
    assert found.positions[0] == 2
