"""Features: by hand on a small index, and against a slow computation over every product of drawn ones."""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gram.ranking
from gram.arrays import SparseRow, SparseRows
from gram.coder.base import NearAttributes, QueryCodes, QueryRepresentation, QueryTerms
from gram.codes.slots import SLOTS
from gram.codes.trie import CodeTrie
from gram.errors import SettingError
from gram.index.bm25 import BM25Index
from gram.index.code_rows import CodeRows
from gram.index.entries import gather, likeness
from gram.index.nearest import Sketch
from gram.index.postings import Postings
from gram.index.segment import Index
from gram.index.table import ProductTable
from gram.index.titles import Titles
from gram.index.token_vectors import UNIT, TokenVectors
from gram.ranking import candidates as first_phase
from gram.ranking.candidates import Candidates, find_candidates
from gram.ranking.features import BEST, DEFAULTS_ALONE, FEATURES, GROUPS, NAMES, SLOT_FEATURES, columns, read_left_out
from gram.ranking.scorer import Scorer
from gram.records import Product
from gram.text.analysis import default_analyzer

Rows = list[dict[int, float]]  # what each product has: {key: weight}

TITLES = [["red", "hose", "50", "ft"], ["hose", "25", "ft"], ["lamp"], ["garden", "pipe"]]
SLOT_OF = [SLOTS.index(slot) for slot in ("type", "brand", "colour", "colour", "size")]  # of the five attributes
EVERY = np.ones(len(NAMES), np.float32)


def make_index(
    titles: Sequence[Sequence[str]],
    texts: Sequence[Sequence[str]],
    codes: Mapping[str, Rows],
    dense: np.ndarray,
    tokens: Sequence[Sequence[Sequence[int]]],
) -> Index:
    """An index of given representations. `texts` are the stems of all fields; `tokens` are vectors in units of UNIT."""
    bm25, n = BM25Index.build(texts), len(titles)
    postings, sparse_rows = {}, {}
    slots = np.zeros((n, len(SLOTS) + 1), dtype=bool)
    for row, keys in enumerate(codes["lexical"]):
        slots[row, [SLOT_OF[key] for key in keys]] = True
    for name, rows in codes.items():
        triples = [(key, row, weight) for row, keys in enumerate(rows) for key, weight in keys.items()]
        columns = [list(part) for part in zip(*triples, strict=True)]
        postings[name] = Postings.build(*columns, n_keys=5)
        sparse_rows[name] = SparseRows.build(columns[1], columns[0], columns[2], n)
    start = np.cumsum([0, *map(len, tokens)])
    return Index(
        table=ProductTable.build([Product(str(i), " ".join(title)) for i, title in enumerate(titles)]),
        bm25=bm25,
        **postings,
        code_rows=CodeRows.build(sparse_rows["lexical"], sparse_rows["expansion"]),
        slots=slots,
        trie=CodeTrie.build(np.arange(5)[:, None]),
        dense=dense.astype(np.float32),
        sketch=Sketch.build(dense.astype(np.float32)),
        titles=Titles.build(titles, bm25),
        token_vectors=TokenVectors(start, np.array([v for text in tokens for v in text], np.int8).reshape(-1, 2)),
        value=np.arange(n, dtype=np.float32)[::-1] / 4,
        extra_words=[],
        extra_counts=np.zeros(0, dtype=np.int64),
        meta={"model_hash": "", "model": ""},
    )


@pytest.fixture
def index() -> Index:
    codes: dict[str, Rows] = {
        "lexical": [{0: 2.0}, {0: 1.0}, {}, {1: 1.5}],
        "expansion": [{}, {}, {2: 1.0}, {0: 0.5}],
        "compound": [{0: 0.5}, {}, {}, {0: 0.25}],
    }
    tokens = [[[UNIT, 0], [0, UNIT]], [[UNIT, 0]], [], [[0, -UNIT]]]
    return make_index(TITLES, TITLES, codes, np.eye(4, 2), tokens)


def sparse(row: Mapping[int, float]) -> SparseRow:
    return SparseRow(np.array(list(row), dtype=np.int64), np.array(list(row.values()), dtype=np.float32))


def make_query(
    text: str,
    lexical: Mapping[int, float] | None = None,
    expansion: Mapping[int, float] | None = None,
    compound: Mapping[int, float] | None = None,
    near: Mapping[int, Mapping[int, float]] | None = None,
    code_vectors: Any = None,
) -> QueryRepresentation:
    keys = sorted(lexical or {})
    close = [(0, a, b, like) for a, row in (near or {}).items() for b, like in row.items()]
    columns = [np.array(part) for part in zip(*close, strict=True)] if close else []
    of_each = NearAttributes(*columns).by_key(np.array(keys, dtype=np.int64)) if close else None
    importance = np.array([(lexical or {})[k] ** 2 for k in keys], dtype=np.float32)
    slots = np.array([SLOT_OF[k] if 0 <= k < 5 else 0 for k in keys], dtype=np.int32)
    apart = ~np.eye(len(keys), dtype=bool)
    return QueryRepresentation(
        QueryTerms.read(text, default_analyzer()),
        QueryCodes(np.array(keys, dtype=np.int64), importance / max(importance.sum(), 1e-9), slots, apart, of_each),
        *(sparse(row or {}) for row in (lexical, expansion, compound)),
        dense=np.array([0.6, 0.8], dtype=np.float32),
        token_vectors=np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32),
        token_weights=np.array([0.75, 0.25], dtype=np.float32),
        code_vectors=None if code_vectors is None else np.array(code_vectors, dtype=np.float32),
    )


def by_row(found: Candidates) -> dict[int, dict[str, float]]:
    rows = zip(found.rows.tolist(), found.features.tolist(), strict=True)
    return {row: dict(zip(NAMES, features, strict=True)) for row, features in rows}


# --- by hand --------------------------------------------------------------------------------------------------------


def test_a_word_with_a_stop_words_stem_tells_something() -> None:
    assert list(QueryTerms.read("one shirt in xs for the x", default_analyzer()).telling) == ["on", "shirt", "x"]
    assert not QueryTerms.read("on the x", default_analyzer()).telling


def test_features_by_hand(index: Index) -> None:
    query = make_query("hose 50 ft", lexical={0: 3.0}, expansion={1: 2.0}, compound={0: 1.0})
    rows = by_row(find_candidates(index, query, EVERY, keep=4))
    assert sorted(rows) == [0, 1, 2, 3], "the lamp shares no code and no word, and is found by its vector"
    of_postings = ("lexical_lexical", "lexical_expansion", "expansion_lexical", "bm25", "idf_coverage")
    assert not any(rows[2][name] for name in of_postings)
    assert rows[0]["lexical_lexical"] == 6.0
    assert rows[1]["lexical_lexical"] == 3.0
    assert rows[3]["lexical_expansion"] == 1.5
    assert rows[3]["expansion_lexical"] == 3.0
    assert rows[0]["compound"] == 0.5
    assert rows[0]["dense"] == pytest.approx(0.6)
    assert rows[1]["dense"] == pytest.approx(0.8)
    assert rows[1]["value"] == 0.5
    assert rows[0]["idf_coverage"] == pytest.approx(1.0)
    assert rows[0]["full_coverage"] == 1.0
    idf = {s: index.bm25.idf(s) for s in ("hose", "50", "ft")}
    assert rows[1]["idf_coverage"] == pytest.approx((idf["hose"] + idf["ft"]) / sum(idf.values()), rel=1e-5)
    assert rows[1]["full_coverage"] == 0.0


def test_a_measure_of_another_size_is_a_conflict(index: Index) -> None:
    rows = by_row(find_candidates(index, make_query("hose 50 ft", lexical={0: 1.0}), EVERY, keep=4))
    assert (rows[0]["number_match"], rows[0]["measure_conflict"]) == (1.0, 0.0)
    assert (rows[1]["number_match"], rows[1]["measure_conflict"]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("query", "left_out"),
    [
        ("boots without laces for men", [["lace"]]),
        ("boots without any laces", [["lace"]]),
        ("pants without mesh liner pockets", [["mesh", "liner"]]),
        ("pencils not 2 but 3", []),
        ("boots without", []),
        ("no frizz shampoo", []),
    ],
)
def test_what_a_query_leaves_out(query: str, left_out: list[list[str]]) -> None:
    assert QueryTerms.read(query, default_analyzer()).left_out == left_out


def test_what_a_query_leaves_out_counts_against_the_title_that_has_it() -> None:
    titles = {
        "boots with laces": 1.0, "laces": 1.0, "boots without any new laces": 0.0, "lace-free boots": 0.0, "boots": 0.0,
        "boots not": 0.0, "laces of leather": 1.0, "no": 0.0, "laces of felt, not": 1.0, "anti laces": 0.0,
        "anti slip laces": 1.0, "brown laces": 1.0, "free laces": 1.0,
    }  # fmt: skip
    stems = [default_analyzer().stems(title) for title in titles]
    codes: dict[str, Rows] = {part: [{0: 1.0}] * len(titles) for part in ("lexical", "expansion", "compound")}
    index = make_index(stems, stems, codes, np.eye(len(titles), 2), [[]] * len(titles))

    def found(query: str) -> list[float]:
        asked = read_left_out(make_query(query, lexical={0: 1.0}), [index])
        rows = by_row(find_candidates(index, asked, EVERY, keep=len(titles)))
        return [rows[row]["left_out"] for row in range(len(titles))]

    assert found("boots without laces for men") == list(titles.values())
    read, terms = index.titles.read(np.arange(len(titles))), QueryTerms.read("not laces", default_analyzer())
    stated = index.titles.state(index.bm25, ["lace"], terms.negations, read)
    assert stated.tolist() == list(titles.values()), "a title denies nothing of the next one, nor of the one before"
    assert found("boots without laces red") == list(titles.values()), "no title says laces red: laces are meant"
    assert sum(found("boots without new laces")) == 0, "a title says new laces: these are meant, and it has none"


def test_what_a_product_lacks_counts_by_the_nearest_that_it_has(index: Index) -> None:
    near = {0: {2: 0.5, 1: 0.25, 4: 0.9}, 3: {1: 1.0}}
    rows = by_row(find_candidates(index, make_query("hose", lexical={0: 2.0, 3: 1.0}, near=near), EVERY, keep=4))
    found = [rows[row]["soft_share"] for row in range(4)]
    of_the_lamp = 0.8 * (1 - 0.5 / 1.5) * 0.25 + 0.2 * 1.0  # it was given a third of what it lacks of the first
    assert found == pytest.approx([0.0, 0.0, 0.8 * 0.5, of_the_lamp])
    unknown = make_query("hose", lexical={0: 2.0, 3: 1.0})
    assert not any(row["soft_share"] for row in by_row(find_candidates(index, unknown, EVERY, keep=4)).values())


def test_codes_are_compared_as_vectors(index: Index) -> None:
    """By their embeddings, so that codes of other words meet; those from 3 on have none here."""
    vectors = [[1.0, 0.0], [0.0, 2.0], [0.6, 0.8]]
    query = make_query("hose", lexical={0: 2.0, 4: 9.0}, expansion={2: 1.0}, code_vectors=vectors)
    asked = np.array([2.6, 0.8]) / math.hypot(2.6, 0.8)
    rows = by_row(find_candidates(index, query, EVERY, keep=4))
    lamp = np.array([0.5, 3.0]) / math.hypot(0.5, 3.0)  # holds 1, was given 0
    of_each = [asked[0], asked[0], asked @ [0.6, 0.8], asked @ lamp]
    assert [rows[row]["code_cosine"] for row in range(4)] == pytest.approx(of_each, abs=1e-6)
    without = query._replace(codes=query.codes.leaving_out(frozenset({0})))
    rows = by_row(find_candidates(index, without, EVERY, keep=4))
    assert [rows[row]["code_cosine"] for row in (0, 2)] == pytest.approx([0.6, 1.0]), "0 is not wanted"
    for nothing in (make_query("hose", {0: 2.0}), make_query("hose", {4: 1.0}, code_vectors=vectors)):
        rows = by_row(find_candidates(index, nothing, EVERY, keep=4))
        assert not any(row["code_cosine"] for row in rows.values())
    rows = by_row(find_candidates(index, make_query("hose", {0: 2.0}), EVERY, keep=4))
    assert not any(row["prf_code_cosine"] for row in rows.values()), "a coder without embeddings"


def test_what_a_title_says_behind_for_alone_counts_against_it() -> None:
    titles = {
        "laptop of lenovo": 0.0, "battery for lenovo laptop": 1.0, "laptop battery for lenovo": 0.0, "for laptop": 0.0,
        "laptop for men for lenovo": 0.0, "battery for men for laptop": 0.5, "battery": 0.0, "lenovo": 0.0,
        "gift for men of any age laptop": 0.0,
    }  # fmt: skip
    stems = [default_analyzer().stems(title) for title in titles]
    codes: dict[str, Rows] = {part: [{0: 1.0}] * len(titles) for part in ("lexical", "expansion", "compound")}
    index = make_index(stems, stems, codes, np.eye(len(titles), 2), [[]] * len(titles))
    idf = {stem: index.bm25.idf(stem) for stem in ("laptop", "lenovo")}
    titles["battery for men for laptop"] = idf["laptop"] / sum(idf.values())
    rows = by_row(find_candidates(index, make_query("lenovo laptop", lexical={0: 1.0}), EVERY, keep=len(titles)))
    assert [rows[row]["only_for"] for row in range(len(titles))] == pytest.approx(list(titles.values()))
    rows = by_row(find_candidates(index, make_query("for lenovo laptop", lexical={0: 1.0}), EVERY, keep=len(titles)))
    assert not any(row["only_for"] for row in rows.values()), "the query names the purpose itself"


def test_where_words_stand_in_a_title(index: Index) -> None:
    rows = by_row(find_candidates(index, make_query("hose 50 ft", lexical={0: 3.0}), EVERY, keep=4))
    idf = {s: index.bm25.idf(s) for s in ("hose", "50", "ft")}
    whole, part = rows[0], rows[1]  # "red hose 50 ft", "hose 25 ft"
    assert whole["title_coverage"] == pytest.approx(1.0)
    assert whole["bigram_proximity"] == pytest.approx(1.0)
    assert whole["last_term"] == 1.0
    assert part["bigram_proximity"] == 0.0, "50 does not stand between hose and ft"
    assert part["title_coverage"] == pytest.approx((idf["hose"] + idf["ft"]) / (idf["hose"] + idf["50"] + idf["ft"]))
    assert part["last_term"] == 1.0
    names = ("title_coverage", "bigram_proximity", "last_term")
    assert not any(rows[2][name] for name in names), "the lamp's title names nothing"


def test_each_token_of_a_query_is_met_by_the_nearest_of_a_products(index: Index) -> None:
    # The query's tokens lie along both axes and weigh ¾ and ¼.
    rows = by_row(find_candidates(index, make_query("hose 50 ft"), EVERY, keep=4))
    met = {row: (features["maxsim"], features["min_maxsim"]) for row, features in rows.items()}
    assert met == {0: (1.0, 1.0), 1: (0.75, 0.0), 2: (0.0, 0.0), 3: (-0.25, -1.0)}, "the lamp has no tokens"


def test_a_query_without_tokens_is_met_nowhere(index: Index) -> None:
    query = make_query("hose")._replace(token_vectors=np.zeros((0, 2), np.float32), token_weights=np.zeros(0))
    found = find_candidates(index, query, EVERY, keep=4)
    assert len(found.rows)
    assert not found.features[:, columns(("tokens",))].any()


def test_titles_like_those_of_the_best_by_hand(index: Index) -> None:
    idf = {s: index.bm25.idf(s) for text in TITLES for s in text}
    unit = [{s: idf[s] / sum(idf[t] ** 2 for t in text) ** 0.5 for s in text} for text in TITLES]
    share = {0: 0.75, 3: 0.25}  # "red hose 50 ft" and "garden pipe" were found best
    expected = [sum(share[b] * unit[b].get(s, 0.0) * w for b in share for s, w in title.items()) for title in unit]
    sought = gather(index.titles.read(np.array(list(share))), np.array(list(share.values()), dtype=np.float32))
    alike = likeness(index.titles.read(np.arange(4)), sought)
    assert alike == pytest.approx(expected, rel=1e-5)
    assert alike[0] > alike[1] > alike[2] == 0.0


def test_a_word_said_twice_makes_a_title_no_more_like_itself() -> None:
    texts = [["2", "in", "2", "in"], ["2", "in"], ["hose"]]
    titles = Titles.build(texts, BM25Index.build(texts))
    alike = likeness(titles.read(np.arange(3)), gather(titles.read(np.array([0])), np.ones(1, dtype=np.float32)))
    assert alike.tolist() == pytest.approx([1.0, 1.0, 0.0])


def test_the_best_are_kept(index: Index) -> None:
    query = make_query("hose 50 ft", lexical={0: 3.0})
    every = find_candidates(index, query, EVERY, keep=4)
    two = find_candidates(index, query, EVERY, keep=2)
    assert two.rows.tolist() == every.rows[np.argsort(-(every.features @ EVERY))][:2].tolist()


def test_without_weight_for_vectors_they_find_nothing(index: Index) -> None:
    weights = np.where(columns(("dense", "prf_codes")), np.float32(0), EVERY)
    assert sorted(find_candidates(index, make_query("hose"), weights, keep=4).rows.tolist()) == [0, 1]


def test_what_shares_codes_with_the_best_is_found_too(index: Index) -> None:
    """The pipe shares no word with the query, but was given what the hoses hold."""
    weights = np.where(columns(("dense",)), np.float32(0), EVERY)
    assert sorted(find_candidates(index, make_query("hose"), weights, keep=4).rows.tolist()) == [0, 1, 3]


def test_with_nothing_in_common_it_finds_what_is_near(index: Index) -> None:
    found = find_candidates(index, make_query("sofa"), EVERY, keep=4)
    assert sorted(found.rows.tolist()) == [0, 1, 2, 3]
    assert not found.features[:, columns(("codes", "bm25")) & ~columns(("prf_codes",))].any()


def test_as_many_more_come_from_postings_where_no_vector_is_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    titles = [["hose"]] * 12
    codes: dict[str, Rows] = {
        part: [{0: 1.0 + row} for row in range(12)] for part in ("lexical", "expansion", "compound")
    }
    index = make_index(titles, titles, codes, np.eye(12, 2), [[]] * 12)
    monkeypatch.setattr(first_phase, "NEAREST", 3)
    monkeypatch.setattr(first_phase, "FROM_FEEDBACK", 0)
    without = np.where(columns(("vectors",)), np.float32(0), EVERY)
    query = make_query("hose", lexical={0: 1.0})
    assert len(find_candidates(index, query, without, keep=12, from_postings=4).rows) == 7
    with_vectors = find_candidates(index, query, EVERY, keep=12, from_postings=4).rows
    assert set(range(8, 12)) <= set(with_vectors.tolist())
    assert len(with_vectors) <= 7


def test_without_words_it_finds_nothing(index: Index) -> None:
    assert len(find_candidates(index, make_query(""), EVERY, keep=4).rows) == 0


def test_keys_newer_than_the_index_are_passed_over(index: Index) -> None:
    found = find_candidates(index, make_query("lamp", lexical={99: 5.0, -1: 1.0}), EVERY, keep=4)
    assert by_row(found)[2]["lexical_lexical"] == 0.0
    assert found.rows[0] == 2


# --- against a slow computation -------------------------------------------------------------------------------------


class Slow:
    """One product and one query, feature by feature, as the features' names say it."""

    def __init__(self, index: Index, texts: Sequence[Sequence[str]], codes: Mapping[str, Rows], row: int) -> None:
        self.index, self.texts, self.codes, self.row = index, texts, codes, row
        self.title = index.table[row].title.split()

    def idf(self, stem: str) -> float:
        n = sum(stem in text for text in self.texts)
        return math.log(1 + (len(self.texts) - n + 0.5) / (n + 0.5))

    def shared(self, row: SparseRow, product: str) -> float:
        has = self.codes[product][self.row]
        return sum(float(w) * has.get(int(k), 0.0) for k, w in zip(row.key, row.weight, strict=True))

    def bm25(self, query: QueryRepresentation) -> float:
        text, score = self.texts[self.row], 0.0
        mean = sum(map(len, self.texts)) / len(self.texts)
        for stem in query.terms.stems:
            f = text.count(stem)
            score += self.idf(stem) * f / (f + 0.9 * (0.25 + 0.75 * len(text) / mean)) if f else 0.0
        return score

    def coverage(self, query: QueryRepresentation, text: Sequence[str]) -> float:
        total = sum(map(self.idf, query.terms.telling)) or 1.0
        return sum(self.idf(stem) for stem in query.terms.telling if stem in text) / total

    def proximity(self, query: QueryRepresentation) -> float:
        pairs = [(a, b) for a, b in pairwise(query.terms.stems) if {a, b} <= set(query.terms.telling)]
        total = sum(self.idf(a) + self.idf(b) for a, b in pairs) or 1.0
        beside = set(pairwise(self.title))
        return sum(self.idf(a) + self.idf(b) for a, b in pairs if (a, b) in beside) / total

    def met(self, query: QueryRepresentation) -> list[float]:
        """How closely each of the query's tokens is met."""
        tokens = self.index.token_vectors.of(self.row)
        return [max(float(one @ token) for token in tokens) for one in query.token_vectors] if len(tokens) else []

    def had(self, query: QueryRepresentation) -> dict[int, float]:
        """How much of each asked attribute the product has."""
        lexical, expansion = self.codes["lexical"], self.codes["expansion"][self.row]
        found = {}
        for key in query.codes.key.tolist():
            usual = [row[key] for row in lexical if key in row]
            mean = sum(usual) / len(usual) if usual else 1.0
            found[key] = 1.0 if key in lexical[self.row] else min(expansion.get(key, 0.0) / max(mean, 1e-6), 1.0)
        return found

    def by_codes(self, query: QueryRepresentation) -> dict[str, float]:
        """The features of what is asked by codes."""
        had, holds = self.had(query), self.codes["lexical"][self.row]
        counts = dict(zip(had, query.codes.importance.tolist(), strict=True))
        slot = dict(zip(had, query.codes.slot.tolist(), strict=True))
        pairs = [(a, b) for a in had for b in had if a < b]
        every = sum(counts[a] * counts[b] for a, b in pairs)
        share = sum(counts[k] * had[k] for k in had)
        has = self.code_vector()
        near = [] if query.codes.near is None else [query.codes.near.of(i) for i in range(len(had))]
        rows = [dict(zip(row.key.tolist(), row.weight.tolist(), strict=True)) for row in near]
        nearest = [max((like for k, like in row.items() if k in has), default=0.0) for row in rows] or [0.0] * len(had)
        telling = [had[k] for k in had if counts[k] >= 0.2 * max(counts.values())]
        found = {
            "lexical_share": sum(counts[k] for k in had if k in holds),
            "code_share": share,
            "code_pairs": sum(counts[a] * counts[b] * had[a] * had[b] for a, b in pairs) / every if pairs else share,
            "weakest_code": min(telling, default=0.0),
            "soft_share": sum(counts[k] * (1 - had[k]) * like for k, like in zip(had, nearest, strict=True)),
        }
        for name in SLOT_FEATURES:
            here = [k for k in had if slot[k] == SLOTS.index(name)]
            wanted = [k for k in here if k not in query.codes.left_out]
            other = any(SLOT_OF[k] == SLOTS.index(name) for k in holds)
            conflict = bool(wanted) and other and not any(had[k] for k in wanted)
            found[f"{name}_agreement"] = sum(counts[k] * had[k] for k in here)
            found[f"{name}_conflict"] = sum(counts[k] for k in wanted) if conflict else 0.0
        return found

    def left_out(self, query: QueryRepresentation) -> float:
        """Of what stands behind "without" in the query, the share that the title says and does not deny; all of it
        where the product holds what is denied."""
        words, title = list(query.terms.stems), self.title
        things = []
        for i, word in enumerate(words):
            rest = words[i + 1 :]
            while word == "without" and rest and rest[0] in ("of", "without"):
                rest = rest[1:]
            ends = [n for n, one in enumerate(rest) if one in ("of", "without")]
            thing = rest[: min([2, *ends])] if word == "without" else []
            things += [thing] if thing and not any(c.isdigit() for c in thing[0]) else []
        beside = {pair for row in range(len(self.texts)) for pair in pairwise(self.index.table[row].title.split())}
        things = [thing if len(thing) == 1 or tuple(thing) in beside else thing[:1] for thing in things]

        def says(stem: str) -> bool:
            places = [i for i, word in enumerate(title) if word == stem]
            denied = ["without" in title[max(0, i - 3) : i] or title[i + 1 : i + 2] == ["free"] for i in places]
            return bool(places) and not any(denied)

        if query.codes.denied & self.codes["lexical"][self.row].keys():
            return float(bool(things))
        return sum(all(map(says, thing)) for thing in things) / max(len(things), 1)

    def only_for(self, query: QueryRepresentation) -> float:
        """What of the query the title says, where all of it stands in the four words behind the first "for"."""
        at = next((i for i, word in enumerate(self.title) if i and word == "for"), len(self.title))
        elsewhere = set(self.title[:at] + self.title[at + 5 :]) & set(query.terms.telling)
        said = "for" in query.terms.stems or elsewhere or at == len(self.title)
        return 0.0 if said else self.coverage(query, self.title)

    def code_vector(self) -> dict[int, float]:
        """The product's attributes, of unit length."""
        both: dict[int, float] = {}
        for part in ("lexical", "expansion"):
            for key, weight in self.codes[part][self.row].items():
                both[key] = both.get(key, 0.0) + weight
        length = math.sqrt(sum(w * w for w in both.values())) or 1.0
        return {key: w / length for key, w in both.items()}

    def embedded(self, query: QueryRepresentation) -> list[float]:
        """The embeddings of the product's codes, added up."""
        assert query.code_vectors is not None
        return add_up(self.code_vector(), query.code_vectors.tolist())

    def features(self, query: QueryRepresentation) -> dict[str, float]:
        """All but those of feedback."""
        text, terms, met = self.texts[self.row], query.terms, self.met(query)
        numbers = [stem in text for stem in terms.telling if any(c.isdigit() for c in stem)]
        conflicts = [unit in text and number not in text for number, unit in terms.measures]
        last = [stem for stem in terms.stems if stem in terms.telling][-1:]
        return {
            "lexical_lexical": self.shared(query.lexical, "lexical"),
            "lexical_expansion": self.shared(query.lexical, "expansion"),
            "expansion_lexical": self.shared(query.expansion, "lexical"),
            "expansion_expansion": self.shared(query.expansion, "expansion"),
            "compound": self.shared(query.compound, "compound"),
            **self.by_codes(query),
            "code_cosine": dot(self.embedded(query), asked_vector(query)),
            "dense": float(self.index.dense[self.row] @ query.dense),
            "bm25": self.bm25(query) / (sum(map(self.idf, terms.stems)) or 1.0),
            "idf_coverage": self.coverage(query, text),
            "full_coverage": float(bool(terms.telling) and set(terms.telling) <= set(text)),
            "number_match": sum(numbers) / max(len(numbers), 1),
            "measure_conflict": sum(conflicts) / max(len(conflicts), 1),
            "left_out": self.left_out(query),
            "title_coverage": self.coverage(query, self.title),
            "bigram_proximity": self.proximity(query),
            "last_term": float(last != [] and last[0] in self.title),
            "only_for": self.only_for(query),
            "maxsim": sum(w * m for w, m in zip(query.token_weights.tolist(), met, strict=True)) if met else 0.0,
            "min_maxsim": min(met, default=0.0),
            "value": float(self.index.value[self.row]),
        }


def add_up(codes: Mapping[int, float], vectors: list[list[float]]) -> list[float]:
    """Of unit length; codes behind the last vector have none."""
    found = [sum(w * vectors[k][i] for k, w in codes.items() if k < len(vectors)) for i in range(len(vectors[0]))]
    length = math.sqrt(dot(found, found)) or 1.0
    return [value / length for value in found]


def asked_vector(query: QueryRepresentation) -> list[float]:
    asked: dict[int, float] = {}
    for part in (query.lexical, query.expansion):
        for key, weight in zip(part.key.tolist(), part.weight.tolist(), strict=True):
            asked[key] = asked.get(key, 0.0) + (0.0 if key in query.codes.left_out else weight)
    assert query.code_vectors is not None
    return add_up(asked, query.code_vectors.tolist())


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def title_vector(one: Slow) -> dict[str, float]:
    length = math.sqrt(sum(one.idf(stem) ** 2 for stem in set(one.title))) or 1.0
    return {stem: one.idf(stem) / length for stem in one.title}


def slowly(
    products: Sequence[Slow],
    query: QueryRepresentation,
    weights: Mapping[str, float],
    by_postings: int,
    nearest: int,
    alike_most: int,
) -> list[tuple[float, int, dict[str, float]]]:
    """(score, row, features) of every candidate, the best first."""

    def sort(scores: Mapping[int, float]) -> list[int]:
        return sorted(scores, key=lambda row: (-scores[row], row))

    features = {one.row: one.features(query) for one in products}
    spoken_for = {f.name for f in FEATURES if f.first_phase}
    said = {row: sum(weights[name] * f[name] for name in spoken_for) for row, f in features.items()}
    first = sort({row: score for row, score in said.items() if score > 0})[:by_postings]
    chosen = set(first)
    if query.terms.stems and chosen and weights["prf_codes"] > 0:
        seen = first[:BEST]
        wanted: dict[int, float] = {}
        for row in seen:
            for key, weight in products[row].code_vector().items():
                wanted[key] = wanted.get(key, 0.0) + weight / len(seen)
        alike = {
            one.row: sum(
                wanted.get(k, 0.0) * w for part in ("lexical", "expansion") for k, w in one.codes[part][one.row].items()
            )
            for one in products
        }
        chosen |= set(sort({row: score for row, score in alike.items() if score > 0})[:alike_most])
    if query.terms.stems:
        chosen |= set(sort({row: f["dense"] for row, f in features.items()})[:nearest])
    scores = {row: sum(weights[name] * value for name, value in features[row].items()) for row in chosen}
    best = sort(scores)[:BEST]
    share = {row: math.exp(scores[row] - scores[best[0]]) for row in best}
    share = {row: value / sum(share.values()) for row, value in share.items()}
    for row in chosen:
        vectors = {r: products[r].index.dense[r] for r in (row, *best)}
        titles = {r: title_vector(products[r]) for r in (row, *best)}
        vectors_of_codes = {r: products[r].code_vector() for r in (row, *best)}
        features[row]["prf_codes"] = sum(
            share[b] * sum(vectors_of_codes[b].get(k, 0.0) * w for k, w in vectors_of_codes[row].items()) for b in best
        )
        features[row]["prf_dense"] = sum(share[b] * float(vectors[b] @ vectors[row]) for b in best)
        embedded = {r: products[r].embedded(query) for r in (row, *best)}
        features[row]["prf_code_cosine"] = sum(share[b] * dot(embedded[b], embedded[row]) for b in best)
        features[row]["prf_title"] = sum(
            share[b] * sum(titles[b].get(stem, 0.0) * w for stem, w in titles[row].items()) for b in best
        )
    full = {row: sum(weights[name] * features[row][name] for name in NAMES) for row in chosen}
    return [(full[row], row, features[row]) for row in sort(full)]


@pytest.mark.parametrize("seed", range(12))
def test_every_feature_is_what_a_slow_computation_says(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    n, vocabulary = (
        24,
        ["red", "hose", "50", "25", "ft", "lamp", "pipe", "garden", "dw713", "of", "blue", "without", "free", "for"],
    )

    def draw(low: int, high: int, share: float = 1.0) -> list[str]:
        return [str(rng.choice(vocabulary)) for _ in range(rng.integers(low, high))] if rng.random() < share else []

    def weigh() -> dict[int, float]:
        return {int(k): float(rng.random()) for k in rng.choice(5, rng.integers(0, 3), replace=False)}

    titles = [draw(1, 6) for _ in range(n)]
    texts = [title + draw(0, 5) for title in titles]
    codes: dict[str, Rows] = {part: [weigh() for _ in range(n)] for part in ("lexical", "expansion", "compound")}
    tokens = [rng.integers(-90, 90, (rng.integers(0, 4), 2)).tolist() for _ in range(n)]
    index = make_index(titles, texts, codes, rng.normal(size=(n, 2)), tokens)
    products = [Slow(index, texts, codes, row) for row in range(n)]
    monkeypatch.setattr(first_phase, "NEAREST", 9)
    monkeypatch.setattr(first_phase, "FROM_FEEDBACK", 2)
    weights = {feature.name: float(rng.random()) for feature in FEATURES} | {"measure_conflict": -0.5, "left_out": -0.7}
    weights["only_for"] = -0.4
    for _ in range(6):
        words = draw(1, 6) + ["sofa"] * int(rng.integers(2))
        asked = weigh()
        near = {key: {k: min(w, 1.0) for k, w in weigh().items() if k != key} for key in asked}
        made = make_query(" ".join(words), asked, weigh(), weigh(), near, rng.normal(size=(4, 3)))
        unwanted = frozenset(key for key in asked if rng.random() < 0.2)
        denied = frozenset(key for key in unwanted if rng.random() < 0.5)
        query = read_left_out(made._replace(codes=made.codes.leaving_out(unwanted, denied)), [index])
        expected = slowly(products, query, weights, by_postings=8, nearest=9, alike_most=2)
        array = np.array([weights[name] for name in NAMES], dtype=np.float32)
        found = find_candidates(index, query, array, keep=12, from_postings=8)
        assert found.rows.tolist() == [row for _, row, _ in expected[:12]]
        assert BEST < len(expected) < n, "feedback reads fewer than all, and not all are candidates"
        for row, features in by_row(found).items():
            slow = next(features for _, r, features in expected if r == row)
            assert slow.keys() == features.keys(), "a new feature has a slow form here"
            assert features == pytest.approx(slow, rel=1e-4, abs=1e-5)


# --- the registry ---------------------------------------------------------------------------------------------------


def test_vectors_of_codes_have_no_part_in_choosing_the_first_ten_of_the_whole() -> None:
    whole, alone = Scorer.default(), Scorer.default(("codes",))
    for name in ("code_cosine", "prf_code_cosine"):
        assert whole.by_name()[name] > 0
        assert alone.by_name()[name] > 0
    at = NAMES.index("code_cosine")
    assert (whole.first_phase[at], alone.first_phase[at]) == (0.0, alone.weights[at])


def test_features_are_declared_soundly() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert GROUPS == ("codes", "vectors", "words", "tokens", "value")
    assert set(NAMES) & set(GROUPS) == {"value"}, "`columns` takes both names"
    for feature in FEATURES:
        assert (feature.first_phase is None) != (feature.compute is None), feature.name
        assert feature.compute is not None or not feature.feedback, feature.name
        assert feature.weight * feature.sign >= 0, feature.name
        for declared in DEFAULTS_ALONE.values():
            assert declared.get(feature.name, 0.0) * feature.sign >= 0, feature.name
    assert Scorer.default().by_name()["only_for"] < 0 < DEFAULTS_ALONE["codes"]["soft_share"]
    assert DEFAULTS_ALONE["codes+words"]["only_for"] < 0 < DEFAULTS_ALONE["codes+words"]["soft_share"]


def test_default_weights_are_the_declared_ones_in_order() -> None:
    scorer = Scorer.default()
    assert scorer.weights.tolist() == [np.float32(feature.weight) for feature in FEATURES]
    finding = [feature.weight if feature.finding is None else feature.finding for feature in FEATURES]
    assert scorer.first_phase.tolist() == np.float32(finding).tolist() != scorer.weights.tolist()
    assert list(scorer.by_name()) == [feature.name for feature in FEATURES]


def test_columns_are_of_features_and_of_groups() -> None:
    assert [name for name, chosen in zip(NAMES, columns(("tokens", "bm25")), strict=True) if chosen] == [
        "bm25",
        "maxsim",
        "min_maxsim",
    ]
    with pytest.raises(SettingError, match="no feature 'popularity'"):
        columns(("popularity",))


def test_a_new_feature_is_one_line(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a line more in the registry, candidates have it, and the scorer weighs, names and keeps it."""
    spec = importlib.util.find_spec("gram.ranking.features")
    assert spec is not None
    assert spec.origin is not None
    line = '    Feature("title_length", "words", 0.25, compute=lambda view: np.bincount(view.titles.row) / 4),\n'
    before = '    Feature("value", "value"'
    source = Path(spec.origin).read_text(encoding="utf-8").replace(before, line + before)
    features: Any = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gram.ranking.features", features)
    exec(compile(source, spec.origin, "exec"), features.__dict__)
    fresh: dict[str, Any] = {}
    for name in ("candidates", "scorer"):
        monkeypatch.setattr(gram.ranking, name, getattr(gram.ranking, name))  # put back at the end
        monkeypatch.delitem(sys.modules, f"gram.ranking.{name}")
        fresh |= vars(importlib.import_module(f"gram.ranking.{name}"))
    assert (*NAMES[:-1], "title_length", "value") == features.NAMES
    scorer = fresh["Scorer"].default()
    assert scorer.by_name()["title_length"] == 0.25
    found = fresh["find_candidates"](index, make_query("hose"), scorer.weights, keep=4)
    lengths = dict(zip(found.rows.tolist(), found.features[:, -2].tolist(), strict=True))
    assert lengths == {0: 1.0, 1: 0.75, 2: 0.25, 3: 0.5}
    deaf = scorer.without(["title_length"])
    gained = (scorer.score(found.features) - deaf.score(found.features)).tolist()
    assert gained == pytest.approx([0.25 * lengths[row] for row in found.rows.tolist()], abs=1e-5)
