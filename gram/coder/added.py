"""Attributes added to a coder while its index serves: it writes them from then on, and no attribute that an index holds
changes its id.

A coder numbers a new attribute among those that it has learnt, so that the lexical ones move up. Outside it stands
behind all others, or where a lexical one of the same words stood.

Letters: A attributes, G of them learnt by the coder as it was trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gram.arrays import SparseRows
from gram.coder.base import Coder, CodingSettings, Representations, Side
from gram.codes.lexicon import Lexicon
from gram.codes.trie import CodeTrie
from gram.errors import SettingError
from gram.records import Attribute, Product


class Tried(Protocol):
    """Texts on which attributes are tried, read once for all that are added."""

    @property
    def least(self) -> float:
        """The probability from which an attribute counts as written for a text."""

    @property
    def counts(self) -> NDArray[np.int64]:
        """(G,) for how many of the texts each learnt attribute is written."""


@runtime_checkable
class Extensible(Protocol):
    """A coder that can learn to write an attribute without training."""

    def with_attribute(self, attribute: Attribute, harder: tuple[float, float] = (0.0, 0.0)) -> Coder: ...

    def read_tried(self, texts: Sequence[str] | Sequence[Product], side: Side, least: float) -> Tried: ...

    def chances(self, tried: Any) -> NDArray[np.float64]:
        """The probabilities, falling, of the attribute that was learnt last, for the texts for which it is written."""

    def make_harder(self, harder: tuple[float, float]) -> None:
        """Makes the attribute that was learnt last harder to write, where the coder is used by nobody yet."""


class AddedAttributes:
    """A `Coder` of another one that learnt some attributes more. `added` are these, `trie` the codes that it had."""

    def __init__(
        self, inner: Coder, trie: CodeTrie, outside: NDArray[np.int64], n_learnt: int, added: tuple[Attribute, ...]
    ) -> None:
        """`outside` (A,) is the id outside of each attribute of `inner`."""
        self.inner, self.trie, self.outside, self.added = inner, trie, outside, added
        self.lexicon = _renumber(inner.lexicon, outside, n_learnt)
        self.query_coding = inner.query_coding
        self._vectors: NDArray[np.float32] | None = None

    def represent(
        self, texts: Sequence[str] | Sequence[Product], side: Side, settings: CodingSettings, progress: str = ""
    ) -> Representations:
        """As `Coder.represent`."""
        found = self.inner.represent(texts, side, settings, progress)
        lexical, expansion = (
            SparseRows(rows.start, self.outside[rows.key], rows.weight) for rows in (found.lexical, found.expansion)
        )
        near = found.near
        if near is not None:
            near = near._replace(lexical=self.outside[near.lexical], key=self.outside[near.key])
        vectors = None if found.code_vectors is None else self._renumbered(found.code_vectors)
        return found._replace(lexical=lexical, expansion=expansion, near=near, code_vectors=vectors)

    def _renumbered(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors of the attributes that `inner` has learnt, by their ids outside; made once."""
        if self._vectors is None:
            at = self.outside[: len(vectors)]
            self._vectors = np.zeros((int(at.max(initial=-1)) + 1, vectors.shape[1]), dtype=np.float32)
            self._vectors[at] = vectors
        return self._vectors

    def with_words(self, words: Mapping[str, int]) -> Coder:
        """As `Coder.with_words`, which comes before attributes are added."""
        if any(self.lexicon.id_of((word,)) < 0 for word in words):
            raise ValueError("words are taught before attributes are added")
        return self

    def knows(self, word: str) -> bool:
        """As `Coder.knows`; and the words of what was added."""
        stem = self.lexicon.analyzer.stem(word)
        return self.inner.knows(word) or any(stem in self.lexicon.analyzer.stems(a.value) for a in self.added)


def add_attribute(coder: Coder, attribute: Attribute, harder: tuple[float, float] = (0.0, 0.0)) -> Coder:
    """The coder with one attribute more, which it writes from its text; the same one where it has learnt it already.

    `harder` is what the logit loses, for a query and for a product: see `too_easy`. Raises SettingError for an unknown
    slot, a value that is no attribute or that another slot has, and for a coder that learns none without training.
    """
    known = coder.lexicon
    form = tuple(known.analyzer.stems(attribute.value))
    inner = coder.inner if isinstance(coder, AddedAttributes) else coder
    lexicon, old = inner.lexicon, inner.lexicon.id_of(form)
    if not lexicon.n_learnt:
        raise SettingError("this model has learnt no attribute to measure it by. Fix: train on more products")
    if not 1 <= len(form) <= 6:
        raise SettingError(f"{attribute.value!r:.80} is no attribute. Fix: write one to six words")
    if attribute.slot not in lexicon.slots:
        raise SettingError(f"there is no slot {attribute.slot!r:.40}. Fix: choose from {', '.join(lexicon.slots)}")
    if 0 <= old < lexicon.n_learnt:
        if lexicon.attributes[old].slot == attribute.slot:
            return coder
        raise SettingError(f"these words are {lexicon.attributes[old]} already. Fix: use that")
    extensible = _extensible(coder)
    g = lexicon.n_learnt
    outside = coder.outside if isinstance(coder, AddedAttributes) else np.arange(len(lexicon))
    order = [a for a in range(g, len(lexicon)) if a != old]  # as `Lexicon.with_learnt` moves them
    new = outside[old] if old >= 0 else len(known)
    moved = np.concatenate([outside[:g], [new], outside[order]]).astype(np.int64)
    added = (*(coder.added if isinstance(coder, AddedAttributes) else ()), attribute)
    return AddedAttributes(extensible.with_attribute(attribute, harder), coder.trie, moved, known.n_learnt, added)


def read_tried(coder: Coder, texts: Sequence[str] | Sequence[Product], side: Side, least: float) -> Tried:
    """Texts of a side for `too_easy`, as a coder with attributes that were added reads them."""
    return _extensible(coder).read_tried(texts, side, least)


def too_easy(coder: Coder, attribute: Attribute, tried: Tried) -> float:
    """By how much the logit of the attribute that was added last is too great: less that, as many of the tried texts
    get it with a probability of `least` as get one that was learnt of its slot, on average.

    What nobody trained is near to everything, the more the less the encoder has read.
    """
    lexicon = coder.lexicon
    peers = [a for a in range(lexicon.n_learnt) if lexicon.attributes[a].slot == attribute.slot]
    usual = round(float(tried.counts[peers].sum()) / max(len(peers), 1))
    chance = _extensible(coder).chances(tried)
    if len(chance) <= usual:
        return 0.0
    highest = min(float(chance[usual]), 1 - 1e-6)
    return float(np.log(highest / (1 - highest)) - np.log(tried.least / (1 - tried.least))) + 0.01


def make_harder(coder: Coder, harder: tuple[float, float]) -> None:
    """Makes the attribute that was added last, with nothing that makes it harder to write, as hard as `add_attribute`
    would have: of a coder that nobody uses yet, in place of making it again."""
    _extensible(coder).make_harder(harder)


def _extensible(coder: Coder) -> Extensible:
    inner = coder.inner if isinstance(coder, AddedAttributes) else coder
    if not isinstance(inner, Extensible):
        raise SettingError("this model learns no attribute without training. Fix: run gram train and gram index again")
    return inner


def _renumber(lexicon: Lexicon, outside: NDArray[np.int64], n_learnt: int) -> Lexicon:
    """A lexicon with each attribute at its id outside, the first `n_learnt` learnt."""
    inside = np.argsort(outside)
    return replace(
        lexicon,
        attributes=[lexicon.attributes[a] for a in inside],
        forms=[lexicon.forms[a] for a in inside],
        n_learnt=n_learnt,
        products=lexicon.products[inside],
        queries=lexicon.queries[inside],
        mention_rate=lexicon.mention_rate[inside],
        _ids={},
    )
