"""Searches of the generated shop said otherwise: by further slots and measures, by ranges, and by words no seller has.

Each takes a search of the plain shop and changes one wish of it; its chance and its draws are its own, so that turning
one trait off leaves the searches that the others change as they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from gram.data.shop.catalogue import Offer, pick
from gram.data.shop.further import MEASURES, further_slots, lines_of
from gram.data.shop.traits import Traits
from gram.data.shop.wishes import Wish, wish

_MENTION_RATE = 0.4
"""How often a search for a product with further slots, or measures, asks for one."""
_MOST_WISHES = 4
_FURTHER, _MEASURED, _RANGES, _SYNONYMS = 3, 4, 5, 6  # of the seed, beside the number of the search

_BASE = {
    "inch": ("inch", 1), "ft": ("inch", 12), "oz": ("oz", 1), "quart": ("oz", 32), "gallon": ("oz", 128),
    "liter": ("liter", 1), "lb": ("lb", 1), "gb": ("gb", 1), "watt": ("watt", 1), "volt": ("volt", 1),
    "lumen": ("lumen", 1), "mm": ("mm", 1),
}  # fmt: skip
"""The units of ranges, as searchers write them, in what is compared."""
_UNITS = {"feet": "ft", "floz": "oz", "qt": "quart", "litre": "liter"}
"""Schemes of sizes whose unit searchers write otherwise."""

_NUMBER = r"\$?(\d+)(?: dollars)?"
_RANGE = re.compile(
    rf"(?:(?P<least>at least|over) {_NUMBER}|(?P<most>up to|under|less than) {_NUMBER}"
    rf"|(?:between |from )?{_NUMBER} (?:to|and) {_NUMBER})(?: (?P<unit>{'|'.join(_BASE)}))?"
)


class Range(NamedTuple):
    """From `low` to `high`, both included, of `unit`; no unit is money."""

    low: float
    high: float
    unit: str

    def holds(self, offer: Offer) -> bool:
        """Whether the offer's price, or its size, lies within; a size of another sort of unit does not."""
        if not self.unit:
            return offer.product.price is not None and self.low <= offer.product.price <= self.high
        amounts = (_amount(value.name) for value in offer.values.get("size", ()))
        return any(unit == self.unit and self.low <= amount <= self.high for unit, amount in amounts)


def read_range(words: str) -> Range | None:
    """What the words of a range mean; nothing for other words.

    >>> read_range("under $50"), read_range("between 20 and 40 dollars")
    (Range(low=0.0, high=50.0, unit=''), Range(low=20.0, high=40.0, unit=''))
    >>> read_range("at least 2 quart"), read_range("2 quart")
    (Range(low=64.0, high=inf, unit='oz'), None)
    """
    found = _RANGE.fullmatch(words)
    if not found:
        return None
    unit, factor = _BASE[found["unit"]] if found["unit"] else ("", 1)
    numbers = [float(text) * factor for text in found.groups()[:-1] if text and text.isdigit()]
    return Range(0.0 if found["most"] else numbers[0], math.inf if found["least"] else numbers[-1], unit)


def _amount(size: str) -> tuple[str, float]:
    """A size's unit and number as they are compared; ("", 0) for one that is not measured, such as a shoe's."""
    number, _, scheme = size.partition(" ")
    base, factor = _BASE.get(_UNITS.get(scheme, scheme), ("", 0))
    return (base, float(number) * factor) if base else ("", 0.0)


@lru_cache(maxsize=1)
def synonyms() -> Mapping[tuple[str, str], tuple[str, ...]]:
    """(slot, name of a value) -> words that searchers have for it and no seller; `synonyms.txt` describes its form."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    slot = ""
    for line in lines_of("synonyms.txt"):
        if line.startswith("== "):
            slot = line[3:]
        else:
            name, words = line.split(" | ")
            found[slot, name] = tuple(words.split(", "))
    return found


def said_otherwise(offer: Offer, wishes: tuple[Wish, ...], traits: Traits, seed: int, n: int) -> tuple[Wish, ...]:
    """The wishes of search `n`, which has `offer` in mind, as the traits change them; look-ups stay as they are."""
    if wishes[0].slot != "type":
        return wishes
    changes = (
        (_MENTION_RATE if traits.slots else 0.0, _FURTHER, _ask_further),
        (_MENTION_RATE if traits.measures else 0.0, _MEASURED, _ask_measure),
        (traits.ranges, _RANGES, _ask_range),
        (traits.synonyms, _SYNONYMS, _ask_by_synonym),
    )
    for chance, trait, change in changes:
        if chance:
            rng = np.random.default_rng([seed, trait, n])
            if rng.random() < chance:
                wishes = change(offer, wishes, rng)
    return wishes


def _ask_further(offer: Offer, wishes: tuple[Wish, ...], rng: np.random.Generator) -> tuple[Wish, ...]:
    slots = [slot for slot in further_slots().get(offer.product_type.value.name, {}) if slot in offer.values]
    return _and(wishes, wish(pick(rng, offer.values[pick(rng, slots)]), rng)) if slots else wishes


def _ask_measure(offer: Offer, wishes: tuple[Wish, ...], rng: np.random.Generator) -> tuple[Wish, ...]:
    slots = [slot for slot in MEASURES if slot in offer.values]
    if not slots:
        return wishes
    measure = wish(offer.values[pick(rng, slots)][0], rng)
    return _and(tuple(w for w in wishes if w.slot != "size"), measure)


def _and(wishes: tuple[Wish, ...], further: Wish) -> tuple[Wish, ...]:
    """One wish more, in place of the last one where they would be too many."""
    return (*wishes[: _MOST_WISHES - 1], further)


def _ask_range(offer: Offer, wishes: tuple[Wish, ...], rng: np.random.Generator) -> tuple[Wish, ...]:
    """A range of sizes in place of a size, and else of prices; the offer in mind lies within."""
    words = _size_range(offer, rng) if any(w.slot == "size" for w in wishes) else ""
    if words:
        return tuple(Wish("size", words) if w.slot == "size" else w for w in wishes)
    return _and(wishes, Wish("price", _price_range(offer.product.price or 0.0, rng)))


def _size_range(offer: Offer, rng: np.random.Generator) -> str:
    """A range that ends at sizes of the type; nothing where the size is not measured, or the type has too few."""
    number, _, scheme = offer.values["size"][0].name.partition(" ")
    unit = _UNITS.get(scheme, scheme)
    if unit not in _BASE:
        return ""
    of_type = sorted(int(value.name.split()[0]) for value in offer.product_type.slots["size"])
    at = of_type.index(int(number))
    low, high = of_type[max(0, at - 1)], of_type[min(len(of_type) - 1, at + 1)]
    ways = [f"{low} to {high} {unit}"]
    ways += [f"at least {low} {unit}"] if low > of_type[0] else []
    ways += [f"up to {high} {unit}"] if high < of_type[-1] else []
    return pick(rng, ways) if low < high else ""


def _price_range(price: float, rng: np.random.Generator) -> str:
    step = next(step for most, step in ((50, 5), (200, 10), (1000, 50), (math.inf, 100)) if price <= most)
    below, above = rng.uniform(0.6, 1, size=2)
    low, high = step * int(price * below / step), step * math.ceil(price / above / step)
    ways = [f"under ${high}", f"under {high} dollars", f"under {high}", f"less than ${high}"]
    if low:
        ways += [f"between {low} and {high} dollars", f"from ${low} to ${high}", f"over ${low}"]
    return pick(rng, ways)


def _ask_by_synonym(offer: Offer, wishes: tuple[Wish, ...], rng: np.random.Generator) -> tuple[Wish, ...]:
    """One thing by a word that no seller has: what it is, half of the time, or one of its values."""
    known = []
    for i, (slot, words) in enumerate(wishes):
        for value in offer.values.get(slot, ()):
            if (slot, value.name) in synonyms() and words in (*value.typed, value.sold[0].lower()):
                known.append((i, synonyms()[slot, value.name]))
    if not known:
        return wishes
    i, words_of = known[0] if rng.random() < 0.5 else pick(rng, known)
    return (*wishes[:i], Wish(wishes[i].slot, pick(rng, words_of, 0.5)), *wishes[i + 1 :])
