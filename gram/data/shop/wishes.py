"""What a searcher of the generated shop wishes for, and how that is typed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gram.data.shop.catalogue import Offer, ProductType, Value, pick

_COUNTS = (0.16, 0.42, 0.3, 0.12)  # how many searchers ask for 1, 2, 3, 4 attributes
_MENTIONS = {
    "brand": 0.5, "series": 0.1, "colour": 0.6, "size": 0.6, "material": 0.6, "audience": 0.8, "function": 1.0,
    "scenario": 0.8, "style": 0.5, "season": 0.3,
}  # fmt: skip
"""How often an attribute is asked for beside the type, relative to the others."""

_AFTER = ("for ", "with ", "that ", "to ", "when ", "works ", "good ", "not ", "wont ")


class Wish(NamedTuple):
    """An attribute asked for: its slot, and the searcher's words."""

    slot: str
    words: str


def names_of(value: Value) -> list[str]:
    """All that searchers call a value: their words, and now and then the sellers'."""
    return [*value.typed, value.sold[0].lower()] if value.slot in ("type", "brand", "function") else list(value.typed)


def wishes_for(offer: Offer, rng: np.random.Generator) -> tuple[Wish, ...]:
    """One to four attributes of an offer in a searcher's words, or an exact look-up of its model or series."""
    values = offer.values
    if rng.random() < 0.06:
        if "model" in values:
            return (wish(values["model"][0], rng),)
        if "series" in values:
            return wish(values["brand"][0], rng), wish(values["series"][0], rng)
    others = int(np.searchsorted(np.cumsum(_COUNTS), rng.random()).clip(max=3))
    slots = [slot for slot in _MENTIONS if slot in values]
    chosen = []
    for _ in range(min(others, len(slots))):
        weights = np.cumsum([_MENTIONS[slot] for slot in slots])
        chosen.append(slots.pop(int(np.searchsorted(weights, rng.random() * weights[-1]).clip(max=len(slots) - 1))))
    return (
        _type_wish(offer.product_type, bool(chosen), rng),
        *(wish(pick(rng, values[slot]), rng) for slot in chosen),
    )


def wish(value: Value, rng: np.random.Generator) -> Wish:
    """A value in one of its searchers' words."""
    return Wish(value.slot, pick(rng, names_of(value), 0.8))


def _type_wish(product_type: ProductType, has_more: bool, rng: np.random.Generator) -> Wish:
    names = [name for name in names_of(product_type.value) if has_more or name not in product_type.broad]
    return Wish("type", pick(rng, names, 0.6))


def query_of(wishes: Sequence[Wish], rng: np.random.Generator) -> str:
    """The wishes as one types them: brand, what it is like, what it is, what it is for, what it may cost."""
    before: list[str] = []
    after: list[str] = []
    middle = brand = price = ""
    for slot, words in wishes:
        if slot == "type":
            middle = plural(words) if rng.random() < 0.2 else words
        elif slot == "brand":
            brand = words
        elif slot == "price":
            price = words
        elif words.startswith(_AFTER) or (slot in ("size", "series") and rng.random() < 0.5):
            after.append(words)
        else:
            before.append(words)
    before = [before[i] for i in rng.permutation(len(before))]
    front = [brand, *before] if rng.random() < 0.8 else [*before, brand]
    return " ".join(" ".join(part for part in (*front, middle, *after, price) if part).split())


def plural(name: str) -> str:
    """The other number of a name, as searchers write it, right or nearly so.

    >>> plural("running shoes"), plural("couch"), plural("knife"), plural("dress")
    ('running shoe', 'couches', 'knives', 'dresses')
    """
    for one, many in (("knife", "knives"), ("shelf", "shelves"), ("diary", "diaries"), ("battery", "batteries")):
        if name.endswith(one) or name.endswith(many):
            return name[: -len(one)] + many if name.endswith(one) else name[: -len(many)] + one
    if name.endswith(("ss", "ch", "sh", "x")):
        return name + "es"
    if name.endswith(("sses", "ches", "shes", "xes")):
        return name[:-2]
    return name[:-1] if name.endswith("s") else name + "s"
