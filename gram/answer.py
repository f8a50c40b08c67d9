"""Answering: one search request on one snapshot of a live shop, with its filters, rules, facets and refinements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from gram.arrays import SparseRow, top_k
from gram.coder.base import QueryRepresentation
from gram.errors import SettingError
from gram.index.fields import facet, letters
from gram.index.filters import Filter, parse_filter, quote
from gram.names import check_names, check_sort, warn_of_fields, warn_of_filter, warn_of_price
from gram.ranked import BETWEEN, Ranked, by_part
from gram.ranking.candidates import Candidates, Part, find_in_parts
from gram.ranking.fits import FIT, ORDINARY, Fitting, find_fitting, having_all
from gram.ranking.scorer import check_value
from gram.records import Hit, code_text, read_code
from gram.rules import Rule, Steering, replace_synonyms, steer
from gram.snapshot import LiveSegment, Snapshot, to_mask
from gram.text.prices import PriceRange, read_price

DEEPEST = 10_000
"""Hits that offset and limit reach down to."""
FIRST = 10
"""Of those that fit, how many of the best stand before what has what the query leaves out: docs/log.md, "What the query
leaves out, in its place"."""
MOST_NAMES = 50
"""Fields that are named in one list."""
REFINED_FROM, REFINEMENTS = 50, 8
"""Hits whose codes are offered as refinements, and how many of these."""
EXPANSIONS = 8
"""Attributes that the model writes for a query which an answer tells, the heaviest: weaker ones find products too."""
_NO_ROWS = np.zeros(0, dtype=np.int64)
REFINING_SLOTS = ("type", "brand", "colour", "material", "size", "style", "audience", "series", "scenario", "season")


@dataclass(frozen=True)
class SearchRequest:
    """What is asked. `filter` is in the language of `gram.index.filters`; `sort` a field, with a minus for falling
    order, nothing for the best first; `distinct` a field of which each value is shown once. `fit` says how near to the
    query's best a product has to come to fit, from 0 (each candidate fits) to 1; None for `gram.ranking.fits.FIT`."""

    query: str = ""
    limit: int = 10
    offset: int = 0
    filter: str = ""
    facets: Sequence[str] = ()
    sort: str = ""
    distinct: str = ""
    explain: bool = False
    value: float | None = None
    fit: float | None = None

    def __post_init__(self) -> None:
        """Raises SettingError for facets that are no list: of one text its letters are not meant."""
        if isinstance(self.facets, str):
            raise SettingError(f"facets are names in a list, not one text. Fix: facets=[{self.facets!r}]")
        if not isinstance(self.facets, Iterable):
            raise SettingError(f"facets are {self.facets!r:.60}. Fix: give a list of names")
        object.__setattr__(self, "facets", tuple(self.facets))  # a request is a key of the answers that are remembered

    @property
    def sort_field(self) -> str:
        """The field that is sorted by, without the sign before it."""
        return self.sort.strip().lstrip("+-").strip()


class Refinement(NamedTuple):
    """A code that many hits have and the query does not ask for: `products` of the found ones have it."""

    code: str
    products: int
    filter: str


@dataclass
class SearchResult:
    """`found` counts the products that fit; `hits` go on behind these with the nearest that do not, unless they are
    sorted. `codes` are what the query was read as: code, from where (lexical, left_out, or expansion, of these the
    heaviest), weight. `warnings` are sentences on what was asked by a name that nobody has."""

    hits: list[Hit]
    found: int
    facets: dict[str, dict[str, Any]]
    refinements: list[Refinement]
    read_as: str
    codes: list[tuple[str, str, float]]
    rules: list[str]
    redirect: str = ""
    warnings: list[str] = field(default_factory=list)

    def copy(self) -> SearchResult:
        """The same, of which nothing changes with it."""
        hits = [hit._replace(features=dict(hit.features)) if hit.features else hit for hit in self.hits]
        lists: dict[str, Any] = {n: list(getattr(self, n)) for n in ("refinements", "codes", "rules", "warnings")}
        facets = {
            name: {part: dict(values) if part == "values" else deepcopy(values) for part, values in found.items()}
            for name, found in self.facets.items()
        }
        return replace(self, hits=hits, facets=facets, **lists)


def check_request(request: SearchRequest) -> None:
    """Raises SettingError for numbers out of range and texts that are none, and for what is no request."""
    if not isinstance(request, SearchRequest):
        raise SettingError(f"a search is {request!r:.60}. Fix: give a text, or a SearchRequest")
    check_counts(limit=request.limit, offset=request.offset)
    fit = 0 if request.fit is None else request.fit
    if isinstance(fit, bool) or not isinstance(fit, int | float) or not 0 <= fit <= 1:
        raise SettingError(f"fit is {fit!r:.60}. Fix: give a number from 0, where each candidate fits, to 1")
    limit, offset = request.limit, request.offset
    if limit + offset > DEEPEST:
        fix = f"give a limit of {DEEPEST - offset} at most" if offset < DEEPEST else f"give an offset below {DEEPEST}"
        problem = f"offset and limit are {limit + offset} together, and {DEEPEST} hits can be reached"
        raise SettingError(f"{problem}. Fix: {fix}; a filter brings others within reach")
    check_texts(query=request.query, filter=request.filter, sort=request.sort, distinct=request.distinct)
    for name in request.facets:
        if not isinstance(name, str):
            raise SettingError(f"a facet is {name!r:.60}. Fix: give the name of a field")
    if len(request.facets) > MOST_NAMES:
        raise SettingError(f"there are {len(request.facets)} facets. Fix: ask for {MOST_NAMES} at most")
    if request.value is not None:
        check_value(request.value)
    if not isinstance(request.explain, bool):
        raise SettingError(f"explain is {request.explain!r:.60}. Fix: write True or False")


def check_counts(**numbers: Any) -> None:
    """Raises SettingError for one that is no whole number from 0."""
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise SettingError(f"{name} is {number!r:.60}. Fix: give a whole number from 0")


def check_texts(**texts: Any) -> None:
    """Raises SettingError for one that is no text."""
    for name, text in texts.items():
        if not isinstance(text, str):
            raise SettingError(f"{name} is {text!r:.60}. Fix: give a text")


def read_query(snapshot: Snapshot, query: str, rules: Sequence[Rule]) -> tuple[str, PriceRange | None, list[str]]:
    """The words that are searched for, without the price that is asked for, and with what rules put in their place;
    that price, of a shop with prices; and the ids of these rules."""
    price, priced = read_price(query), "price" in snapshot.field_names
    words = price.query if price and (priced or price.query) else query  # a price alone is words to a shop without
    words, synonyms = replace_synonyms(rules, words, snapshot.searcher.lexicon.analyzer)
    return words, price if priced else None, synonyms


class Answer:
    """One request on one snapshot, step by step."""

    def __init__(self, snapshot: Snapshot, request: SearchRequest, rules: Sequence[Rule]) -> None:
        self.request, self.rules, self.snapshot = request, rules, snapshot
        self.searcher, self.filter = snapshot.searcher, parse_filter(request.filter)
        if request.value is not None:
            self.searcher = self.searcher.with_scorer(self.searcher.scorer.with_value(request.value))

    def run(self) -> SearchResult:
        searcher, request = self.searcher, self.request
        query, price, synonyms = read_query(self.snapshot, request.query, self.rules)
        read_as = searcher.read(query)[0]
        represented = searcher.leaving_out(searcher.recall(read_as), [s.index for s in self.snapshot.segments])
        codes = self._codes(represented) if query.strip() else []  # of no words the model writes what is frequent
        lexical = set(represented.lexical.key.tolist()) - represented.codes.left_out if query.strip() else set()
        steering = steer(self.rules, [request.query, query], searcher.lexicon, lexical)
        if price:
            steering.filters.append(f"price BETWEEN {price.low:.2f} AND {min(price.high, 1e12):.2f}")
        parts = self._parts(steering)
        if query.strip():
            candidates = self._rank(parts, represented, steering)
        elif request.filter.strip() or request.sort or request.facets or price:
            candidates = self._browse(parts)
        else:
            candidates = Ranked.nothing()
        candidates = self._distinct(self._sort(candidates.with_first(self._pinned(steering, parts))))
        fitting = np.concatenate([candidates.rows[candidates.fits], candidates.unranked])
        shown = slice(request.offset, request.offset + request.limit)
        hits = [self._hit(represented, candidates, at) for at in range(len(candidates.rows))[shown]]
        found = [BitMap(part_rows) for part_rows in by_part(fitting, self.snapshot.begins)]
        fields = [(segment.fields, rows) for segment, rows in zip(self.snapshot.segments, found, strict=True)]
        return SearchResult(
            hits,
            len(fitting),
            {name: facet(fields, name) for name in request.facets},
            self._refinements(represented, fitting) if query.strip() else [],
            f"{read_as} ({price})".strip() if price else read_as,
            codes,
            [*synonyms, *steering.rules],
            steering.redirect,
            self._warnings(),
        )

    def _warnings(self) -> list[str]:
        """What the request names that nobody has and that is no error."""
        distinct = self.request.distinct.strip()
        fields = [*self.request.facets, distinct] if distinct else self.request.facets
        return [
            *warn_of_price(self.snapshot, self.request.query),
            *warn_of_fields(self.snapshot, fields),
            *warn_of_filter(self.snapshot, self.filter),
        ]

    def _codes(self, query: QueryRepresentation) -> list[tuple[str, str, float]]:
        attributes, left_out = self.searcher.lexicon.attributes, query.codes.left_out
        heaviest, _ = top_k(query.expansion.weight, EXPANSIONS)
        expansion = SparseRow(query.expansion.key[heaviest], query.expansion.weight[heaviest])
        codes = [
            (code_text((attributes[key],)), "left_out" if key in left_out else source, round(weight, 4))
            for source, part in (("lexical", query.lexical), ("expansion", expansion))
            for key, weight in zip(part.key.tolist(), part.weight.tolist(), strict=True)
        ]
        return sorted(dict.fromkeys(codes), key=lambda code: -code[2])

    def _parts(self, steering: Steering) -> list[Part]:
        """The segments with what may be found of them: alive, let through by every filter, not hidden."""
        texts = (self.request.filter, *steering.filters)
        read = [self.filter, *map(parse_filter, steering.filters)]
        check_names(self.snapshot, self.filter.names)
        filters = [one for one, text in zip(read, texts, strict=True) if text.strip()]
        hiding = [parse_filter(text) for text in steering.hiding]
        parts = []
        for segment in self.snapshot.segments:
            allowed = None
            if filters or hiding or steering.hidden:
                rows = segment.alive
                for one in filters:
                    rows = rows & self._rows(one, segment)
                for one in hiding:
                    rows = rows - self._rows(one, segment)
                rows = rows - BitMap(r for r in map(segment.row, steering.hidden) if r is not None)
                allowed = to_mask(rows, segment.index.n_products)
            parts.append(Part(segment.index, segment.mask, allowed))
        return parts

    def _rows(self, sought: Filter, segment: LiveSegment) -> BitMap:
        """What of a segment a filter lets through."""
        return sought.rows(segment.fields, lambda code: self._having(segment, code))

    def _having(self, segment: LiveSegment, code: str) -> BitMap:
        """The products that hold or were given each attribute of a code's text."""
        found = segment.alive
        for attribute in read_code(code):
            found = found & segment.having(self.searcher.lexicon.find(*attribute))
        return found

    def _rank(self, parts: Sequence[Part], query: QueryRepresentation, steering: Steering) -> Ranked:
        """The candidates, the same ones whatever page of them is asked for, those first that fit; behind these what
        else has all that is asked, and behind all what is found beyond the candidates, where a page reaches there."""
        request, first_phase, lexicon = self.request, self.searcher.scorer.first_phase, self.searcher.lexicon
        fit, reads = FIT if request.fit is None else request.fit, self.searcher.reads
        found = find_in_parts(parts, query, first_phase, ordinary=ORDINARY if fit else 0, reads=reads)
        ranked = self._in_order(parts, steering, found, find_fitting(found, query, lexicon, fit, reads))
        begins = self.snapshot.begins
        rest = [part.but(rows) for part, rows in zip(parts, by_part(found.rows, begins), strict=True)]
        more = [having_all(part, query, lexicon, reads) if fit else _NO_ROWS for part in rest]
        unranked = np.concatenate([rows + begin for rows, begin in zip(more, begins.tolist(), strict=False)])
        depth, every_one = request.offset + request.limit, bool(request.sort or request.distinct)
        if depth <= len(found.rows) and (not len(unranked) or (not every_one and depth <= ranked.n_first)):
            return replace(ranked, unranked=unranked)
        if every_one:  # what does not fit stands on no page of a sort, and for no value but its own
            rest = [part.only(rows) for part, rows in zip(parts, more, strict=True)]
        beyond = find_in_parts(rest, query, first_phase, from_postings=max(len(unranked), DEEPEST), reads=reads)
        has_all = np.isin(beyond.rows, unranked)
        fitting = Fitting(has_all, np.zeros(len(has_all), dtype=bool))
        return ranked.followed_by(self._in_order(parts, steering, beyond, fitting))

    def _in_order(self, parts: Sequence[Part], steering: Steering, found: Candidates, fitting: Fitting) -> Ranked:
        """By score and what rules boost and bury: those that fit before the others, and those that would but have what
        the query leaves out behind the first that fit; the scores of what comes behind are lowered."""
        scores = self.searcher.scorer.score(found.features)
        for rule in steering.boosts:
            scores = scores + np.float32(rule.weight) * self._boosted(rule, parts, found.rows)
        first, near = top_k(scores[fitting.fits], FIRST)[1], ~(fitting.fits | fitting.unwanted)
        scores = _lowered(scores, fitting.unwanted, first)
        scores = _lowered(scores, near, scores[~near])
        order, best = top_k(scores, len(scores))
        return Ranked(found.rows[order], best, found.features[order], fitting.fits[order])

    def _boosted(self, rule: Rule, parts: Sequence[Part], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(C,) 1 for candidates that a rule names or its filter lets through."""
        begin, every = 0, BitMap()
        sought = parse_filter(rule.filter) if rule.filter else None
        for segment, part in zip(self.snapshot.segments, parts, strict=True):
            named = BitMap(r for r in map(segment.row, rule.products) if r is not None)
            if sought is not None:
                named |= self._rows(sought, segment)
            every |= BitMap(row + begin for row in named)
            begin += part.index.n_products
        return np.array([row in every for row in rows.tolist()], dtype=np.float32)

    def _browse(self, parts: Sequence[Part]) -> Ranked:
        """Without a query: every product that may be found, the most valued first."""
        rows, values, begin = [], [], 0
        for part in parts:
            allowed = np.flatnonzero(part.may_be_found)
            rows.append(allowed + begin)
            values.append(part.index.value[allowed])
            begin += part.index.n_products
        scores = np.concatenate(values)
        order, best = top_k(scores, len(scores))
        rows_in_order, none = np.concatenate(rows)[order], np.zeros((len(order), 0), dtype=np.float32)
        return Ranked(rows_in_order, best, none, np.ones(len(order), dtype=bool))

    def _pinned(self, steering: Steering, parts: Sequence[Part]) -> NDArray[np.int64]:
        """(P,) the rows of pinned products, in their order, where the request's own filter lets them through."""
        first, begin = {}, 0
        for segment, part in zip(self.snapshot.segments, parts, strict=True):
            for product_id in steering.pins:
                row = segment.row(product_id)
                if row is not None and part.may_be_found[row]:
                    first[product_id] = row + begin
            begin += part.index.n_products
        return np.array([first[p] for p in steering.pins if p in first], dtype=np.int64)

    def _sort(self, ranked: Ranked) -> Ranked:
        """Those that fit by a field, where a sort is asked: what does not fit is in no order but that of nearness.
        Numbers by size, then texts by their letters, then what lacks the field; falling, numbers and texts are each
        turned round among themselves."""
        name = self.request.sort.strip()
        if not name:
            return ranked
        falling, name = name.startswith("-"), self.request.sort_field
        check_sort(self.snapshot, name)
        ranked, keys = ranked.take(ranked.fits), list[tuple[int, float | tuple[str, str]]]()
        for row in ranked.rows.tolist():
            segment, inside = self._segment_of(row)
            value = segment.fields.sort_value(name, inside)
            kind = 2 if value is None else int(isinstance(value, str))
            keys.append((-kind if falling else kind, letters(value) if isinstance(value, str) else value or 0.0))
        order = sorted(range(len(keys)), key=keys.__getitem__, reverse=falling)  # equals stay in their order
        return ranked.take(np.array(order, dtype=np.int64))

    def _distinct(self, ranked: Ranked) -> Ranked:
        """The best of each value of a field, where one is asked: of those that fit, if any does."""
        name = self.request.distinct.strip()
        if not name:
            return ranked
        seen, kept = set(), []
        for at in [*np.flatnonzero(ranked.fits).tolist(), *np.flatnonzero(~ranked.fits).tolist()]:
            segment, inside = self._segment_of(int(ranked.rows[at]))
            column = segment.fields.columns.get(name)
            value = column.first.get(inside) if column else None
            if value is None or value not in seen:
                seen.add(value)
                kept.append(at)
        return ranked.take(np.array(sorted(kept), dtype=np.int64))

    def _segment_of(self, row: int) -> tuple[LiveSegment, int]:
        begins = self.snapshot.begins
        number = int(np.searchsorted(begins, row, side="right")) - 1
        return self.snapshot.segments[number], row - int(begins[number])

    def _hit(self, query: QueryRepresentation, ranked: Ranked, at: int) -> Hit:
        segment, inside = self._segment_of(int(ranked.rows[at]))
        table, features = segment.index.table, ranked.features[at]
        hit = Hit(str(table.ids[inside]), float(ranked.scores[at]), table.title(inside), fits=bool(ranked.fits[at]))
        if not self.request.explain or not len(features):
            return hit
        hit = self.searcher.explain(query, hit, segment.index, inside, features)
        edits = self.snapshot.edits.of(hit.product_id)
        given = [shared.code if any(edits.get(a) for a in shared.code) else () for shared in hit.codes]
        codes = [s._replace(product_source="given") if g else s for s, g in zip(hit.codes, given, strict=True)]
        return hit._replace(codes=tuple(codes))

    def _refinements(self, query: QueryRepresentation, rows: NDArray[np.int64]) -> list[Refinement]:
        """Codes that some of the best hits have, and the query does not ask for."""
        lexicon, weights, best = self.searcher.lexicon, defaultdict[int, float](float), rows[:REFINED_FROM]
        for row in best.tolist():
            segment, inside = self._segment_of(row)
            keys, weighed = segment.index.code_rows.of(inside)
            for key, weight in zip(keys.tolist(), weighed.tolist(), strict=True):
                weights[key] += weight
        said = {word for key in query.codes.key.tolist() for word in lexicon.forms[key][0]} | set(query.terms.stems)
        found, used = [], set(said)
        among, among_best = self._masks(rows), self._masks(best)
        for key in sorted(weights, key=lambda key: (-weights[key], key)):
            attribute, words = lexicon.attributes[key], set(lexicon.forms[key][0])
            if attribute.slot not in REFINING_SLOTS or key >= lexicon.n_learnt or not words.isdisjoint(used):
                continue
            if 2 <= self._count_having(key, among_best) <= 0.8 * len(best):
                used |= words
                code = code_text((attribute,))
                found.append(Refinement(code, self._count_having(key, among), f"code = {quote(code)}"))
                if len(found) == REFINEMENTS:
                    break
        return found

    def _masks(self, rows: NDArray[np.int64]) -> list[NDArray[np.bool_]]:
        """Some rows, over all segments, as a mask of each segment's products."""
        begins = self.snapshot.begins
        mask = np.zeros(int(begins[-1]), dtype=bool)
        mask[rows] = True
        return np.split(mask, begins[1:-1])

    def _count_having(self, key: int, among: Sequence[NDArray[np.bool_]]) -> int:
        """Of masked products, how many have an attribute."""
        return sum(s.count_having(key, some) for s, some in zip(self.snapshot.segments, among, strict=True))


def _lowered(scores: NDArray[np.float32], some: NDArray[np.bool_], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """(C,) scores, those of some products lowered, all by as much, so that none is above any of the others'."""
    if not some.any() or not len(others):
        return scores
    over = scores[some].max() - others.min()
    return np.where(some, scores - over - np.float32(BETWEEN), scores) if over >= 0 else scores
