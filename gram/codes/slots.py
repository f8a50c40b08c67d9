"""The slots of an attribute, and how a column name or a bare phrase finds its slot."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gram.text.words import UNITS, has_digit

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

_COLUMNS: tuple[tuple[str, str], ...] = (
    (r"brand|manufacturer|maker|vendor", "brand"),
    (r"categor|product_?type|^type$|class|department", "type"),
    (r"model|mpn|part_?n", "model"),
    (r"colou?r|finish|shade", "colour"),
    (r"material|fabric|upholstery|wood|metal", "material"),
    (r"style|pattern|theme|shape|design", "style"),
    (r"(?:.*_)?(?:size|width|height|length|depth|weight|diameter|capacity|volume|dimension)", "size"),
    (r"season|holiday|occasion", "season"),
    (r"gender|audience|age(?:$|_)|sex(?:$|_)|for_whom", "audience"),
    (r"use(?:$|_)|scenario|room|location|activity|sport|place", "scenario"),
    (r"function|feature|purpose", "function"),
    (r"series|collection|line|family", "series"),  # last: a colour family is a colour
)


def _set(row: str) -> frozenset[str]:
    return frozenset(row.split())


_SEEDS: dict[str, frozenset[str]] = {
    "colour": _set(
        "black white red blue green yellow orange purple pink brown grey gray beige ivory gold silver bronze chrome "
        "nickel navy teal tan cream almond bisque cherry espresso charcoal multicolor turquoise maroon"
    ),
    "material": _set(
        "wood wooden metal steel stainless aluminum aluminium iron brass copper plastic vinyl pvc glass ceramic "
        "porcelain cotton leather wool linen polyester nylon silk rubber foam bamboo oak maple pine cedar granite "
        "marble stone concrete fiberglass acrylic silicone wicker resin denim suede canvas"
    ),
    "season": _set("winter summer spring autumn christmas halloween easter thanksgiving holiday"),
    "audience": _set(
        "men mens women womens kid kids child children baby toddler boy boys girl girls unisex adult dog cat"
    ),
    "scenario": _set(
        "outdoor indoor kitchen bathroom bath garden patio office bedroom camping travel garage wedding party gym "
        "hiking running laundry"
    ),
    "style": _set("modern vintage rustic classic contemporary traditional retro floral striped"),
    "marketing": _set("new best sale premium deluxe professional pro ultra super bonus free quality"),
}
STOPWORDS = _set(
    "a an and or the of for with in on to by from at as is it its this that these those you your our we are be can "
    "will not no x w without into all any more than up"
)
UNIT_NAMES = frozenset(UNITS.values())


def slot_of_column(column: str, slots: tuple[str, ...] = SLOTS) -> str:
    """The slot for a catalogue column: its own name if it is a slot, else by its meaning, else `specification`.

    >>> slot_of_column("Color"), slot_of_column("heel height"), slot_of_column("wattage")
    ('colour', 'size', 'specification')
    """
    name = re.sub(r"\W+", "_", column.lower())
    if name in slots:
        return name
    for pattern, slot in _COLUMNS:
        if re.search(rf"(?:^|_)(?:{pattern})", name) and slot in slots:
            return slot
    return "specification" if "specification" in slots else slots[-1]


def head_of(phrase: Sequence[str]) -> int:
    """How many of a phrase's words run up to its head, the last word before any stop word.

    >>> head_of(("necklace", "for", "women")), head_of(("floor", "lamp"))
    (1, 2)
    """
    return next((i for i, w in enumerate(phrase) if i and w in STOPWORDS), len(phrase))


def slot_of_words(value: tuple[str, ...], slots: tuple[str, ...] = SLOTS) -> str:
    """The slot that the words themselves, as written, give away, or an empty string.

    >>> [slot_of_words(tuple(phrase.split())) for phrase in ("5 gal", "dw713", "iphone 12", "navy blue", "hose")]
    ['size', 'model', 'model', 'colour', '']
    """
    slot = ""
    if any(map(has_digit, value)):
        slot = _slot_of_numbers(value)
    elif all(w in STOPWORDS or w in UNIT_NAMES for w in value):
        slot = "modifier"
    else:
        head = value[head_of(value) - 1]
        slot = next((name for name, seeds in _SEEDS.items() if head in seeds), "")
    return slot if slot in slots else ""


def _slot_of_numbers(value: tuple[str, ...]) -> str:
    """Numbers with their units are a size; a long or lettered one is a model, as is one behind a name."""
    last = value[-1]
    if len(value) == 1:
        long = len(last) >= 4 and last.isdigit()
        return "model" if long or any(map(str.isalpha, last)) else "size"
    if all(w in UNIT_NAMES or w in STOPWORDS or not any(map(str.isalpha, w)) for w in value):
        return "size"
    return "model" if has_digit(last) else ""
