"""The features of a candidate, each declared once: its name, its group, its default weight and how it is computed.

A feature of the first phase is read from postings for every product; the others look at candidates only. Feedback
features are read last: they compare candidates with those that all other features put first.

Letters: N products, C candidates, F features, D width, Q distinct stems of the query.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gram.arrays import SparseRow, number_rows
from gram.coder.base import QueryRepresentation
from gram.codes.slots import SLOTS
from gram.errors import SettingError
from gram.index.entries import RowEntries, add_vectors, gather, likeness, merge
from gram.index.postings import Postings
from gram.index.segment import Index
from gram.ranking.code_match import CodeMatch
from gram.text.words import has_digit

Floats = NDArray[np.float32]
SLOT_FEATURES = ("type", "brand", "colour", "material", "size", "model")
"""Slots in which agreement and conflict are features of their own."""
CONFLICTS = {"brand": -1.0, "colour": -1.0, "material": -0.8, "size": -0.5}
"""What conflicts in a slot weigh without a log."""
FEEDBACK_CODES = 48
"""Attributes of the best candidates that others are compared by."""
NOTHING = SparseRow(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
BEST = 10
"""Candidates, first by all other features, that feedback compares with."""


class Feedback(NamedTuple):
    """What the best candidates have in common, each by its share."""

    dense: Floats  # (D,), (0,) where it is not read
    titles: SparseRow  # by the keys of stems in one index
    codes: SparseRow  # by attributes
    code_vector: Floats  # (V,)


class CandidateView:
    """One query's candidates as features look at them; what several features read is computed once."""

    def __init__(self, index: Index, query: QueryRepresentation, rows: NDArray[np.int64]) -> None:
        self.index, self.query, self.rows = index, query, rows  # rows (C,) of the candidates
        code_width = 0 if query.code_vectors is None else query.code_vectors.shape[1]
        dense, code_vector = np.zeros(index.width, np.float32), np.zeros(code_width, np.float32)
        self.feedback = Feedback(dense, NOTHING, NOTHING, code_vector)

    @cached_property
    def idf(self) -> dict[str, float]:
        return {stem: self.index.bm25.idf(stem) for stem in self.query.terms.telling}

    @cached_property
    def number(self) -> NDArray[np.int64]:
        """(N,) the candidate's number of each product, −1 for none."""
        return number_rows(self.rows, self.index.n_products)

    @cached_property
    def holds(self) -> dict[str, NDArray[np.bool_]]:
        """For each of the query's stems which candidates hold it, (C,)."""
        number, found = self.number, {}
        for stem in dict.fromkeys(self.query.terms.stems):
            row = np.zeros(len(self.rows), dtype=bool)
            at = number[self.index.bm25.holding(stem)]
            row[at[at >= 0]] = True
            found[stem] = row
        return found

    @cached_property
    def coverage(self) -> Floats:
        """Share of the query's stems, by idf, that each candidate holds, (C,)."""
        total = sum(self.idf.values()) or 1.0
        shares = (self.holds[stem] * np.float32(self.idf[stem] / total) for stem in self.query.terms.telling)
        return sum(shares, np.zeros(len(self.rows), dtype=np.float32))

    @cached_property
    def dense(self) -> Floats:
        """(C, D)"""
        return np.take(self.index.dense, self.rows, axis=0)  # faster than indexing

    @cached_property
    def titles(self) -> RowEntries:
        return self.index.titles.read(self.rows)

    @cached_property
    def in_titles(self) -> Floats:
        """(C, 4) where the query's words stand in the titles."""
        terms = self.query.terms
        return self.index.titles.match(self.index.bm25, terms.stems, terms.telling, self.titles, terms.purposes)

    @cached_property
    def code_match(self) -> CodeMatch:
        """What the query asks by its codes, and what the candidates have of it."""
        return CodeMatch(self.index, self.query.codes, self.rows, self.number, self.code_rows)

    @cached_property
    def code_rows(self) -> RowEntries:
        return self.index.code_rows.read(self.rows)

    @cached_property
    def code_vectors(self) -> Floats:
        """(C, V) what the embeddings of each candidate's codes add up to; V is 0 where a coder has none."""
        vectors = self.query.code_vectors
        return np.zeros((len(self.rows), 0), np.float32) if vectors is None else add_vectors(self.code_rows, vectors)

    @cached_property
    def code_vector(self) -> Floats:
        """(V,) the same of the query's codes, but of what it leaves out."""
        query, vectors = self.query, self.query.code_vectors
        if vectors is None:
            return np.zeros(0, dtype=np.float32)
        both = merge([query.lexical, query.expansion])
        kept = ~np.isin(both.key, list(query.codes.left_out))
        key = both.key[kept].astype(np.int32)
        return add_vectors(RowEntries(1, np.zeros(len(key), np.int64), key, both.weight[kept]), vectors)[0]

    def in_common(self, best: NDArray[np.int64], share: Floats, reads: NDArray[np.bool_]) -> Feedback:
        """What some candidates, by their numbers, have in common, as far as features are read (F,); `share` says how
        much each of them counts."""
        rows, index = self.rows[best], self.index
        none = SparseRow(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
        by_titles, by_vectors = reads[NAMES.index("prf_title")], reads[NAMES.index("prf_dense")]
        titles = gather(index.titles.read(rows), share) if by_titles else none
        codes = gather(index.code_rows.read(rows), share)
        dense = share @ index.dense[rows] if by_vectors else np.zeros(0, dtype=np.float32)
        return Feedback(dense, titles, codes, share @ self.code_vectors[best])

    @cached_property
    def late_interaction(self) -> Floats:
        """(C, 2) how well the query's tokens are matched by the candidates'."""
        query = self.query
        return self.index.token_vectors.maxsim(query.token_vectors, query.token_weights, self.rows)


@dataclass(frozen=True)
class SharedKeys:
    """Σ over the keys that a part of the query shares with a part of the index of both sides' weights."""

    query: str  # "lexical", "expansion" or "compound"
    product: str

    def keys(self, query: QueryRepresentation) -> SparseRow:
        """What the query asks for."""
        found: SparseRow = getattr(query, self.query)
        return found

    def postings(self, index: Index) -> Postings:
        """Where it is looked for."""
        found: Postings = getattr(index, self.product)
        return found

    def __call__(self, index: Index, query: QueryRepresentation) -> Floats | None:
        """(N,); None where the query has nothing to ask."""
        (key, weight), postings = self.keys(query), self.postings(index)
        known = (key < postings.n_keys) & (key >= 0)
        return postings.score(key[known], weight[known], index.n_products) if known.any() else None


@dataclass(frozen=True)
class Feature:
    """One number about a query and a product, and what the scorer knows of it before it is fitted.

    Either `first_phase` is given, which sees every product, or `compute`, which sees a view of the candidates.
    """

    name: str
    group: str
    weight: float = 0.0  # without a log
    sign: Literal[1, -1] = 1  # a fitted sum counts it for a product, or against one at −1, or not at all
    first_phase: Callable[[Index, QueryRepresentation], Floats | None] | None = None  # (N,), None for nothing
    compute: Callable[[CandidateView], Floats] | None = None  # (C,)
    feedback: bool = False
    finding: float | None = None  # the weight in finding candidates and choosing the best ten of them, where another


def _bm25(index: Index, query: QueryRepresentation) -> Floats:
    """Of what BM25 would give a text that repeats each word for ever: free of the query's length and the shop's idf."""
    reach = sum(index.bm25.idf(stem) for stem in query.terms.stems)
    return index.bm25.score(query.terms.stems) / np.float32(reach or 1.0)


def read_left_out(query: QueryRepresentation, indexes: Sequence[Index]) -> QueryRepresentation:
    """The query with what is meant by what it leaves out: of two words the first alone, "without laces red", where no
    title of any segment of a shop has them side by side."""
    if not query.terms.left_out:
        return query
    meant = [
        stems if len(stems) < 2 or any(index.titles.are_beside(index.bm25, stems) for index in indexes) else stems[:1]
        for stems in query.terms.left_out
    ]
    return query._replace(terms=query.terms._replace(left_out=meant))


def have_left_out(
    index: Index, query: QueryRepresentation, rows: NDArray[np.int64], titles: RowEntries
) -> list[NDArray[np.bool_]]:
    """(C,) for each thing that a query leaves out, as `read_left_out` gives it, which candidates have it all the same:
    by their titles, or of any such thing where they hold a brand, colour or material that is not wanted."""
    terms, known = query.terms, [key for key in query.codes.denied if key < index.lexical.n_keys]
    such = np.isin(rows, np.concatenate([index.lexical.of(key)[0] for key in known])) if known else False
    return [index.titles.state(index.bm25, stems, terms.negations, titles) | such for stems in terms.left_out]


def _number_match(view: CandidateView) -> Floats:
    return _mean(view, [view.holds[stem] for stem in view.query.terms.telling if has_digit(stem)])


def _measure_conflict(view: CandidateView) -> Floats:
    return _mean(view, [view.holds[unit] & ~view.holds[number] for number, unit in view.query.terms.measures])


def _left_out(view: CandidateView) -> Floats:
    return _mean(view, have_left_out(view.index, view.query, view.rows, view.titles))


def _mean(view: CandidateView, parts: Sequence[NDArray[np.bool_]]) -> Floats:
    """(C,) the share of the parts, each (C,), that are true of a candidate; 0 without parts."""
    if not parts:
        return np.zeros(len(view.rows), dtype=np.float32)
    return np.mean(parts, axis=0, dtype=np.float32)


def _prf_dense(view: CandidateView) -> Floats:
    mean: Floats = view.dense @ view.feedback.dense  # Rocchio 1971
    return mean


def _prf_title(view: CandidateView) -> Floats:
    return likeness(view.titles, view.feedback.titles)


def _slot(share: Callable[[CodeMatch, int], Floats], slot: str) -> Callable[[CandidateView], Floats]:
    number = SLOTS.index(slot)
    return lambda view: share(view.code_match, number)


def _prf_codes(view: CandidateView) -> Floats:
    return likeness(view.code_rows, view.feedback.codes)


def reads_vectors(feature: Feature) -> bool:
    """Whether a feature reads vectors, which a coder may not have: of texts, of tokens, or of codes."""
    return feature.group in ("vectors", "tokens") or feature.compute in (_code_cosine, _prf_code_cosine)


def _code_cosine(view: CandidateView) -> Floats:
    cosine: Floats = view.code_vectors @ view.code_vector
    return cosine


def _prf_code_cosine(view: CandidateView) -> Floats:
    mean: Floats = view.code_vectors @ view.feedback.code_vector
    return mean


def _value(view: CandidateView) -> Floats:
    return view.index.value[view.rows]


def _full_coverage(view: CandidateView) -> Floats:
    return (view.coverage > 0.999).astype(np.float32)


FEATURES: tuple[Feature, ...] = (
    # what the two texts' codes share: attributes that a text holds, or that the model writes for it
    Feature("lexical_lexical", "codes", 0.4, first_phase=SharedKeys("lexical", "lexical")),
    Feature("lexical_expansion", "codes", 1.5, first_phase=SharedKeys("lexical", "expansion")),
    Feature("expansion_lexical", "codes", 3.0, first_phase=SharedKeys("expansion", "lexical")),
    Feature("expansion_expansion", "codes", 1.0, first_phase=SharedKeys("expansion", "expansion")),
    Feature("compound", "codes", first_phase=SharedKeys("compound", "compound")),
    # how much of what the query asks by its codes a product has: holds it, or was given it
    Feature("lexical_share", "codes", compute=lambda view: view.code_match.lexical_share),
    Feature("code_share", "codes", compute=lambda view: view.code_match.share),
    Feature("code_pairs", "codes", 0.3, compute=lambda view: view.code_match.pairs),
    Feature("weakest_code", "codes", compute=lambda view: view.code_match.weakest),
    # and of the rest how near another code of the product comes
    Feature("soft_share", "codes", compute=lambda view: view.code_match.soft_share),
    # and how near all codes of both come, as vectors: their embeddings, by their weights, added up
    Feature("code_cosine", "codes", 0.5, finding=0.0, compute=_code_cosine),
    *(Feature(f"{slot}_agreement", "codes", compute=_slot(CodeMatch.agreement, slot)) for slot in SLOT_FEATURES),
    *(
        Feature(f"{slot}_conflict", "codes", CONFLICTS.get(slot, 0.0), -1, compute=_slot(CodeMatch.conflict, slot))
        for slot in SLOT_FEATURES
    ),
    Feature("dense", "vectors", 3.0, finding=6.0, compute=lambda view: view.dense @ view.query.dense),
    Feature("bm25", "words", 4.0, finding=6.0, first_phase=_bm25),
    # how much of the query a product holds: of its words by idf, all of them, of its numbers; and measures it has in
    # another size
    Feature("idf_coverage", "words", 2.0, compute=lambda view: view.coverage),
    Feature("full_coverage", "words", compute=_full_coverage),
    Feature("number_match", "words", 0.5, compute=_number_match),
    Feature("measure_conflict", "words", -0.5, sign=-1, compute=_measure_conflict),
    # the share of what the query leaves out ("without laces") that a product has all the same
    Feature("left_out", "words", -2.0, sign=-1, compute=_left_out),
    # where the query's words stand in the title
    Feature("title_coverage", "words", compute=lambda view: view.in_titles[:, 0]),
    Feature("bigram_proximity", "words", 0.8, compute=lambda view: view.in_titles[:, 1]),
    Feature("last_term", "words", compute=lambda view: view.in_titles[:, 2]),
    # the share of the query that the title says, where it is of what the product is for alone: a battery for laptops
    Feature("only_for", "words", -1.0, sign=-1, compute=lambda view: view.in_titles[:, 3]),
    # how well the query's tokens are matched by the product's, all of them and the worst
    Feature("maxsim", "tokens", 8.0, compute=lambda view: view.late_interaction[:, 0]),
    Feature("min_maxsim", "tokens", 1.0, compute=lambda view: view.late_interaction[:, 1]),
    # what is like the best ten is often relevant too
    Feature("prf_dense", "vectors", 4.0, compute=_prf_dense, feedback=True),
    Feature("prf_title", "words", 0.4, compute=_prf_title, feedback=True),
    Feature("prf_codes", "codes", 2.0, compute=_prf_codes, feedback=True),
    Feature("prf_code_cosine", "codes", 0.5, compute=_prf_code_cosine, feedback=True),
    Feature("value", "value", compute=_value),  # what the shop says it is worth; the shop sets its weight
)
"""Every feature, in the order of every feature array. Default weights: docs/log.md, "Weights that hold on any shop,
again"."""

DEFAULTS_ALONE: dict[str, dict[str, float]] = {
    "codes": {
        **{"lexical_lexical": 1.0, "lexical_expansion": 5.0, "expansion_lexical": 8.0, "expansion_expansion": 20.0},
        **{"code_cosine": 1.0, "prf_code_cosine": 1.0},
        **{"code_share": 1.8, "code_pairs": 0.5, "soft_share": 2.0, "type_agreement": 0.8, "brand_agreement": 1.3},
        **{"material_agreement": 2.5, "type_conflict": -1.8, "brand_conflict": -0.6, "colour_conflict": -1.1},
        **{"material_conflict": -1.5, "prf_codes": 5.0},
    },
    "codes+words": {
        **{"lexical_lexical": 0.4, "lexical_expansion": 3.0, "expansion_lexical": 8.0, "expansion_expansion": 16.0},
        **{"code_cosine": 1.0, "prf_code_cosine": 1.0},
        **{"code_pairs": 0.5, "soft_share": 4.0, "brand_agreement": 0.5, "type_conflict": -0.5, "brand_conflict": -0.6},
        **{"colour_conflict": -1.0, "prf_codes": 2.0, "bm25": 4.0, "idf_coverage": 2.0, "number_match": 0.5},
        **{"measure_conflict": -0.5, "left_out": -0.8, "only_for": -1.0},
        **{"bigram_proximity": 0.8, "prf_title": 1.0},
    },
}
"""Default weights where a shop finds and ranks by these groups alone."""

NAMES: tuple[str, ...] = tuple(feature.name for feature in FEATURES)
GROUPS: tuple[str, ...] = tuple(dict.fromkeys(feature.group for feature in FEATURES))
EVERY = np.ones(len(FEATURES), dtype=bool)
"""(F,) where no feature is left unread."""


def other_groups(groups: Sequence[str]) -> tuple[str, ...]:
    """All groups of features but these: what a score of these alone goes without."""
    return tuple(group for group in GROUPS if group not in groups)


def columns(names: Sequence[str]) -> NDArray[np.bool_]:
    """(F,) True for the features of these names, or of groups of these names. Raises SettingError for another name."""
    unknown = [name for name in names if name not in NAMES and name not in GROUPS]
    if unknown:
        fix = f"choose from the groups {', '.join(GROUPS)} or the features {', '.join(NAMES)}"
        raise SettingError(f"there is no feature {unknown[0]!r}. Fix: {fix}")
    return np.array([feature.name in names or feature.group in names for feature in FEATURES])
