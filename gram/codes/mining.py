"""Finds a shop's attributes in its catalogue and its log, and makes the lexicon of them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from gram.codes.lexicon import Lexicon, Stems
from gram.codes.slots import SLOTS, STOPWORDS, UNIT_NAMES, slot_of_column, slot_of_words
from gram.codes.tagger import TrieTagger
from gram.codes.text import has_digit, stem, words
from gram.records import Attribute, Interaction, Product

ASKED_PRIOR = {"type": 0.3, "brand": 0.2, "model": 0.15, "size": 0.08, "colour": 0.08, "marketing": 0.01}
"""How often searchers name an attribute of a slot when the product has it, before a log says otherwise."""


@dataclass(frozen=True)
class MiningSettings:
    """How many attributes to keep, and what a phrase must show to be one."""

    max_generated: int = 8000
    min_products: int = 3  # a generated attribute stands in so many products,
    min_queries: int = 2  # or in so many queries
    asked_npmi: float = 0.15  # cohesion of a phrase that searchers type
    npmi: float = 0.55  # and of one that they do not
    max_words: int = 3  # of a phrase found in free text
    language: str = "porter"
    slots: tuple[str, ...] = SLOTS


def field_texts(product: Product) -> list[tuple[str, str]]:
    """A product's text by field, title first: (field, text), field one of FIELDS; empty ones left out."""
    texts = [("title", product.title), ("brand", product.brand), ("category", " . ".join(product.category[-2:]))]
    texts += [("attribute", value) for values in product.attributes.values() for value in values]
    texts.append(("description", product.description))
    return [(name, text) for name, text in texts if text]


FIELDS = ("title", "brand", "category", "attribute", "description")


class _Reader:
    """Words of texts, each distinct one read once: titles, brands and queries come back at every stage."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._read: dict[str, tuple[list[str], Stems]] = {}

    def __call__(self, text: str) -> tuple[list[str], Stems]:
        """The words of a text and their stems."""
        found = self._read.get(text)
        if found is None:
            row = words(text)
            found = self._read[text] = row, tuple(stem(w, self.language) for w in row)
        return found


class _Counts:
    """Word sequences of one kind of text: how many texts hold each, how it is written, where it stands."""

    def __init__(self, reader: _Reader, max_words: int) -> None:
        self.reader, self.max_words = reader, max_words
        self.texts = 0
        self.holding: Counter[Stems] = Counter()
        self.written: defaultdict[Stems, Counter[str]] = defaultdict(Counter)
        self.last: Counter[Stems] = Counter()

    def add(self, text: str) -> None:
        row, cut = self.reader(text)
        self.texts += 1
        seen: set[Stems] = set()
        for n in range(1, self.max_words + 1):
            for i in range(len(row) - n + 1):
                gram = cut[i : i + n]
                if n > 1 and (row[i] in STOPWORDS or row[i + n - 1] in STOPWORDS):
                    continue
                if gram not in seen:
                    seen.add(gram)
                    self.written[gram][" ".join(row[i : i + n])] += 1
        self.holding.update(seen)
        if row:
            end = next((i for i, w in enumerate(row) if i and w in STOPWORDS), len(row))
            self.last.update(cut[end - n : end] for n in range(1, self.max_words + 1) if end >= n)

    def npmi(self, gram: Stems) -> float:
        """Normalised pointwise mutual information of a phrase's two weakest-joined parts (Bouma 2009), in [-1, 1]."""
        together = self.holding[gram] / max(self.texts, 1)
        if not together or together == 1:
            return float(bool(together))
        apart = max(self.holding[gram[:i]] * self.holding[gram[i:]] for i in range(1, len(gram))) / self.texts**2
        return math.log(together / max(apart, 1e-12)) / -math.log(together)


def mine(products: Sequence[Product], log: Sequence[Interaction], settings: MiningSettings | None = None) -> Lexicon:
    """The lexicon of a catalogue and its log (which may be empty).

    Structured columns give attributes as they stand; free text gives phrases that searchers type and titles hold, and
    cohesive ones that titles alone repeat; every other word becomes a copied attribute, so that nothing is lost.
    """
    settings = settings or MiningSettings()
    reader = _Reader(settings.language)
    titles, queries = _Counts(reader, settings.max_words), _Counts(reader, settings.max_words)
    for product in products:
        titles.add(product.title)
    for query in dict.fromkeys(i.query for i in log):
        queries.add(query)
    structured, written = _structured(products, reader, settings)
    single = _single_words(products, reader)
    slots = {
        key: count.most_common(1)[0][0]
        for key, count in structured.items()
        if count.total() >= 0.25 * titles.holding[key]  # "wood" is a brand of few, a word of many
    }
    kept = _phrases(titles, queries, structured, settings) | slots.keys()
    kept |= {gram for counts in (titles.holding, queries.holding) for gram in counts if len(gram) == 1}
    kept |= single.keys()
    slots |= {key: _slot(key, titles, queries, settings) for key in kept - slots.keys()}
    keys = sorted(kept)
    held, named, asked = _usage(keys, products, log, slots, reader)
    ranked = _generated(keys, held, named, asked, titles, settings)
    chosen = set(ranked)
    order = ranked + [i for i in range(len(keys)) if i not in chosen]
    names = []
    for i in order:
        spelled = titles.written[keys[i]] + queries.written[keys[i]] + written[keys[i]]
        names.append(Attribute(slots[keys[i]], spelled.most_common(1)[0][0] if spelled else single[keys[i]]))
    return Lexicon(
        attributes=names,
        forms=[[keys[i]] for i in order],
        n_generated=len(ranked),
        products=held[order],
        queries=named[order],
        asked=asked[order],
        n_products=len(products),
        language=settings.language,
        slots=settings.slots,
    )


def _structured(
    products: Iterable[Product], reader: _Reader, settings: MiningSettings
) -> tuple[dict[Stems, Counter[str]], defaultdict[Stems, Counter[str]]]:
    """Column values of at most six words: the slots that name each, and how it is written."""
    votes: dict[Stems, Counter[str]] = {}
    written: defaultdict[Stems, Counter[str]] = defaultdict(Counter)
    for product in products:
        values = [("brand", product.brand)] + [("type", name) for name in product.category[-2:]]
        for column, row in product.attributes.items():
            values += [(slot_of_column(column, settings.slots), value) for value in row]
        for slot, value in values:
            spelled, key = reader(value)
            if 0 < len(key) <= 6 and slot in settings.slots:
                votes.setdefault(key, Counter())[slot] += 1
                written[key][" ".join(spelled)] += 1
    return votes, written


def _single_words(products: Iterable[Product], reader: _Reader) -> dict[Stems, str]:
    """Every word of every field by its stem, as it is written most."""
    count: Counter[str] = Counter()
    for product in products:
        for field, text in field_texts(product):
            count.update(
                words(text) if field == "description" else reader(text)[0]
            )  # long texts are read once, not kept
    written: dict[Stems, str] = {}
    for word, _ in count.most_common():
        written.setdefault((stem(word, reader.language),), word)
    return written


def _phrases(
    titles: _Counts, queries: _Counts, structured: dict[Stems, Counter[str]], settings: MiningSettings
) -> set[Stems]:
    kept = set()
    rare = max(5, titles.texts // 5000)
    for gram in titles.holding.keys() | queries.holding.keys():
        if len(gram) == 1:
            continue
        held, named = titles.holding[gram], queries.holding[gram]
        sized = len(gram) == 2 and gram[0][0].isdigit() and gram[1] in UNIT_NAMES
        if (
            (sized and held >= 2)
            or (named >= settings.min_queries and held >= 2 and titles.npmi(gram) >= settings.asked_npmi)
            or (held >= rare and not any(map(has_digit, gram)) and titles.npmi(gram) >= settings.npmi)
        ):
            kept.add(gram)
    return kept


def _slot(key: Stems, titles: _Counts, queries: _Counts, settings: MiningSettings) -> str:
    slot = slot_of_words(key, settings.slots)
    if slot:
        return slot
    named, held = queries.holding[key], titles.holding[key]
    last = queries.last[key] / named if named > 1 else titles.last[key] / max(held, 1)
    slot = "type" if last >= 0.3 else "modifier"
    return slot if slot in settings.slots else settings.slots[0]


def _usage(
    keys: Sequence[Stems],
    products: Sequence[Product],
    log: Sequence[Interaction],
    slots: dict[Stems, str],
    reader: _Reader,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Products and queries that hold each attribute, (A,) each, and the rate at which it is asked for, (A,).

    Interactions with a product that the catalogue lacks tell nothing of what it has, and are passed over.
    """
    tagger = TrieTagger(keys)

    @cache
    def tagged(text: str) -> frozenset[int]:
        return frozenset(tag.attribute for tag in tagger.tag(reader(text)[1]))

    times = Counter(interaction.product_id for interaction in log)
    held, named, wanted, asked = np.zeros((4, len(keys)), np.float32)
    own: dict[str, frozenset[int]] = {}
    for product in products:
        short = (text for field, text in field_texts(product) if field != "description")
        has = frozenset[int]().union(*map(tagged, short))
        held[list(has)] += 1
        wanted[list(has)] += times[product.product_id]
        if product.product_id in times:
            own[product.product_id] = has
    for query in {interaction.query for interaction in log}:
        named[list(tagged(query))] += 1
    for (query, product_id), count in Counter((i.query, i.product_id) for i in log).items():
        asked[list(tagged(query) & own.get(product_id, frozenset()))] += count
    prior = np.array([ASKED_PRIOR.get(slots[k], 0.04) * (len(k) != 1 or k[0] not in STOPWORDS) for k in keys])
    return held, named, ((asked + 20 * prior) / (wanted + 20)).astype(np.float32)


def _generated(
    keys: Sequence[Stems],
    held: NDArray[np.float32],
    named: NDArray[np.float32],
    asked: NDArray[np.float32],
    titles: _Counts,
    settings: MiningSettings,
) -> list[int]:
    """The attributes worth learning, most useful first: known to searchers or frequent; no numbers, no stop words."""
    common = 0.25 * max(titles.texts, 1)
    scored = []
    for i, key in enumerate(keys):
        if any(map(has_digit, key)) or all(w in STOPWORDS or len(w) < 2 for w in key) or held[i] > common:
            continue
        if held[i] >= settings.min_products or named[i] >= settings.min_queries:
            scored.append((-(held[i] * asked[i] + 3 * named[i]), i))
    return [i for _, i in sorted(scored)[: settings.max_generated]]
