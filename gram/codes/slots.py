"""The slots of an attribute, and how a column name or a bare phrase finds its slot."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gram.text.analysis import Analyzer
from gram.text.words import has_digit

SLOTS: tuple[str, ...] = (
    "type",
    "brand",
    "series",
    "model",
    "function",
    "material",
    "style",
    "colour",
    "size",
    "specification",
    "season",
    "audience",
    "scenario",
    "modifier",
    "marketing",
)
"""The default slots, in the order in which a code writes them (Pang et al. 2025, §3.1)."""

LONG_NUMBER = 4
"""Digits from which a bare number is a model rather than a size. Not tuned."""


def slot_of_column(column: str, analyzer: Analyzer, slots: tuple[str, ...] = SLOTS) -> str:
    """The slot for a catalogue column: its own name if it is a slot, else by its meaning, else `specification`.

    >>> [slot_of_column(column, Analyzer()) for column in ("Color", "heel height", "wattage")]
    ['colour', 'size', 'specification']
    """
    name = re.sub(r"\W+", "_", column.lower())
    if name in slots:
        return name
    for slot, patterns in analyzer.tables.slot_columns.items():
        if slot in slots and any(re.search(rf"(?:^|_)(?:{pattern})", name) for pattern in patterns):
            return slot
    return "specification" if "specification" in slots else slots[-1]


def head_of(phrase: Sequence[str], stopwords: frozenset[str]) -> int:
    """How many of a phrase's words run up to its head, the last word before any stop word.

    >>> head_of(("necklace", "for", "women"), frozenset({"for"})), head_of(("floor", "lamp"), frozenset())
    (1, 2)
    """
    return next((i for i, w in enumerate(phrase) if i and w in stopwords), len(phrase))


def slot_of_words(value: tuple[str, ...], analyzer: Analyzer, slots: tuple[str, ...] = SLOTS) -> str:
    """The slot that the words themselves, as they are spelt, give away, or an empty string.

    >>> phrases = ("5 gal", "dw713", "iphone 12", "navy blue", "hose")
    >>> [slot_of_words(tuple(phrase.split()), Analyzer()) for phrase in phrases]
    ['size', 'model', 'model', 'colour', '']
    """
    if any(map(has_digit, value)):
        slot = _slot_of_numbers(value, analyzer)
    elif all(w in analyzer.stopwords or w in analyzer.unit_names for w in value):
        slot = "modifier"
    else:
        head = value[head_of(value, analyzer.stopwords) - 1]
        slot = next((name for name, seeds in analyzer.tables.slot_seeds.items() if head in seeds), "")
    return slot if slot in slots else ""


def _slot_of_numbers(value: tuple[str, ...], analyzer: Analyzer) -> str:
    """Numbers with their units are a size; a long or lettered one is a model, as is one behind a name."""
    last = value[-1]
    if len(value) == 1:
        long = len(last) >= LONG_NUMBER and last.isdigit()
        return "model" if long or any(map(str.isalpha, last)) else "size"
    if all(w in analyzer.unit_names or w in analyzer.stopwords or not any(map(str.isalpha, w)) for w in value):
        return "size"
    return "model" if has_digit(last) else ""
