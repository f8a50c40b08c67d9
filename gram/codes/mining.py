"""Finds a shop's attributes in its catalogue and its log, and makes the lexicon of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gram.codes.lexicon import Lexicon, Stems
from gram.codes.phrases import PhraseCounts, Reader
from gram.codes.slots import SLOTS, head_of, slot_of_column, slot_of_words
from gram.codes.tagger import TrieTagger
from gram.records import Attribute, Interaction, Product
from gram.text.analysis import Analyzer
from gram.text.fields import field_texts, said_attributes
from gram.text.scripts import join_words
from gram.text.words import has_digit

ENGLISH = ("porter", "english")
"""Stemmers of English."""

MENTION_PRIOR = {"type": 0.3, "brand": 0.2, "model": 0.15, "size": 0.08, "colour": 0.08, "marketing": 0.01}
"""Mention rate of a slot's attributes before a log says otherwise. Not tuned."""

OTHER_MENTION_PRIOR = 0.04
"""The same of all other slots. Not tuned."""

PRIOR_WEIGHT = 20
"""Interactions that the prior counts as. Not tuned."""

MAX_COLUMN_WORDS = 6
"""Words of the longest column value that is an attribute: as many as a code has attributes. Not tuned."""

TOO_COMMON = 0.25
"""Share of the products that may hold a learnt attribute: what more of them hold tells nothing. Not tuned."""

TYPE_SHARE = 0.3
"""Share of the texts with a phrase that must be about it for it to be a type. Not tuned."""

TITLED_SHARE, TITLED_SHARE_OF_NOUN = 0.03, 0.01
"""Share of the products with a word, in any field, whose titles must be about it for it to be a type; the same of one
that titles hold in singular and plural. Descriptions are full of words that end a title now and then ("if",
"designed"). docs/log.md, "Types that are none"."""


@dataclass(frozen=True)
class MiningSettings:
    """How texts are read, how many attributes to keep, and what a phrase must show to be one. No number is tuned."""

    max_learnt: int = 8000
    min_products: int = 3  # a learnt attribute stands in so many products,
    min_queries: int = 2  # or in so many queries
    typed_npmi: float = 0.15  # cohesion of a phrase that searchers type
    npmi: float = 0.55  # and of one that they do not
    max_words: int = 3  # of a phrase found in free text
    language: str = "porter"
    slots: tuple[str, ...] = SLOTS
    tables: str = ""  # a folder with tables of the shop's own (gram/text/shop_tables.py); nothing: the defaults

    def make_analyzer(self) -> Analyzer:
        """How the shop's texts are read. Raises DataError for tables that cannot be used."""
        return Analyzer.load(self.language, self.tables, self.slots)


def mine(products: Sequence[Product], log: Sequence[Interaction], settings: MiningSettings | None = None) -> Lexicon:
    """The lexicon of a catalogue and its log (which may be empty).

    Structured columns give attributes as they stand; free text gives phrases that searchers type and titles hold, and
    cohesive ones that titles alone repeat; every other word but stop words becomes a lexical attribute, so that nothing
    is lost.
    Raises DataError for tables of the shop's own that cannot be used.
    """
    settings = settings or MiningSettings()
    analyzer = settings.make_analyzer()
    analyzer = replace(analyzer, nouns=_find_nouns(products, analyzer))
    reader = Reader(analyzer)
    titles, queries = PhraseCounts(reader, settings.max_words), PhraseCounts(reader, settings.max_words)
    for product in products:
        titles.add(product.title)
    for query in dict.fromkeys(i.query for i in log):
        queries.add(query)
    structured, spellings = _read_columns(products, reader, settings)
    single, holding = _find_single_words(products, log, reader)
    slots = {
        key: count.most_common(1)[0][0]
        for key, count in structured.items()
        # "wood" is a brand of few, a word of many, as "other" is a colour; not tuned
        if count.total() >= max(0.25 * titles.holding[key], TITLED_SHARE * holding[key])
    }
    brands = {key for key, slot in slots.items() if slot == "brand"}
    keys = sorted(_find_phrases(titles, queries, brands, settings) | slots.keys() | single.keys())
    names = _name_keys(keys, titles.spellings + queries.spellings + spellings, single)
    names = {key: name for key, name in names.items() if name not in analyzer.stopwords}  # they say nothing
    keys = list(names)
    for key in sorted(keys, key=len):  # a phrase may take the slot of its last word
        if key not in slots:
            slots[key] = _find_slot(key, names[key], titles, queries, holding, slots, settings)
    names = {key: name for key, name in names.items() if not _says_twice(key, slots)}
    keys = list(names)
    usage = _count_usage(names, slots, products, log, reader)
    learnt = _rank_learnt(names, usage, titles.texts, analyzer, settings)
    chosen = set(learnt)
    order = learnt + [i for i in range(len(keys)) if i not in chosen]
    return Lexicon(
        attributes=[Attribute(slots[keys[i]], join_words(names[keys[i]].split())) for i in order],
        forms=[[keys[i]] for i in order],
        n_learnt=len(learnt),
        products=usage.products[order],
        queries=usage.queries[order],
        mention_rate=usage.mention_rate[order],
        n_products=len(products),
        analyzer=analyzer,
        slots=settings.slots,
    )


def _find_nouns(products: Iterable[Product], analyzer: Analyzer) -> frozenset[str]:
    """The words that titles hold in singular and plural, as far as English goes: few of them are anything but nouns."""
    if analyzer.language not in ENGLISH:
        return frozenset()
    in_titles = {word for product in products for word in analyzer.words(product.title)}
    return frozenset(w for w in in_titles if f"{w}s" in in_titles or f"{w}es" in in_titles)


def _read_columns(
    products: Iterable[Product], reader: Reader, settings: MiningSettings
) -> tuple[dict[Stems, Counter[str]], Counter[tuple[Stems, str]]]:
    """Column values of few words: the slots that name each, and how often it is spelt how."""
    votes: dict[Stems, Counter[str]] = {}
    spellings: Counter[tuple[Stems, str]] = Counter()

    @cache
    def slot_of(column: str) -> str:
        return slot_of_column(column, reader.analyzer, settings.slots)

    for product in products:
        values = [("brand", product.brand)] + [("type", name) for name in product.category[-2:]]
        values += [(slot_of(column), value) for column, value in said_attributes(product)]
        for slot, value in values:
            spelt, key = reader(value)
            if 0 < len(key) <= MAX_COLUMN_WORDS and slot in settings.slots:
                votes.setdefault(key, Counter())[slot] += 1
                spellings[key, " ".join(spelt)] += 1
    return votes, spellings


def _find_single_words(
    products: Iterable[Product], log: Iterable[Interaction], reader: Reader
) -> tuple[dict[Stems, str], Counter[Stems]]:
    """Every word of every field and query by its stem, as it is spelt most; and how many products hold each stem."""
    count = Counter(word for query in {i.query: None for i in log} for word in reader(query)[0])
    holding: Counter[Stems] = Counter()

    @cache
    def key_of(word: str) -> Stems:
        return (reader.analyzer.stem(word),)

    for product in products:
        words: list[str] = []
        for name, text in field_texts(product):  # long texts are read once, not kept
            words += reader.analyzer.words(text) if name == "description" else reader(text)[0]
        count.update(words)
        holding.update(set(map(key_of, words)))
    spellings: dict[Stems, str] = {}
    for word, _ in count.most_common():
        spellings.setdefault(key_of(word), word)
    return spellings, holding


def _name_keys(
    keys: Sequence[Stems], spellings: Counter[tuple[Stems, str]], single: dict[Stems, str]
) -> dict[Stems, str]:
    """Each key as it is spelt most; a word of neither titles, queries nor whole columns as `single` has it."""
    best: dict[Stems, tuple[int, str]] = {}
    for (key, spelt), count in spellings.items():
        if count > best.get(key, (0, ""))[0]:
            best[key] = count, spelt
    return {key: best[key][1] if key in best else single[key] for key in keys}


def _find_phrases(
    titles: PhraseCounts, queries: PhraseCounts, brands: set[Stems], settings: MiningSettings
) -> set[Stems]:
    """The phrases of titles and queries that are attributes: sizes, what searchers type, and what clings together."""
    kept = set()
    rare = max(5, titles.texts // 5000)
    unit_names = titles.reader.analyzer.unit_names
    for gram in titles.holding.keys() | queries.holding.keys():
        if len(gram) == 1:
            continue
        in_titles = titles.holding[gram]
        typed = queries.holding[gram] >= settings.min_queries and in_titles >= 2
        if any(map(has_digit, gram)):
            is_size = len(gram) == 2 and gram[0][0].isdigit() and gram[1] in unit_names and in_titles >= 2
            typed = typed and not _cuts_size(gram, titles)
            if is_size or (typed and titles.npmi(gram) >= settings.typed_npmi):
                kept.add(gram)
        elif (typed and titles.npmi(gram) >= settings.typed_npmi) or (
            in_titles >= rare and titles.npmi(gram) >= settings.npmi and not _crosses(gram, brands)
        ):
            kept.add(gram)
    return kept


def _cuts_size(gram: Stems, titles: PhraseCounts) -> bool:
    """Whether a phrase joins a thing and its size, "chair 225 lb", or a part of it, "chair 225"."""
    if has_digit(gram[0]):
        return False
    unit_names = titles.reader.analyzer.unit_names
    with_unit = sum(titles.holding[gram[-1], unit] for unit in unit_names)
    return gram[-1] in unit_names or with_unit >= 0.5 * titles.holding[gram[-1:]] > 0


def _crosses(gram: Stems, brands: set[Stems]) -> bool:
    """Whether a phrase is a whole brand and something else: two attributes, not one."""
    return any(gram[:i] in brands or gram[i:] in brands for i in range(1, len(gram)))


def _find_slot(
    key: Stems,
    name: str,
    titles: PhraseCounts,
    queries: PhraseCounts,
    holding: Counter[Stems],
    slots: dict[Stems, str],
    settings: MiningSettings,
) -> str:
    """What the words say, else `type` for what texts are mostly about, or a phrase whose last word is such a type.

    `holding` counts the products with a word in any field: one that few of these are about is no type, unless searchers
    say so.
    """
    row = name.split()
    analyzer = titles.reader.analyzer
    slot = slot_of_words(tuple(row), analyzer, settings.slots)
    if slot:
        return slot
    in_queries, in_titles = queries.holding[key], titles.holding[key]
    about = queries.last[key] / in_queries if in_queries > 1 else titles.last[key] / max(in_titles, 1)
    is_noun = len(name) > 2 and not analyzer.nouns.isdisjoint((name, name.removesuffix("s")))  # "do" has "does"
    share = TITLED_SHARE_OF_NOUN if is_noun else TITLED_SHARE
    if in_queries <= 1 and titles.last[key] < share * holding[key]:
        about = 0.0
    end = head_of(row, analyzer.stopwords)
    if about >= TYPE_SHARE or (len(key) > 1 and slots.get(key[end - 1 : end]) == "type"):
        slot = "type"
    else:
        slot = "size" if any(map(has_digit, row)) else "modifier"
    return slot if slot in settings.slots else settings.slots[0]


def _says_twice(key: Stems, slots: dict[Stems, str]) -> bool:
    """Whether words say one attribute of their slot twice: "white white", and not "yo yo", since "yo" alone is no type,
    nor "2 x 2"."""
    twice = [word for word in key if key.count(word) > 1]
    return any(slots.get((word,)) == slots[key] for word in twice) and not any(map(has_digit, key))


class _Usage(NamedTuple):
    """Of A attributes: products and queries that hold each, and its mention rate."""

    products: NDArray[np.float32]  # (A,)
    queries: NDArray[np.float32]  # (A,)
    mention_rate: NDArray[np.float32]  # (A,)


def _count_usage(
    names: dict[Stems, str],
    slots: dict[Stems, str],
    products: Sequence[Product],
    log: Sequence[Interaction],
    reader: Reader,
) -> _Usage:
    """How catalogue and log use the attributes.

    Interactions with a product that the catalogue lacks tell nothing of what it has, and are passed over.
    """
    tagger = TrieTagger(names)

    @cache
    def attributes_of(text: str) -> frozenset[int]:
        return frozenset(tag.attribute for tag in tagger.tag(reader(text)[1]))

    clicks = Counter(interaction.product_id for interaction in log)
    in_products, in_queries, clicked, mentioned = np.zeros((4, len(names)), np.float32)
    of_clicked: dict[str, frozenset[int]] = {}
    for product in products:
        short = (text for name, text in field_texts(product) if name != "description")
        has = frozenset[int]().union(*map(attributes_of, short))
        in_products[list(has)] += 1
        clicked[list(has)] += clicks[product.product_id]
        if product.product_id in clicks:
            of_clicked[product.product_id] = has
    for query in {interaction.query for interaction in log}:
        in_queries[list(attributes_of(query))] += 1
    for (query, product_id), count in Counter((i.query, i.product_id) for i in log).items():
        mentioned[list(attributes_of(query) & of_clicked.get(product_id, frozenset()))] += count
    prior = np.array([MENTION_PRIOR.get(slots[key], OTHER_MENTION_PRIOR) for key in names])
    rate = (mentioned + PRIOR_WEIGHT * prior) / (clicked + PRIOR_WEIGHT)
    return _Usage(in_products, in_queries, rate.astype(np.float32))


def _rank_learnt(
    names: dict[Stems, str], usage: _Usage, n_products: int, analyzer: Analyzer, settings: MiningSettings
) -> list[int]:
    """The attributes worth learning, most useful first: known to searchers or frequent.

    A number is lexical only, and a stop word, a lone unit, or what too many of the products hold tells nothing.
    """
    limit = max(TOO_COMMON * n_products, 20)
    ranked = []
    for i, name in enumerate(names.values()):
        row = name.split()
        empty = all(w in analyzer.stopwords or w in analyzer.unit_names or len(w) < 2 for w in row)
        in_products, in_queries = usage.products[i], usage.queries[i]
        if empty or any(map(has_digit, row)) or in_products > limit:
            continue
        if in_products >= settings.min_products or in_queries >= settings.min_queries:
            ranked.append((-(in_products * usage.mention_rate[i] + 3 * in_queries), i))  # 3 is not tuned
    return [i for _, i in sorted(ranked)[: settings.max_learnt]]
