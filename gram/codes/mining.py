"""Finds a shop's attributes in its catalogue and its log, and makes the lexicon of them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from gram.codes.lexicon import Lexicon, Stems
from gram.codes.slots import SLOTS, STOPWORDS, UNIT_NAMES, head_of, slot_of_column, slot_of_words
from gram.codes.tagger import TrieTagger
from gram.records import Attribute, Interaction, Product
from gram.text.fields import field_texts
from gram.text.words import UNITS, has_digit, stem, words

ASKED_PRIOR = {"type": 0.3, "brand": 0.2, "model": 0.15, "size": 0.08, "colour": 0.08, "marketing": 0.01}
"""How often searchers name an attribute of a slot when the product has it, before a log says otherwise."""


@dataclass(frozen=True)
class MiningSettings:
    """How many attributes to keep, and what a phrase must show to be one."""

    max_learnt: int = 8000
    min_products: int = 3  # a generated attribute stands in so many products,
    min_queries: int = 2  # or in so many queries
    asked_npmi: float = 0.15  # cohesion of a phrase that searchers type
    npmi: float = 0.55  # and of one that they do not
    max_words: int = 3  # of a phrase found in free text
    language: str = "porter"
    slots: tuple[str, ...] = SLOTS


_PAUSE = re.compile(r"[;:|()\[\]{}、，。（）【】]|,(?!\d)|\s[-–—]\s")
_NUMBER = re.compile(r"\S*\d\S*")


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
        self.written: Counter[tuple[Stems, str]] = Counter()
        self.last: Counter[Stems] = Counter()

    def add(self, text: str) -> None:
        row, cut = self.reader(text)
        self.texts += 1
        seen: dict[Stems, str] = {}
        for n in range(1, self.max_words + 1):
            for i in range(len(row) - n + 1):
                gram = cut[i : i + n]
                if n > 1 and (row[i] in STOPWORDS or row[i + n - 1] in STOPWORDS):
                    continue
                if gram not in seen:
                    seen[gram] = " ".join(row[i : i + n])
        self.holding.update(seen.keys())
        self.written.update(seen.items())
        head = self._head(text)
        self.last.update(head[-n:] for n in range(1, min(self.max_words, len(head)) + 1))

    def _head(self, text: str) -> Stems:
        """The stems that end in what the text is about, as far as punctuation, numbers and stop words tell.

        "(2 Pack) Steel Rake, 24 in.", "Acme 24 in. Steel Rake in Red" and "steel rake for leaves": all about a rake.
        """
        for part in _PAUSE.split(text):
            runs = [run for run in self._runs(part) if run]
            if runs:
                return next((run for run in reversed(runs) if len(run) > 1), runs[0])
        return ()

    def _runs(self, text: str) -> Iterator[Stems]:
        """The stems between a text's numbers, without their units, up to its first stop word."""
        for piece in _NUMBER.split(text):
            row, cut = self.reader(piece)
            start = next((i for i, w in enumerate(row) if w not in UNITS and w not in STOPWORDS), len(row))
            end = start + head_of(row[start:])
            yield cut[start:end]
            if end < len(row):
                return

    def npmi(self, gram: Stems) -> float:
        """Normalised pointwise mutual information of a phrase's two weakest-joined parts (Bouma 2009), in [-1, 1]."""
        together = self.holding[gram] / max(self.texts, 1)
        if not together or together == 1:
            return float(bool(together))
        apart = max(self.holding[gram[:i]] * self.holding[gram[i:]] for i in range(1, len(gram)))
        apart = (
            apart or self.holding[gram[:1]] * self.holding[gram[-1:]]
        )  # parts with a stop word at the edge have no count
        return math.log(together * self.texts**2 / apart) / -math.log(together)


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
    single = _single_words(products, log, reader)
    slots = {
        key: count.most_common(1)[0][0]
        for key, count in structured.items()
        if count.total() >= 0.25 * titles.holding[key]  # "wood" is a brand of few, a word of many
    }
    brands = {key for key, slot in slots.items() if slot == "brand"}
    keys = sorted(_phrases(titles, queries, brands, settings) | slots.keys() | single.keys())
    names = _names(keys, titles.written + queries.written + written, single)
    for key in sorted(keys, key=len):  # a phrase may take the slot of its last word
        if key not in slots:
            slots[key] = _slot(key, names[key], titles, queries, slots, settings)
    held, named, mention_rate = _usage(names, slots, products, log, reader)
    ranked = _generated(names, held, named, mention_rate, titles.texts, settings)
    chosen = set(ranked)
    order = ranked + [i for i in range(len(keys)) if i not in chosen]
    return Lexicon(
        attributes=[Attribute(slots[keys[i]], names[keys[i]]) for i in order],
        forms=[[keys[i]] for i in order],
        n_learnt=len(ranked),
        products=held[order],
        queries=named[order],
        mention_rate=mention_rate[order],
        n_products=len(products),
        language=settings.language,
        slots=settings.slots,
    )


def _structured(
    products: Iterable[Product], reader: _Reader, settings: MiningSettings
) -> tuple[dict[Stems, Counter[str]], Counter[tuple[Stems, str]]]:
    """Column values of at most six words: the slots that name each, and how often it is written how."""
    votes: dict[Stems, Counter[str]] = {}
    written: Counter[tuple[Stems, str]] = Counter()
    for product in products:
        values = [("brand", product.brand)] + [("type", name) for name in product.category[-2:]]
        for column, row in product.attributes.items():
            values += [(slot_of_column(column, settings.slots), value) for value in row]
        for slot, value in values:
            spelled, key = reader(value)
            if 0 < len(key) <= 6 and slot in settings.slots:
                votes.setdefault(key, Counter())[slot] += 1
                written[key, " ".join(spelled)] += 1
    return votes, written


def _single_words(products: Iterable[Product], log: Iterable[Interaction], reader: _Reader) -> dict[Stems, str]:
    """Every word of every field and query by its stem, as it is written most."""
    count = Counter(word for query in {i.query: None for i in log} for word in reader(query)[0])
    for product in products:
        for field, text in field_texts(product):
            count.update(
                words(text) if field == "description" else reader(text)[0]
            )  # long texts are read once, not kept
    written: dict[Stems, str] = {}
    for word, _ in count.most_common():
        written.setdefault((stem(word, reader.language),), word)
    return written


def _names(keys: Sequence[Stems], written: Counter[tuple[Stems, str]], single: dict[Stems, str]) -> dict[Stems, str]:
    """Each key as it is written most; a word of neither titles, queries nor whole columns as `single` has it."""
    best: dict[Stems, tuple[int, str]] = {}
    for (key, spelled), count in written.items():
        if count > best.get(key, (0, ""))[0]:
            best[key] = count, spelled
    return {key: best[key][1] if key in best else single[key] for key in keys}


def _phrases(titles: _Counts, queries: _Counts, brands: set[Stems], settings: MiningSettings) -> set[Stems]:
    """The phrases of titles and queries that are attributes: sizes, what searchers type, and what clings together."""
    kept = set()
    rare = max(5, titles.texts // 5000)
    for gram in titles.holding.keys() | queries.holding.keys():
        if len(gram) == 1:
            continue
        held, named = titles.holding[gram], queries.holding[gram]
        if any(map(has_digit, gram)):
            mention_rate = named >= settings.min_queries and held >= 2 and not _cuts_size(gram, titles)
            kept_size = len(gram) == 2 and gram[0][0].isdigit() and gram[1] in UNIT_NAMES and held >= 2
            if kept_size or (mention_rate and titles.npmi(gram) >= settings.asked_npmi):
                kept.add(gram)
        elif (named >= settings.min_queries and held >= 2 and titles.npmi(gram) >= settings.asked_npmi) or (
            held >= rare and titles.npmi(gram) >= settings.npmi and not _crosses(gram, brands)
        ):
            kept.add(gram)
    return kept


def _cuts_size(gram: Stems, titles: _Counts) -> bool:
    """Whether a phrase joins a thing and its size, "chair 225 lb", or a part of it, "chair 225"."""
    if has_digit(gram[0]):
        return False
    counts_units = sum(titles.holding[gram[-1], unit] for unit in UNIT_NAMES)
    return gram[-1] in UNIT_NAMES or counts_units >= 0.5 * titles.holding[gram[-1:]] > 0


def _crosses(gram: Stems, brands: set[Stems]) -> bool:
    """Whether a phrase is a whole brand and something else: two attributes, not one."""
    return any(gram[:i] in brands or gram[i:] in brands for i in range(1, len(gram)))


def _slot(
    key: Stems, name: str, titles: _Counts, queries: _Counts, slots: dict[Stems, str], settings: MiningSettings
) -> str:
    """What the words say, else `type` for what texts are mostly about, or a phrase whose last word is such a type."""
    row = name.split()
    slot = slot_of_words(tuple(row), settings.slots)
    if slot:
        return slot
    named, held = queries.holding[key], titles.holding[key]
    last = queries.last[key] / named if named > 1 else titles.last[key] / max(held, 1)
    if last >= 0.3 or (len(key) > 1 and slots.get(key[head_of(row) - 1 : head_of(row)]) == "type"):
        slot = "type"
    else:
        slot = "size" if any(map(has_digit, row)) else "modifier"
    return slot if slot in settings.slots else settings.slots[0]


def _usage(
    names: dict[Stems, str],
    slots: dict[Stems, str],
    products: Sequence[Product],
    log: Sequence[Interaction],
    reader: _Reader,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Products and queries that hold each attribute, (A,) each, and the rate at which it is asked for, (A,).

    Interactions with a product that the catalogue lacks tell nothing of what it has, and are passed over.
    """
    tagger = TrieTagger(names)

    @cache
    def tagged(text: str) -> frozenset[int]:
        return frozenset(tag.attribute for tag in tagger.tag(reader(text)[1]))

    times = Counter(interaction.product_id for interaction in log)
    held, named, wanted, mention_rate = np.zeros((4, len(names)), np.float32)
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
        mention_rate[list(tagged(query) & own.get(product_id, frozenset()))] += count
    prior = np.array([ASKED_PRIOR.get(slots[key], 0.04) * (name not in STOPWORDS) for key, name in names.items()])
    return held, named, ((mention_rate + 20 * prior) / (wanted + 20)).astype(np.float32)


def _generated(
    names: dict[Stems, str],
    held: NDArray[np.float32],
    named: NDArray[np.float32],
    mention_rate: NDArray[np.float32],
    n_products: int,
    settings: MiningSettings,
) -> list[int]:
    """The attributes worth learning, most useful first: known to searchers or frequent.

    A number is only ever copied, and a stop word, a lone unit, or what a quarter of the products hold tells nothing.
    """
    scored = []
    for i, name in enumerate(names.values()):
        row = name.split()
        empty = all(w in STOPWORDS or w in UNIT_NAMES or len(w) < 2 for w in row)
        if empty or any(map(has_digit, row)) or held[i] > max(0.25 * n_products, 20):
            continue
        if held[i] >= settings.min_products or named[i] >= settings.min_queries:
            scored.append((-(held[i] * mention_rate[i] + 3 * named[i]), i))
    return [i for _, i in sorted(scored)[: settings.max_learnt]]
