"""The generated shop's shelves: its vocabulary, its products, and how its sellers write about them.

What is true of a product (an `Offer`) is kept apart from what its seller says of it: titles leave attributes out, name
them in the seller's words and order, and never tell what a product is good for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple, TypeVar

import numpy as np

from gram.records import Product

T = TypeVar("T")


class Value(NamedTuple):
    """One attribute value: what sellers write for it and what searchers write, the commonest first."""

    slot: str
    name: str
    sold: tuple[str, ...]
    typed: tuple[str, ...]


class ProductType(NamedTuple):
    """`broad` holds those of its searchers' names that say too little alone ("shoes")."""

    department: str
    shelf: str
    value: Value
    broad: frozenset[str]
    price: tuple[int, int]
    slots: dict[str, tuple[Value, ...]]


class Department(NamedTuple):
    """`text` holds sentences that any description of the department may end with."""

    name: str
    brands: tuple[str, ...]
    series: tuple[str, ...]
    text: tuple[str, ...]
    product_types: tuple[ProductType, ...]


class Offer(NamedTuple):
    """A product as the catalogue lists it, and what is true of it whether its seller says so or not."""

    product: Product
    product_type: ProductType
    values: dict[str, tuple[Value, ...]]


_MEASURES: dict[str, tuple[str, str]] = {
    "inch": ('{n}"|{n}-Inch|{n} in.', "{n} inch|{n}in|{n} inches"),
    "feet": ("{n} ft.|{n}-Foot|{n}'", "{n} ft|{n} foot|{n}ft"),
    "oz": ("{n} oz|{n}-Ounce|{n}oz.", "{n} oz|{n} ounce|{n}oz"),
    "floz": ("{n} fl. oz.|{n} fl oz|{n}-Ounce", "{n} oz|{n} ounce"),
    "qt": ("{n}-Quart|{n} qt.|{n}QT", "{n} quart|{n} qt|{n}qt"),
    "gallon": ("{n}-Gallon|{n} Gal.", "{n} gallon|{n} gal"),
    "litre": ("{n}L|{n} Liter|{n}-Litre", "{n} liter|{n}l|{n} litre"),
    "lb": ("{n} lb.|{n}-Pound|{n} lbs", "{n} lb|{n} pound|{n}lbs"),
    "pack": ("Pack of {n}|{n}-Pack|{n} Count", "{n} pack|pack of {n}|{n} ct"),
    "piece": ("{n}-Piece|{n} Pcs|Set of {n}", "{n} piece|{n} pc|{n} pieces"),
    "gb": ("{n}GB|{n} GB", "{n}gb|{n} gb|{n} gigs"),
    "watt": ("{n}W|{n}-Watt|{n} Watts", "{n} watt|{n}w"),
    "volt": ("{n}V|{n}-Volt|{n}V Max", "{n} volt|{n}v"),
    "lumen": ("{n} Lumens|{n}LM", "{n} lumen|{n} lumens"),
    "mm": ("{n}mm|{n} mm", "{n}mm|{n} mm"),
    "mph": ("{n} MPH|Up to {n} mph", "{n} mph|{n} miles an hour"),
    "person": ("{n}-Person|Sleeps {n}|for {n} Campers", "{n} person|{n} man|for {n} people"),
    "player": ("{n} Players|Up to {n} Players", "{n} player|for {n} people|for {n} players"),
    "degree": ("{n}°F|{n}-Degree|Rated {n}F", "{n} degree|{n} degrees"),
    "cup": ("{n}-Cup|{n} Cups", "{n} cup|{n} cups"),
    "drawer": ("{n}-Drawer|{n} Drawers", "{n} drawer|{n} drawers"),
    "shelf": ("{n}-Tier|{n}-Shelf", "{n} shelf|{n} tier|{n} shelves"),
    "sheet": ("{n}-Sheet|{n} Sheets", "{n} sheet|{n} page|{n} pages"),
    "shoe": ("Size {n}|US {n}|Sz. {n}", "size {n}|sz {n}"),
    "waist": ("W{n}|{n}W|{n} Waist", "{n} waist|size {n}"),
    "bed": ("{n}|{n} Size|{n}-Size", "{n}|{n} size"),
}
_LARGER = {("inch", 12): ("feet", 12), ("oz", 32): ("qt", 32), ("qt", 4): ("gallon", 4)}
"""A size that is a whole number of the larger unit is asked for in that one too: 24 inch, 2 ft."""

_WEAR = {
    "XS": ("XS|X-Small", "xs|extra small"),
    "S": ("S|Small", "small|s"),
    "M": ("M|Medium", "medium|m"),
    "L": ("L|Large", "large|l"),
    "XL": ("XL|X-Large", "xl|extra large"),
    "2XL": ("2XL|XXL", "xxl|2x|double xl"),
}


def size(scheme: str, n: str) -> Value:
    """A size in all its spellings.

    >>> size("inch", "24").typed
    ('24 inch', '24in', '24 inches', '2 ft', '2 foot', '2ft')
    """
    if scheme == "wear":
        sold, typed = _WEAR[n]
        return Value("size", n, tuple(sold.split("|")), tuple(typed.split("|")))
    sold, typed = (text.replace("{n}", n) for text in _MEASURES[scheme])
    for (small, least), (large, ratio) in _LARGER.items():
        if scheme == small and int(n) % least == 0:
            typed += "|" + _MEASURES[large][1].replace("{n}", str(int(n) // ratio))
    if (scheme, n) == ("gb", "1000"):
        sold, typed = "1TB|1 TB", "1tb|1 terabyte"
    titled = tuple(form.title() if scheme == "bed" else form for form in sold.split("|"))
    return Value("size", f"{n} {scheme}", titled, tuple(typed.lower().split("|")))


@lru_cache(maxsize=1)
def vocabulary() -> tuple[Department, ...]:
    """The shop's words, from `words.txt`; the file's head describes its form."""
    known: dict[tuple[str, str], Value] = {}
    departments: list[Department] = []
    product_types: list[ProductType] = []
    heads: dict[str, tuple[str, ...]] = {}
    slot = name = ""
    lines = [line for line in files("gram.data.shop").joinpath("words.txt").read_text("utf-8").splitlines() if line]
    for line in [*(line for line in lines if not line.startswith("#")), "== end"]:
        if line.startswith("== "):
            if name:
                departments.append(
                    Department(name, heads["brands"], heads["series"], heads["text"], tuple(product_types))
                )
            what, _, rest = line[3:].partition(" ")
            slot, name, product_types = (rest, "", []) if what == "value" else ("", rest, [])
        elif line.startswith("- "):
            product_types.append(_product_type(line[2:], name))
        elif line.startswith("  "):
            for part in line.split(" ; "):
                key, _, text = part.strip().partition(": ")
                product_types[-1].slots[key] = _values(key, text, known)
        elif slot:
            word, sold, typed = line.split(" | ")
            known[slot, word] = Value(slot, word, tuple(sold.split(", ")), tuple(typed.split(", ")))
        else:
            key, _, text = line.partition(": ")
            heads[key] = (
                tuple(f"{s.rstrip('.')}." for s in text.split(". ")) if key == "text" else tuple(text.split(", "))
            )
    return tuple(departments)


def _product_type(line: str, department: str) -> ProductType:
    name, sold, typed, price, shelf = line.split(" | ")
    forms = typed.split(", ")
    broad = frozenset(form.rstrip("*") for form in forms if form.endswith("*"))
    value = Value("type", name, tuple(sold.split(", ")), tuple(form.rstrip("*") for form in forms))
    low, high = map(int, price.split("-"))
    return ProductType(department, shelf, value, broad, (low, high), {})


def _values(slot: str, text: str, known: dict[tuple[str, str], Value]) -> tuple[Value, ...]:
    if slot == "size":
        scheme, *numbers = text.split()
        return tuple(size(scheme, n) for n in numbers)
    return tuple(known[slot, name] for name in text.split(", "))


def pick(rng: np.random.Generator, items: Sequence[T], skew: float = 0.0) -> T:
    """One of the items; `skew` > 0 prefers the earlier ones, as 1 / rank^skew."""
    if skew == 0:
        return items[int(rng.integers(len(items)))]
    weights = np.cumsum(np.arange(1, len(items) + 1) ** -skew)
    return items[int(np.searchsorted(weights, rng.random() * weights[-1], side="right").clip(max=len(items) - 1))]


def some(rng: np.random.Generator, items: Sequence[T], at_least: int, at_most: int) -> tuple[T, ...]:
    """Several different items, in their order."""
    count = min(len(items), int(rng.integers(at_least, at_most + 1)))
    return tuple(items[i] for i in np.sort(rng.permutation(len(items))[:count]))


def stock(products: int, rng: np.random.Generator) -> list[Offer]:
    """The shop's offers, more of some types than of others."""
    shelves = [(department, product_type) for department in vocabulary() for product_type in department.product_types]
    order = [shelves[i] for i in rng.permutation(len(shelves))]
    offers = []
    for n in range(1, products + 1):
        department, product_type = pick(rng, order, 0.35)
        offers.append(_offer(f"P{n:05d}", department, product_type, rng))
    return offers


def _offer(product_id: str, department: Department, product_type: ProductType, rng: np.random.Generator) -> Offer:
    brand = pick(rng, department.brands, 0.6)
    values: dict[str, tuple[Value, ...]] = {"type": (product_type.value,), "brand": (_plain_value("brand", brand),)}
    if rng.random() < 0.65:
        values["series"] = (_plain_value("series", pick(rng, department.series, 0.4)),)
    if rng.random() < 0.45:
        initials = "".join(word[0] for word in brand.replace("&", "").split())[:2].upper()
        number = f"{initials if len(initials) > 1 else brand[:2].upper()}-{int(rng.integers(1000, 9999))}"
        values["model"] = (_plain_value("model", number),)
    chance = {"audience": 0.75, "style": 0.6, "season": 0.45}
    for slot, choices in product_type.slots.items():
        if rng.random() < chance.get(slot, 1.0):
            most = {"function": 3, "scenario": 2}.get(slot, 1)
            values[slot] = some(rng, choices, 1, most)
    title = _title(values, department.brands.index(brand), rng)
    description = _description(values, department, rng)
    low, high = product_type.price
    return Offer(
        Product(
            product_id,
            title,
            brand,
            (department.name, product_type.shelf, product_type.value.sold[0]),
            description,
            float(round(low * (high / low) ** (rng.random() ** 1.6))) - 0.01,
            float(int(4 / (1.0004 - rng.random()))),  # units sold: half the products under 8, the best some thousands
            _columns(values, f"{title} {description}", rng),
        ),
        product_type,
        values,
    )


def _plain_value(slot: str, name: str) -> Value:
    return Value(slot, name, (name,), (name.lower(),))


_STYLES = (
    "{brand} {series} {type}, {audience}, {function}, {material}, {colour}, {size}",
    "{audience} {function} {material} {type} by {brand} - {colour} / {size}",
    "{marketing} {brand} {style} {type} {size} {colour} {material} {function} {audience}",
    "{brand} {model} {type} {colour} {size}",
    "{type} | {function} | {material} | {brand} {series} | {size}",
    "{season} {style} {type} {audience}, {colour} {material}, {brand} {model} {size} {marketing}",
)
"""How sellers write titles; each brand keeps to one style, mostly."""

_TOLD = {
    "brand": 0.85,
    "audience": 0.65,
    "function": 0.75,
    "material": 0.65,
    "style": 0.6,
    "season": 0.6,
    "series": 0.8,
}
_MARKETING = (
    "Premium",
    "New",
    "Best Seller",
    "2025 Upgrade",
    "Deluxe",
    "Top Rated",
    "Great Value",
    "Original",
    "Limited Edition",
)


def _title(values: dict[str, tuple[Value, ...]], house_style: int, rng: np.random.Generator) -> str:
    style = house_style % len(_STYLES) if rng.random() < 0.8 else int(rng.integers(len(_STYLES)))
    words = dict.fromkeys((*_TOLD, "colour", "size", "model"), "")
    for slot, of_slot in values.items():
        if slot in ("type", "brand") or (slot in words and rng.random() < _TOLD.get(slot, 0.8)):
            words[slot] = pick(rng, pick(rng, of_slot).sold, 0.7)
    if rng.random() > _TOLD["brand"]:
        words["brand"] = ""
    marketing = pick(rng, _MARKETING) if rng.random() < 0.5 else ""
    text = _STYLES[style].format(marketing=marketing, **words)
    for mark in (",", " |", " -", " /"):  # what was left out leaves its separators behind
        text = f"{mark} ".join(part.strip() for part in text.split(f"{mark} ") if part.strip())
    text = " ".join(text.split())
    text = text.removesuffix(" by").replace(" by -", " -").replace(" - / ", " - ").strip(" ,|/-")
    return text.upper() if style == 3 and rng.random() < 0.35 else text


_GAP = re.compile(r"[^\w\"'°]+")


def _lower_case(form: str) -> str:
    """As it stands within a sentence: abbreviations and models keep their capitals.

    >>> _lower_case("Easy-Clean"), _lower_case("USDA Organic")
    ('easy-clean', 'USDA organic')
    """
    parts = re.split(r"([ -])", form)
    return "".join(part if sum(map(str.isupper, part)) > 1 else part.lower() for part in parts)


def _description(values: dict[str, tuple[Value, ...]], department: Department, rng: np.random.Generator) -> str:
    if rng.random() < 0.12:
        return ""
    said = {slot: [pick(rng, value.sold, 0.5) for value in of_slot] for slot, of_slot in values.items()}
    lower = {slot: [_lower_case(form) for form in forms] for slot, forms in said.items()}
    named = " ".join(said["brand"] + said.get("series", []))
    text = [
        pick(rng, (f"{said['type'][0]} from {named}.", f"The {named} range: {lower['type'][0]}.", f"Meet the {named}."))
    ]
    if "material" in said and rng.random() < 0.6:
        text.append(pick(rng, (f"Made of {lower['material'][0]}.", f"{said['material'][0]} construction.")))
    if "function" in said and rng.random() < 0.7:
        text.append(f"{pick(rng, ('Features', 'Highlights', 'What you get'))}: {', '.join(lower['function'])}.")
    if "scenario" in said and rng.random() < 0.6:
        text.append(
            f"{pick(rng, ('Ideal for', 'Made with this in mind:', 'Great for'))} {' and '.join(lower['scenario'])}."
        )
    if "colour" in said and rng.random() < 0.35:
        text.append(f"Color: {lower['colour'][0]}.")
    if "size" in said and rng.random() < 0.35:
        text.append(f"Size: {said['size'][0].removeprefix('Size ').rstrip('.')}.")
    return " ".join([*text, *some(rng, department.text, 0, 2)])


_COLUMNS = {
    "series": 0.4, "model": 0.6, "material": 0.6, "colour": 0.7, "size": 0.7, "audience": 0.5, "function": 0.5,
    "style": 0.4, "season": 0.4, "scenario": 0.25,
}  # fmt: skip
"""How often a seller fills an attribute column in."""


def tells(text: str, value: Value) -> bool:
    """Whether a text names a value by one of its sellers' forms, as whole words.

    >>> tells("Womens Tee", size("wear", "M")), tells("Womens Tee, Medium", size("wear", "M"))
    (False, True)
    """
    padded = f" {_GAP.sub(' ', text.lower())} "
    return any(f" {_GAP.sub(' ', form.lower()).strip()} " in padded for form in value.sold)


def _columns(values: dict[str, tuple[Value, ...]], told: str, rng: np.random.Generator) -> dict[str, tuple[str, ...]]:
    """The attribute columns; what the texts do not tell is here, but for what it is good for, and when."""
    columns = {}
    for slot, chance in _COLUMNS.items():
        of_slot = values.get(slot, ())
        untold = any(not tells(told, value) for value in of_slot)
        must = untold and slot not in ("season", "scenario")
        if of_slot and (rng.random() < chance or must):
            columns[slot] = tuple(value.sold[0] for value in of_slot)
    return columns
