"""Search: an index and the coder it was built with, as one object that answers queries."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from gram.arrays import SparseRow, top_k
from gram.coder.added import add_attribute
from gram.coder.base import SUCH_AS_IT_IS, Coder, CodingSettings, QueryRepresentation, QueryTerms, Side
from gram.coder.folder import check_model, load_coder, model_hash
from gram.codes.lexicon import Lexicon
from gram.errors import GramError, IndexFolderError, SettingError
from gram.index.postings import Postings
from gram.index.segment import Index, same_model
from gram.ranking.candidates import FROM_POSTINGS, NEAREST, Candidates, find_candidates
from gram.ranking.code_match import CodeMatch
from gram.ranking.features import EVERY, FEATURES, GROUPS, NAMES, SharedKeys, columns, read_left_out
from gram.ranking.scorer import ALONE, Scorer, file_of
from gram.records import Attribute, Code, Hit, SharedCode
from gram.remembered import Remembered
from gram.text.analysis import ClippedQuery
from gram.text.spelling import RARE, Speller

log = logging.getLogger("gram.search")

BATCH = 256  # queries represented at a time
PRODUCTS = 50_000
"""Of an index in which a query's expansions touch as many postings as is set; of more in a larger one."""
QUERIES, QUERY_BYTES = 4_000, 64_000_000
"""Queries whose representations are remembered, and what they take of memory in all: some 10 kB each."""
SHOWN_PAIRS = 3  # compound codes of a hit that an explanation shows


class Searcher:
    """Finds products by the codes that they share with a query.

    >>> searcher = Searcher.load("shop.index")  # doctest: +SKIP
    >>> searcher.search("couch", k=3)[0].title  # doctest: +SKIP
    'Velvet Sofa, 3-Seater'
    """

    name = "GRAM"

    def __init__(self, coder: Coder, index: Index, scorer: Scorer, coding: CodingSettings | None = None) -> None:
        extra = dict(zip(index.extra_words, index.extra_counts.tolist(), strict=True))
        self.model_coder, self.coder = coder, coder.with_words(extra)  # as the model has it; with this index's words
        self.index, self.scorer, self.coding = index, scorer, coding or coder.query_coding
        self.alone: dict[tuple[str, ...], Scorer] = {}  # of some groups of features alone
        self.reads: NDArray[np.bool_] = EVERY  # (F,) the features that are read
        self.model: Path | None = None  # where its model lies, if it was read from a folder
        self.lexicon = self.coder.lexicon
        self.speller = make_speller(index, self.lexicon, self.coder.knows)
        self._remembered: Remembered[QueryRepresentation] = Remembered(QUERIES, QUERY_BYTES)

    @classmethod
    def load(
        cls, index: str | Path, model: str | Path | None = None, device: str = "cpu", check: bool = True,
        only: Sequence[str] = (),
    ) -> Searcher:  # fmt: skip
        """The searcher of an index folder; the model is looked for where the index says, unless `model` is given.

        `check` compares every file of both with its checksum; with `only` it searches by these groups alone.

        Raises:
            SettingError: as of `only`.
            IndexMismatch: the model is not the one that the index was built with.
            ModelError, IndexFolderError: a folder that cannot be read.
        """
        opened = Index.open(index, check=check)
        folder = Path(model) if model is not None else find_model(index, opened.meta)
        if check:
            check_model(folder)
        same_model(index, opened.meta, model_hash(folder))
        searcher = cls(load_coder(folder, device), opened, Scorer.default())
        searcher.model = folder
        return searcher.scored_anew(only)

    def search(self, query: str, k: int = 10, explain: bool = False) -> list[Hit]:
        """The k best products of one query, best first; with `explain`, the codes and features behind each.

        Raises SettingError for a query that is no text or a k that is no whole number from 1.
        """
        return self._hits(self.represent([query], compound=False)[0], k, explain)

    def search_many(
        self, queries: Mapping[str, str], k: int = 300, progress: bool = False
    ) -> dict[str, dict[str, float]]:
        """A run: for each query id the scores of its k best products. Errors as of `search`."""
        if not isinstance(queries, Mapping):
            raise SettingError(f"queries are of type {type(queries).__name__}. Fix: give a map of ids to texts")
        represented = self.represent_in_parts(list(queries.values()), "searching" if progress else "")
        return {query_id: self.rank(query, k) for query_id, query in zip(queries, represented, strict=True)}

    def rank(self, query: QueryRepresentation, k: int) -> dict[str, float]:
        """The k best products of a represented query, best first, with their scores."""
        candidates, scores = self._rank(query, k)
        return dict(zip(self.index.table.ids[candidates.rows].tolist(), scores.tolist(), strict=True))

    def represent(self, queries: Sequence[str], compound: bool = True) -> list[QueryRepresentation]:
        """What the coder says of each query, misspelt words read right.

        Compound codes are written where the scorer weighs them, or `compound` asks for them: for one query they take as
        long as all the rest. Raises SettingError for a query that is no text.
        """
        read = self._represent([self.read(query)[0] for query in queries], compound)
        return [self.leaving_out(query, [self.index]) for query in read]

    def recall(self, read: str) -> QueryRepresentation:
        """What `represent` says of a query, as `read` gives it, without compound codes that nobody weighs, remembered:
        on another page, under another filter or after a change of the shop it is not coded again. What it leaves out is
        for `leaving_out` to tell, by the titles of that moment."""
        key = read, self.weighs_compound
        found = self._remembered.get(key)
        if found is None:
            found = self._represent([read], compound=False)[0]
            self._remembered.put(key, found, _bytes_of(found))
        return found

    def leaving_out(self, query: QueryRepresentation, indexes: Sequence[Index]) -> QueryRepresentation:
        """A query with what it leaves out, words and attributes, as the titles of a shop's segments have it."""
        if not query.terms.left_out:
            return query
        query = read_left_out(query, indexes)
        keys, things, lexicon = self.left_out(query), set(map(tuple, query.terms.left_out)), self.lexicon
        of_it = [key for key in keys if lexicon.default_slot_ids[key] in SUCH_AS_IT_IS]
        denied = [key for key in of_it if not things.isdisjoint(lexicon.forms[key])]
        return query._replace(codes=query.codes.leaving_out(keys, frozenset(denied)))

    def left_out(self, query: QueryRepresentation) -> frozenset[int]:
        """The attributes that a query holds only to leave them out: "without laces"."""
        stems, meant = query.terms.stems, query.terms.left_out

        def named(key: int, row: Sequence[str]) -> int:
            return sum(
                tuple(row[i : i + len(form)]) == form for form in self.lexicon.forms[key] for i in range(len(row))
            )

        keys = query.lexical.key.tolist()
        return frozenset(key for key in keys if 0 < named(key, stems) <= sum(named(key, some) for some in meant))

    @property
    def weighs_compound(self) -> bool:
        """Whether compound codes count in the score, so that a search writes them."""
        return bool(self.scorer.weights[columns(("compound",))].any())

    def _represent(self, read: Sequence[str], compound: bool) -> list[QueryRepresentation]:
        compound = compound or self.weighs_compound
        coding = self.coding if compound else dataclasses.replace(self.coding, codes=0)
        represented = self.coder.represent(read, Side.QUERY, coding)
        terms = [QueryTerms.read(query, self.lexicon.analyzer) for query in read]
        rows = (represented.query(row, terms[row], self.lexicon) for row in range(len(read)))
        return [row._replace(expansion=self._affordable(row.expansion)) for row in rows]

    def _affordable(self, expansion: SparseRow) -> SparseRow:
        if not self.coding.postings:
            return expansion
        keys = expansion.key.astype(np.int64)  # (K,)
        touched = self.index.lexical.lengths(keys) + self.index.expansion.lengths(keys)  # (K,)
        return affordable(expansion, touched, self.coding.postings * max(1.0, self.index.n_products / PRODUCTS))

    def represent_in_parts(
        self, queries: Sequence[str], progress: str = "", size: int = BATCH
    ) -> Iterator[QueryRepresentation]:
        """The same without compound codes that nobody weighs, as they are asked for: memory holds one part of many
        queries. `progress` names a bar."""
        for begin in tqdm(range(0, len(queries), size), desc=progress, unit="batch", disable=not progress):
            yield from self.represent(queries[begin : begin + size], compound=False)

    def read(self, query: str) -> ClippedQuery:
        """The query as it is searched: cut to what is read of it, its words read right that neither the shop nor the
        coder knows; and a sentence on what is left out.

        A word that the coder knows is left as it is: "couch" is no misspelt "coach", even where nobody sells couches.
        So is the first of what the query leaves out, which must not become another thing that is left out then; the
        second counts only where titles have it right behind the first, so that it is hardly read wrong.
        Raises SettingError for a query that is no text.
        """
        if not isinstance(query, str):
            raise SettingError(f"a query is a text, not {query!r} ({type(query).__name__})")
        query, left_out = self.lexicon.analyzer.clip_query(query)
        row = self.lexicon.analyzer.words(query)
        read = self.speller.correct_query(
            row, self.coder.knows, self._together, self.lexicon.analyzer.find_negated(row)
        )
        return ClippedQuery(query if read == row else " ".join(read), left_out)

    def _together(self, others: Sequence[str], stem: str) -> float:
        """How many products hold a stem and each of the other words of a query, each by its idf."""
        bm25, holding = self.index.bm25, self.index.bm25.holding(stem)
        analyzer = self.lexicon.analyzer
        rest = {s for word in others for s in analyzer.stems(word) if s in bm25.ids} - analyzer.stopwords
        return sum(bm25.idf(s) * len(np.intersect1d(holding, bm25.holding(s), assume_unique=True)) for s in rest)

    def scored_anew(self, only: Sequence[str] = ()) -> Searcher:
        """The same search under the scores that its model's folder holds now; by some groups alone, where named.

        Raises ModelError for a score that cannot be read, and as of `only`.
        """
        made = copy.copy(self)
        if made.model is not None:
            made.scorer = Scorer.load(made.model)
            there = [groups for groups in ALONE if (made.model / file_of(groups)).is_file()]
            made.alone = {groups: Scorer.load(made.model, file_of(groups)) for groups in there}
        return made.only(only) if only != () else made

    def only(self, names: Sequence[str]) -> Searcher:
        """The same search by these features, or groups of features, alone, in finding and in ranking.

        Raises SettingError for a name that is neither, for none at all, and for names by which nothing is found.
        """
        if isinstance(names, str) or not isinstance(names, Iterable):
            given = names.split(",") if isinstance(names, str) else ["codes", "words"]
            fix = f"only={[name.strip() for name in given]!r:.200}"
            raise SettingError(f"features to search by are given in a list, not as {names!r:.60}. Fix: {fix}")
        names, value = tuple(names), columns(("value",))  # the shop's own, which weighs what it says
        if not names:
            raise SettingError(f"no group of features is left to search by. Fix: name some of {', '.join(GROUPS)}")
        kept = columns(names) & ~value
        groups = tuple(sorted(group for group in GROUPS if (kept & columns((group,))).any()))
        alone = self.alone.get(groups) if (kept == columns(groups)).all() else None
        others = [name for name, here in zip(NAMES, kept | value, strict=True) if not here]
        made = self.with_scorer(alone or self.scorer.without(others))
        if not (made.scorer.weights[kept] > 0).any() and (made.scorer.network is None or not kept.any()):
            fix = f"add some of {', '.join(group for group in GROUPS if group != 'value')}"
            raise SettingError(f"nothing is found by {', '.join(names)} alone. Fix: {fix}")
        made.reads = kept | value
        return made

    def with_attributes(self, attributes: Sequence[tuple[Attribute, tuple[float, float]]]) -> Searcher:
        """The same search with attributes more that its coder writes, each with how much harder it is made to write;
        those that it cannot write are left out."""
        coder = self.coder
        for attribute, harder in attributes:
            try:
                coder = add_attribute(coder, attribute, harder)
            except SettingError as error:  # of a model trained since, say, which knows these words otherwise
                log.warning("%s is not added: %s", attribute, error)
        return self.with_coder(coder, [attribute for attribute, _ in attributes])

    def with_coder(self, coder: Coder, added: Sequence[Attribute]) -> Searcher:
        """The same search by a coder to which these attributes were added."""
        made = copy.copy(self)  # no attribute of the index gets another id
        made.coder = coder
        for attribute in added:
            made.speller.learn(self.lexicon.analyzer.stems(attribute.value))
        made.lexicon = made.coder.lexicon
        made._remembered = Remembered(QUERIES, QUERY_BYTES)
        return made

    def with_ready(self, queries: Sequence[str]) -> Searcher:
        """The same search that remembers these queries alone, represented together: in a third of the time."""
        made = copy.copy(self)
        made._remembered = Remembered(len(queries), QUERY_BYTES)
        read = list(dict.fromkeys(self.read(query)[0] for query in queries))
        for text, query in zip(read, self._represent(read, compound=False), strict=True):
            made._remembered.put((text, self.weighs_compound), query, 0)
        return made

    def with_scorer(self, scorer: Scorer) -> Searcher:
        """The same search under other weights."""
        made = copy.copy(self)  # the vocabulary and the network are the same: nothing is built again
        made.scorer = scorer
        return made

    def _rank(self, query: QueryRepresentation, k: int) -> tuple[Candidates, NDArray[np.float32]]:
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise SettingError(f"k counts products: a whole number from 1, not {k!r}")
        depth = max(FROM_POSTINGS, int(k))
        candidates = find_candidates(self.index, query, self.scorer.first_phase, depth + NEAREST, depth, self.reads)
        scores = self.scorer.score(candidates.features)
        order, best = top_k(scores, min(int(k), len(scores)))
        return Candidates(candidates.rows[order], candidates.features[order]), best

    def _hits(self, query: QueryRepresentation, k: int, explain: bool) -> list[Hit]:
        candidates, scores = self._rank(query, k)
        table, rows = self.index.table, candidates.rows
        hits = list(map(Hit, table.ids[rows].tolist(), scores.tolist(), map(table.title, rows.tolist())))
        if explain:
            shown = zip(hits, rows.tolist(), candidates.features, strict=True)
            hits = [self.explain(query, hit, self.index, row, features) for hit, row, features in shown]
        return hits

    def explain(
        self, query: QueryRepresentation, hit: Hit, index: Index, row: int, features: NDArray[np.float32]
    ) -> Hit:
        """A hit, in a row of an index, with the codes and the features (F,) that speak for it; the parts add up to its
        score."""
        weighed = features * self.scorer.weights
        parts = {name: float(part) for name, part in zip(NAMES, weighed, strict=True) if part}
        rest = hit.score - sum(parts.values()) - self.scorer.shift
        parts["base"] = self.scorer.shift  # what a product without any feature would have
        if self.scorer.network is not None:
            parts["network"] = rest
        speaking_for = float(weighed[weighed > 0].sum())
        return hit._replace(codes=self._shared_codes(query, index, row, speaking_for), features=parts)

    def _shared_codes(
        self, query: QueryRepresentation, index: Index, row: int, speaking_for: float
    ) -> tuple[SharedCode, ...]:
        """The codes that the query and the product in `row` share, the weightiest first; of those that the query leaves
        out the query's source says so.

        `speaking_for` is the sum of all parts of the score that speak for the product: what shares are of.
        """
        shared: list[SharedCode] = []
        match = CodeMatch(index, query.codes, np.array([row]))
        whole = dict(zip(match.codes.key.tolist(), self._part_of_single(match).tolist(), strict=True))
        for feature, feature_weight in zip(FEATURES, self.scorer.weights.tolist(), strict=True):
            sides = feature.first_phase
            if not isinstance(sides, SharedKeys) or (sides.query == "compound" and not feature_weight):
                continue
            keys, postings = sides.keys(query), sides.postings(index)
            for key, weight in zip(keys.key.tolist(), keys.weight.tolist(), strict=True):
                there = _weight(postings, key, row)
                if there:
                    part = feature_weight * weight * there
                    if sides.query == "lexical":
                        part += whole.pop(key, 0.0)
                    code = self.code_of(key) if sides.query == "compound" else (self.lexicon.attributes[key],)
                    shared.append(SharedCode(code, weight, there, sides.query, sides.product, part))
        shared += self._compound_codes(match) + self._near_codes(match, index, row)
        shared = [s._replace(share=s.share / max(speaking_for, 1e-9)) for s in shared]
        left_out = {self.lexicon.attributes[key] for key in query.codes.left_out}
        shared = [s if left_out.isdisjoint(s.code) else s._replace(query_source="left_out") for s in shared]
        return tuple(sorted(shared, key=lambda s: -s.share))

    def _part_of_single(self, match: CodeMatch) -> NDArray[np.float32]:
        """(K,) what each attribute that a query holds adds to the score of the one candidate by what it has of it."""
        lexical, share = (self.scorer.weights[NAMES.index(name)] for name in ("lexical_share", "code_share"))
        return match.codes.importance * (lexical * match.lexical[0] + share * match.has[0])

    def _compound_codes(self, match: CodeMatch) -> list[SharedCode]:
        """The compound codes of two attributes that the one candidate has, the most important ones, with their parts of
        the score."""
        weight, codes = float(self.scorer.weights[NAMES.index("code_pairs")]), match.codes
        have = codes.importance * match.has[0]  # (K,)
        every = float(codes.importance @ codes.apart @ codes.importance)
        if every <= 0:
            return []
        parts = np.triu(2 * weight * codes.apart * np.outer(have, have) / every)  # (K, K)
        best, part = top_k(parts.ravel(), SHOWN_PAIRS)
        found = []
        for at, value in zip(best.tolist(), part.tolist(), strict=True):
            pair = sorted(divmod(at, len(codes.key)), key=lambda i: (codes.slot[i], codes.key[i]))
            if value > 0:
                code = tuple(self.lexicon.attributes[int(codes.key[i])] for i in pair)
                lexical = all(match.lexical[0, i] for i in pair)
                there = float(np.prod(match.has[0, pair]))
                found.append(SharedCode(code, 1.0, there, "lexical", "lexical" if lexical else "expansion", value))
        return found

    def _near_codes(self, match: CodeMatch, index: Index, row: int) -> list[SharedCode]:
        """The codes of the one candidate that come nearest to what is asked and it lacks, with their parts of the
        score."""
        weight, codes, nearest = float(self.scorer.weights[NAMES.index("soft_share")]), match.codes, match.nearest[0]
        if codes.near is None:
            return []
        found, parts = [], weight * codes.importance * nearest * (1 - match.has[0])  # (K,)
        for k in np.flatnonzero(parts).tolist():
            near = codes.near.of(k)
            key = int(near.key[np.isin(near.key, match.entries.key) & (near.weight == nearest[k])][0])
            lexical = _weight(index.lexical, key, row)
            there, source = (lexical, "lexical") if lexical else (_weight(index.expansion, key, row), "expansion")
            code = (self.lexicon.attributes[key],)
            to = self.lexicon.attributes[codes.key[k]]
            found.append(SharedCode(code, float(nearest[k]), there, "near", source, float(parts[k]), to))
        return found

    @cached_property
    def codes(self) -> NDArray[np.int32]:
        """(C, L) the attributes of every code, padded with −1."""
        return self.coder.trie.table()

    def code_of(self, code_id: int) -> Code:
        """The code of an id, as its attributes."""
        row = self.codes[code_id]
        return tuple(Attribute(*self.lexicon.attributes[a]) for a in row.tolist() if a >= 0)


def _bytes_of(query: QueryRepresentation) -> int:
    """What a representation takes of memory, about."""
    sparse = sum(part.key.nbytes + part.weight.nbytes for part in (query.lexical, query.expansion, query.compound))
    if query.codes.near is not None:
        sparse += query.codes.near.key.nbytes + query.codes.near.weight.nbytes
    return 3_000 + sparse + query.codes.apart.nbytes + query.dense.nbytes + query.token_vectors.nbytes


def affordable(expansion: SparseRow, touched: NDArray[np.int64], most: float) -> SparseRow:
    """Of the attributes that a coder writes for a query (K,) those of the greatest weight a posting, as many as touch
    no more postings than `most`: what half of the shop has tells little and costs most. `touched` (K,) of each."""
    kept = np.zeros(len(touched), dtype=bool)
    for at in np.argsort(-expansion.weight / np.maximum(touched, 1), kind="stable").tolist():
        if touched[at] <= most:
            kept[at], most = True, most - touched[at]
    return SparseRow(expansion.key[kept], expansion.weight[kept])


def make_speller(index: Index, lexicon: Lexicon, known: Callable[[str], bool] = lambda word: False) -> Speller:
    """Knows the words of the catalogue, and those of several of the log's queries: of what one query alone says and no
    product, most is misspelt. A word of one product is read into others where `known` knows it: a shop may have one
    trumpet."""
    counts = dict(zip(index.bm25.ids, np.diff(index.bm25.postings.start).astype(float).tolist(), strict=True))
    spellings = {}
    for attribute, forms, queries in zip(lexicon.attributes, lexicon.forms, lexicon.queries.tolist(), strict=True):
        if len(forms[0]) == 1:
            spellings[forms[0][0]] = attribute.value
            if queries >= RARE:
                counts[forms[0][0]] = counts.get(forms[0][0], 0.0) + queries
    rare = [stem for stem, count in counts.items() if count < RARE and known(spellings.get(stem, stem))]
    speller = Speller(counts | dict.fromkeys(rare, float(RARE)), spellings, lexicon.analyzer.stem)
    speller.learn(map(speller.stem, lexicon.analyzer.tables.negations["asked"]))  # "without" is no "with out"
    return speller


def _weight(postings: Postings, key: int, row: int) -> float:
    if not 0 <= key < postings.n_keys:
        return 0.0
    products, weights = postings.of(key)
    at = np.flatnonzero(products == row)
    return float(weights[at[0]]) if len(at) else 0.0


def find_model(index: str | Path, meta: Mapping[str, Any]) -> Path:
    """Where an index's model is: beside it under the name it had when the index was built, or where it was then.

    A relative name may mean another shop's model here, so of two the one that the index was built with is taken. Raises
    IndexFolderError where there is none.
    """
    index, named = Path(index), Path(meta["model"])
    there = [f for f in dict.fromkeys((index.parent / named.name, named)) if (f / "config.json").is_file()]
    if not there:
        raise IndexFolderError(f"{index}: its model {named} is not there. Fix: name the model's folder with --model")
    for folder in there if len(there) > 1 else ():  # a hash reads all weights, and `load` asks for it anyway
        with suppress(OSError, GramError):
            if model_hash(folder) == meta["model_hash"]:
                return folder
    return there[0]
