"""A coder that is no encoder is indexed, searched and reported like any other: only the protocol is asked of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np
import pytest

import gram.search
from gram.arrays import SparseRow, SparseRows, offsets
from gram.coder.base import QUERY_CODING, Coder, CodingSettings, Representations, Side
from gram.codes.lexicon import Lexicon
from gram.codes.trie import CodeTrie
from gram.index.token_vectors import UNIT, TokenVectors
from gram.indexing import build_index
from gram.ranking.scorer import Scorer
from gram.records import Attribute, Product
from gram.search import Searcher, affordable
from gram.text.fields import field_texts
from gram.text.words import stems
from gram.training.health import measure_health

SOFA, COUCH, RED, BLUE = range(4)
SAME = {SOFA: COUCH, COUCH: SOFA}
WIDTH = 16
LEXICON = Lexicon(
    attributes=[
        Attribute("type", "sofa"),
        Attribute("type", "couch"),
        Attribute("color", "red"),
        Attribute("color", "blue"),
    ],
    forms=[[("sofa",)], [("couch",)], [("red",)], [("blue",)]],
    n_learnt=4,
    products=np.array([2, 1, 2, 2], dtype=np.float32),
    queries=np.ones(4, dtype=np.float32),
    mention_rate=np.full(4, 0.5, dtype=np.float32),
    n_products=5,
    slots=("type", "color", "modifier"),
)
PRODUCTS = [
    Product("s1", "Red sofa"),
    Product("s2", "Blue sofa", description="three seats"),
    Product("c1", "Blue couch"),
    Product("l1", "Red lamp"),
    Product("l2", "Floor lamp", brand="Zumbrel"),
]


@dataclass(frozen=True)
class SynonymCoder:
    """Knows that a couch is a sofa; a stem's vector is random, a text's the sum of its stems'."""

    query_coding = QUERY_CODING

    lexicon: Lexicon
    trie: CodeTrie

    def represent(
        self, texts: Sequence[str] | Sequence[Product], side: Side, settings: CodingSettings, progress: str = ""
    ) -> Representations:
        rows = [stems(" ".join(t for _, t in field_texts(x)) if isinstance(x, Product) else x, "porter") for x in texts]
        lexical = [dict.fromkeys((tag.attribute for tag in self.lexicon.tagger.tag(row)), 2.0) for row in rows]
        expansion = [{SAME[a]: 1.0 for a in row if a in SAME and SAME[a] not in row} for row in lexical]
        compound = [
            {4: 1.0} if settings.codes and {RED, SOFA} <= {*a, *b} else {}
            for a, b in zip(lexical, expansion, strict=True)
        ]
        vectors = np.array([vector(stem) for row in rows for stem in row]).reshape(-1, WIDTH)
        start = offsets(np.array([len(row) for row in rows]))
        dense = np.array([sum((vector(stem) for stem in row), np.zeros(WIDTH)) for row in rows]).reshape(-1, WIDTH)
        dense /= np.linalg.norm(dense, axis=1, keepdims=True).clip(1e-9)
        return Representations(
            sparse(lexical),
            sparse(expansion),
            np.full(sum(map(len, expansion)), 0.9, dtype=np.float32),
            sparse(compound),
            dense.astype(np.float32),
            TokenVectors(start, np.rint(vectors * UNIT).astype(np.int8)),
            np.repeat(1 / np.maximum(np.diff(start), 1), np.diff(start)).astype(np.float32),
        )

    def with_words(self, words: Mapping[str, int]) -> SynonymCoder:
        return replace(self, lexicon=self.lexicon.extend(dict(words)))

    def knows(self, word: str) -> bool:
        return self.lexicon.id_of((word,)) >= 0


def vector(stem: str) -> np.ndarray:
    drawn = np.random.default_rng(crc32(stem.encode())).normal(size=WIDTH)
    return drawn / np.linalg.norm(drawn)


def sparse(rows: Sequence[Mapping[int, float]]) -> SparseRows:
    entries = [(i, key, weight) for i, row in enumerate(rows) for key, weight in row.items()]
    return SparseRows.build(*([entry[part] for entry in entries] for part in range(3)), n_rows=len(rows))


@pytest.fixture
def coder() -> Coder:
    codes = np.array([[SOFA, -1], [COUCH, -1], [RED, -1], [BLUE, -1], [SOFA, RED]])
    return SynonymCoder(LEXICON, CodeTrie.build(codes))


@pytest.fixture
def searcher(coder: Coder) -> Searcher:
    return Searcher(coder, build_index(coder, PRODUCTS), Scorer.default())


def test_a_synonym_is_found_through_the_coders_expansions(searcher: Searcher) -> None:
    assert [hit.product_id for hit in searcher.search("red couch", k=2)] == ["s1", "c1"]
    hit = searcher.search("red couch", k=1, explain=True)[0]
    assert [(shared.code, shared.query_source, shared.product_source) for shared in hit.codes] == [
        ((Attribute("type", "sofa"),), "expansion", "lexical"),
        ((Attribute("type", "couch"),), "lexical", "expansion"),
        ((Attribute("color", "red"),), "lexical", "lexical"),
        ((Attribute("type", "couch"), Attribute("color", "red")), "lexical", "expansion"),
    ]
    # weights of the two sides are 2 for what a text holds, 1 for expansions
    assert hit.features["lexical_expansion"] == pytest.approx(1.5 * 2 * 1)
    assert hit.features["expansion_lexical"] == pytest.approx(3.0 * 1 * 2)
    assert hit.features["lexical_lexical"] == pytest.approx(0.4 * 2 * 2)
    assert sum(hit.features.values()) == pytest.approx(hit.score, rel=1e-4)


def test_words_that_the_lexicon_lacks_are_learnt_from_the_catalogue(searcher: Searcher) -> None:
    assert "zumbrel" in searcher.index.extra_words
    assert searcher.search("zumbrel", k=1)[0].product_id == "l2"
    assert searcher.read("floor lampp").text == "floor lamp"


def test_one_by_one_and_many_at_once_are_the_same(searcher: Searcher) -> None:
    queries = {"a": "red couch", "b": "lamp", "c": ""}
    run = searcher.search_many(queries, k=3)
    assert run == {i: {hit.product_id: hit.score for hit in searcher.search(q, k=3)} for i, q in queries.items()}
    assert run["c"] == {}


def test_of_a_querys_expansions_those_are_kept_that_are_worth_their_postings() -> None:
    """1, .5, .4 and .1 a posting; of 12 that may be touched 2 + 4 + 5 are, and the third's 10 are too many."""
    expansion = SparseRow(np.array([7, 3, 9, 4]), np.array([2.0, 2.0, 4.0, 0.5], dtype=np.float32))
    kept = affordable(expansion, np.array([2, 4, 10, 5]), 12)
    assert (kept.key.tolist(), kept.weight.tolist()) == ([7, 3, 4], [2.0, 2.0, 0.5])
    assert affordable(expansion, np.array([2, 4, 10, 5]), 0).key.tolist() == []
    assert affordable(expansion, np.zeros(4, dtype=np.int64), 0).key.tolist() == [7, 3, 9, 4], "newer than the index"


def test_a_searcher_asks_for_what_is_worth_its_postings(searcher: Searcher) -> None:
    """Couches are 3 postings, of those that hold the word and those that were given it: not for 2, for any number."""
    few = Searcher(searcher.coder, searcher.index, searcher.scorer, replace(QUERY_CODING, postings=2))
    every = Searcher(searcher.coder, searcher.index, searcher.scorer, replace(QUERY_CODING, postings=0))
    assert few.represent(["sofa"])[0].expansion.key.tolist() == []
    assert searcher.coding.postings == 3_000
    assert every.represent(["sofa"])[0].expansion.key.tolist() == [COUCH]


@pytest.mark.parametrize(("of", "postings", "kept"), [(5, 2, []), (4, 2, []), (3, 2, [COUCH]), (50, 3, [COUCH])])
def test_a_larger_index_affords_more_postings(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch, of: int, postings: int, kept: list[int]
) -> None:
    """Five products are 5/4 of four, and 2 · 5/4 is less than the 3 postings of couches; 2 · 5/3 is more. A smaller one
    affords what is set."""
    monkeypatch.setattr(gram.search, "PRODUCTS", of)
    some = Searcher(searcher.coder, searcher.index, searcher.scorer, replace(QUERY_CODING, postings=postings))
    assert some.represent(["sofa"])[0].expansion.key.tolist() == kept


def test_its_health_can_be_measured(searcher: Searcher) -> None:
    report = measure_health(searcher, {"red couch": {"s1": 1.0}})
    assert report["products"]["expansion"] == pytest.approx(3 / 5)
    assert report["queries"]["grounded"] == 1.0
    assert report["queries"]["compound_alone"]["R@300"] == 1.0
