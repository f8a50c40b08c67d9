"""What products have beside the plain shop's slots: further attributes, and measures in two numbers or in fractions.

An offer keeps all that it had. What it gets stands in its title, its description or a column of its own, and always in
one of them, in one of its sellers' forms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.resources import files

import numpy as np

from gram.data.shop.catalogue import Offer, Value, pick, some, tells
from gram.data.shop.traits import Traits

MEASURES = ("dimensions", "thickness")

_MOST = {"compatible_model": 3}  # values of a slot, where a product may have several
_IN_TITLE, _IN_DESCRIPTION, _IN_COLUMN = 0.35, 0.35, 0.7
_SLOTS, _MEASURES = 1, 2  # of the seed: what one trait draws is not moved by the other

_FLAT = {
    "cutting board", "baking sheet", "coffee table", "dining table", "tv stand", "desk", "whiteboard", "dog bed",
    "litter box", "tool box", "rug", "yoga mat", "curtain",
}  # fmt: skip
"""Types of which two sides are told; one of them is the size that the offer has, in inches or feet."""
_SIDES = (0.5, 2 / 3, 0.75, 1.0)

_THICK = {"cutting board", "yoga mat", "dog bed", "desk", "coffee table", "dining table"}
_WHOLES, _FRACTIONS = ("", "1", "2", "3"), {"1/4": "¼", "1/2": "½", "3/4": "¾", "3/8": "⅜", "5/8": "⅝"}
_DECIMALS = {"1/4": "25", "1/2": "5", "3/4": "75", "3/8": "375", "5/8": "625"}


@lru_cache(maxsize=1)
def further_slots() -> Mapping[str, Mapping[str, tuple[Value, ...]]]:
    """Each type's further slots and their values: type -> slot -> values; `further.txt` describes its form."""
    found: dict[str, dict[str, tuple[Value, ...]]] = {}
    slot, types = "", list[str]()
    for line in lines_of("further.txt"):
        if line.startswith("== "):
            slot, types = line[3:], []
        elif line.startswith("for: "):
            types = line[5:].split(", ")
        else:
            name, sold, typed = line.split(" | ")
            value = Value(slot, name, tuple(sold.split(", ")), tuple(typed.split(", ")))
            for product_type in types:
                of_type = found.setdefault(product_type, {})
                of_type[slot] = (*of_type.get(slot, ()), value)
    return found


def lines_of(name: str) -> Iterator[str]:
    """The lines of one of the shop's word lists that say something."""
    text = files("gram.data.shop").joinpath(name).read_text("utf-8")
    return (line for line in text.splitlines() if line and not line.startswith("#"))


def dimensions(first: int, second: int, unit: str) -> Value:
    """Two sides, in inches or feet.

    >>> dimensions(10, 12, "inch").typed
    ('10 x 12', '10x12', '10 x 12 inch', '10 by 12')
    """
    short, mark, typed = ("in.", '"', "inch") if unit == "inch" else ("ft.", "'", "ft")
    sold = (f"{first} x {second} {short}", f"{first}{mark} x {second}{mark}", f"{first}x{second}")
    pair = f"{first} x {second}"
    return Value("dimensions", pair, sold, (pair, f"{first}x{second}", f"{pair} {typed}", f"{first} by {second}"))


def thickness(whole: str, fraction: str) -> Value:
    """Inches with a fraction.

    >>> thickness("2", "1/2").sold
    ('2-1/2 in. Thick', '2 1/2" Thick', '2½" Thick', '2.5 in. Thick')
    >>> thickness("", "3/4").typed
    ('3/4 in', '3/4 inch', '3/4 inch thick', '0.75 inch')
    """
    mixed, decimal = f"{whole} {fraction}".strip(), f"{whole or 0}.{_DECIMALS[fraction]}"
    sold = (f"{mixed.replace(' ', '-')} in.", f'{mixed}"', f'{whole}{_FRACTIONS[fraction]}"', f"{decimal} in.")
    typed = (f"{mixed} in", f"{mixed} inch", f"{mixed} inch thick", f"{decimal} inch")
    return Value("thickness", f"{mixed} in", tuple(f"{form} Thick" for form in sold), typed)


def furnish(offers: list[Offer], traits: Traits, seed: int) -> list[Offer]:
    """The offers with what the traits `slots` and `measures` give them; some lack what others of their type have."""
    if traits.slots:
        rng = np.random.default_rng([seed, _SLOTS])
        offers = [_with(offer, _draw_slots(offer, traits.slots, rng), rng) for offer in offers]
    if traits.measures:
        rng = np.random.default_rng([seed, _MEASURES])
        offers = [_with(offer, _draw_measures(offer, traits.measures, rng), rng) for offer in offers]
    return offers


def _draw_slots(offer: Offer, chance: float, rng: np.random.Generator) -> dict[str, tuple[Value, ...]]:
    slots = further_slots().get(offer.product_type.value.name, {})
    return {slot: some(rng, values, 1, _MOST.get(slot, 1)) for slot, values in slots.items() if rng.random() < chance}


def _draw_measures(offer: Offer, chance: float, rng: np.random.Generator) -> dict[str, tuple[Value, ...]]:
    name, drawn = offer.product_type.value.name, dict[str, tuple[Value, ...]]()
    if name in _FLAT and "size" in offer.values and rng.random() < chance:
        number, unit = offer.values["size"][0].name.split()
        other = max(1, round(int(number) * pick(rng, _SIDES)))
        drawn["dimensions"] = (dimensions(other, int(number), unit),)
    if name in _THICK and rng.random() < chance:
        drawn["thickness"] = (thickness(pick(rng, _WHOLES), pick(rng, tuple(_FRACTIONS))),)
    return drawn


def _with(offer: Offer, values: dict[str, tuple[Value, ...]], rng: np.random.Generator) -> Offer:
    """The offer with further values, and their sellers' words for them."""
    product, columns = offer.product, dict(offer.product.attributes)
    title, description = product.title, product.description
    for slot, of_slot in values.items():
        form = pick(rng, pick(rng, of_slot).sold, 0.7)
        if rng.random() < _IN_TITLE:
            title += f", {form}"
        if rng.random() < _IN_DESCRIPTION and description:
            description += f" {slot.replace('_', ' ').capitalize()}: {form.removesuffix(' Thick').rstrip('.')}."
        told = f"{title} {description}"
        if rng.random() < _IN_COLUMN or not all(tells(told, value) for value in of_slot):
            columns[slot] = tuple(value.sold[0] for value in of_slot)
    return Offer(
        product._replace(title=title, description=description, attributes=columns),
        offer.product_type,
        {**offer.values, **values},
    )
