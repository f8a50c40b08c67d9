"""What a coder is: it turns queries and products into representations, and everything else of GRAM reads only those.

Letters: N texts, S tokens of all texts, D width of a dense vector, W of a token's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise, takewhile
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gram.arrays import SparseRow, SparseRows
from gram.codes.lexicon import Lexicon
from gram.codes.slots import SLOTS
from gram.codes.trie import CodeTrie
from gram.index.token_vectors import TokenVectors
from gram.records import Product
from gram.text.analysis import Analyzer
from gram.text.words import has_digit

FORMAT = 3
LEXICON, WEIGHTS = "lexicon.jsonl", "model.safetensors"
"""What every model folder holds, whichever coder is in it."""


class Side(IntEnum):
    """Which side of an interaction a text is on."""

    QUERY = 0
    PRODUCT = 1


@dataclass(frozen=True)
class CodingSettings:
    """How much of what a coder says of a text is kept."""

    expansion: int = 24  # attributes that the text lacks, the heaviest ones
    least: float = 0.03  # of the probability that such an attribute is right
    certainty: float = 0.0  # power of that probability by which the encoder multiplies its weight
    codes: int = 12  # compound codes; 0 leaves them out
    beam: int = 6
    starts: int = 6  # first attributes that compound codes begin with
    batch: int = 64
    postings: int = 0  # that a query's expansions touch at most in an index of 50,000 products; 0 for any number
    near: int = 0  # learnt attributes near to one that the text holds, the nearest ones
    descriptions: bool = True  # whether a product's vectors are of its description too; an index of before says nothing


PRODUCT_CODING = CodingSettings()
QUERY_CODING = CodingSettings(expansion=32, certainty=1.0, codes=8, postings=3_000, near=64)
SURE_CODING = CodingSettings(expansion=10, least=0.4, codes=8)
"""Of a query what a coder is sure of alone: what health judges, what co-training teaches products, what a language
model's codes say, and what an attribute that is added is measured by."""


EXCLUSIVE = tuple(SLOTS.index(slot) for slot in ("brand", "colour", "size", "model", "audience"))
"""Slots of which a product has one attribute, or a searcher wants no other."""
SUCH_AS_IT_IS = tuple(SLOTS.index(slot) for slot in ("brand", "colour", "material"))
"""Slots of what a product is, all of it, wherever it says so; others name what it has, or goes with, too."""

LEFT_OUT = 2
"""Words behind a negation that say what a query leaves out: "without mesh liner"."""


class QueryTerms(NamedTuple):
    """The words of a query as its shop's analyzer reads them."""

    stems: Sequence[str]
    telling: Sequence[str]  # each stem once, stop words left out
    measures: Sequence[tuple[str, str]]  # a number and the unit behind it
    left_out: Sequence[Sequence[str]] = ()  # stems of each thing that is not wanted: shoes without (laces)
    negations: Mapping[str, Sequence[str]] = {}  # stems that deny, in titles, what they stand "before" …
    purposes: Collection[str] = ()  # stems behind which titles say what a product is for

    @classmethod
    def read(cls, query: str, analyzer: Analyzer) -> QueryTerms:
        row, words, negations = analyzer.stems(query), analyzer.words(query), analyzer.tables.negations
        says = [word not in analyzer.stopwords for word in words]
        telling = [stem for stem, tells in zip(row, says, strict=True) if tells]
        measures = [(a, b) for a, b in pairwise(row) if has_digit(a) and b in analyzer.unit_names]
        left_out = [
            row[at : at + _count_said(says[at:])] for at in analyzer.find_negated(words) if not has_digit(row[at])
        ]
        denying = {where: [analyzer.stem(w) for w in deny] for where, deny in negations.items()} if left_out else {}
        # "xs" has the stem of a stop word and is none
        return cls(row, list(dict.fromkeys(telling)), measures, left_out, denying, analyzer.purposes)


def _count_said(says: Sequence[bool]) -> int:
    """How many of the words from the first that a negation leaves out are left out: up to the next that says nothing,
    at most `LEFT_OUT`."""
    return sum(1 for _ in takewhile(bool, says[:LEFT_OUT]))


class NearAttributes(NamedTuple):
    """For attributes that texts hold, the learnt ones that mean much the same there, and how near they come."""

    text: NDArray[np.int64]  # (X,)
    lexical: NDArray[np.int64]  # (X,) the attribute that the text holds
    key: NDArray[np.int64]  # (X,) another attribute
    likeness: NDArray[np.float32]  # (X,) in (0, 1]

    def of(self, text: int) -> NearAttributes:
        """Those of one text; `text` rises."""
        return self.take(slice(*np.searchsorted(self.text, (text, text + 1)).tolist()))

    def take(self, which: slice | NDArray[np.bool_] | NDArray[np.int64]) -> NearAttributes:
        """Some of them."""
        return NearAttributes(self.text[which], self.lexical[which], self.key[which], self.likeness[which])

    def by_key(self, keys: NDArray[np.int64]) -> SparseRows:
        """A row for each of K attributes that a text holds, rising."""
        return SparseRows.build(np.searchsorted(keys, self.lexical), self.key, self.likeness, len(keys))

    def agreeing(self, slots: NDArray[np.int32]) -> NearAttributes:
        """Without those of which a product has one alone: red is not near to blue. `slots` (A,) are numbers."""
        exclude = (slots[self.lexical] == slots[self.key]) & np.isin(slots[self.key], EXCLUSIVE)
        return self.take(~exclude)

    def otherwise(self, said: AbstractSet[str], lexicon: Lexicon) -> NearAttributes:
        """Without those that have a stem of what is `said`: near is what says it otherwise."""
        other = [said.isdisjoint(lexicon.forms[k][0]) for k in self.key.tolist()]
        return self.take(np.array(other, dtype=np.bool_))


class QueryCodes(NamedTuple):
    """The attributes that a query holds, as its single and compound codes ask for them together."""

    key: NDArray[np.int64]  # (K,) attribute ids, rising
    importance: NDArray[np.float32]  # (K,) that sum to 1
    slot: NDArray[np.int32]  # (K,) numbers of slots, see `Lexicon.default_slot_ids`
    apart: NDArray[np.bool_]  # (K, K) whether two of them say different things: neither repeats a word of the other
    near: SparseRows | None = None  # of each, the learnt attributes that come near to it, by how near; None: not known
    left_out: frozenset[int] = frozenset()  # those of the keys that the query holds only to leave them out
    denied: frozenset[int] = frozenset()  # of these what a product is, not what it has: who holds one is unwanted

    @classmethod
    def read(cls, lexical: SparseRow, lexicon: Lexicon, near: NearAttributes | None = None) -> QueryCodes:
        """From a query's lexical weights. A weight is the root of idf, times what the model makes of the word, so its
        square says how much of what is asked the attribute is."""
        key, first = np.unique(lexical.key.astype(np.int64), return_index=True)
        squared = lexical.weight[first].astype(np.float32) ** 2
        total = float(squared.sum())
        words = [set(lexicon.forms[k][0]) for k in key.tolist()]
        apart = np.array([[a.isdisjoint(b) for b in words] for a in words], dtype=bool).reshape(len(key), len(key))
        importance = squared / total if total > 0 else squared
        close = None
        if near is not None:
            agreeing = near.agreeing(lexicon.default_slot_ids)
            close = agreeing.otherwise(set().union(*words), lexicon).by_key(key)
        return cls(key, importance, lexicon.default_slot_ids[key], apart, close)

    def leaving_out(self, keys: frozenset[int], denied: frozenset[int] = frozenset()) -> QueryCodes:
        """The same of a query that leaves these attributes out: nothing is near to them. `denied` are some of them."""
        near = self.near
        if near is not None and keys:
            row = near.rows()
            kept = ~np.isin(self.key[row], list(keys))
            near = SparseRows.build(row[kept], near.key[kept], near.weight[kept], len(self.key))
        return self._replace(near=near, left_out=keys, denied=denied)


class QueryRepresentation(NamedTuple):
    """All that a coder says of one query; keys are attribute ids, or code ids for `compound`."""

    terms: QueryTerms
    codes: QueryCodes
    lexical: SparseRow
    expansion: SparseRow
    compound: SparseRow
    dense: NDArray[np.float32]  # (D,)
    token_vectors: NDArray[np.float32]  # (Q, W) of the query's Q tokens
    token_weights: NDArray[np.float32]  # (Q,)
    code_vectors: NDArray[np.float32] | None = None  # as of `Representations`


class Representations(NamedTuple):
    """All that a coder says of N texts."""

    lexical: SparseRows  # attributes that a text holds
    expansion: SparseRows  # attributes that it lacks and the model writes, or that are nearest to a word of a query
    probability: NDArray[np.float32]  # of each entry of `expansion`, or how near it is where that is more
    compound: SparseRows  # codes of two and more attributes
    dense: NDArray[np.float32]  # (N, D)
    token_vectors: TokenVectors  # of N texts, S in all
    token_weights: NDArray[np.float32]  # (S,)
    near: NearAttributes | None = None  # None where they are not kept, or a coder cannot tell
    code_vectors: NDArray[np.float32] | None = None  # (G, V) of the learnt attributes, the same for all texts

    def query(self, row: int, terms: QueryTerms, lexicon: Lexicon) -> QueryRepresentation:
        """One of the texts as a query."""
        tokens = slice(int(self.token_vectors.start[row]), int(self.token_vectors.start[row + 1]))
        return QueryRepresentation(
            terms,
            QueryCodes.read(self.lexical.of(row), lexicon, self.near and self.near.of(row)),
            self.lexical.of(row),
            self.expansion.of(row),
            self.compound.of(row),
            self.dense[row],
            self.token_vectors.of(row),
            self.token_weights[tokens],
            self.code_vectors,
        )


class Coder(Protocol):
    """Turns texts into representations over one lexicon and one space of codes.

    Of a query a search asks it for what `query_coding` says: all that it half knows, where its weights tell how sure it
    is, or what it is sure of."""

    @property
    def query_coding(self) -> CodingSettings: ...

    @property
    def lexicon(self) -> Lexicon: ...

    @property
    def trie(self) -> CodeTrie:
        """The codes that exist."""

    def represent(
        self, texts: Sequence[str] | Sequence[Product], side: Side, settings: CodingSettings, progress: str = ""
    ) -> Representations:
        """Queries, or products with their fields. `progress` names the bar shown when there are many."""

    def with_words(self, words: Mapping[str, int]) -> Coder:
        """The same for a catalogue with stems that the lexicon lacks: {stem: products that hold it}."""

    def knows(self, word: str) -> bool:
        """Whether the coder's language knows a word, so that it is not taken for a misspelling."""
