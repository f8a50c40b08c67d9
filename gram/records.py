"""The records every room speaks in: products, interactions, attributes, codes and hits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias


class Product(NamedTuple):
    """One row of a catalogue. `price` is read, checked and kept, but nothing uses it yet.

    `category` runs from the root to the leaf. `value` is what the shop wants to weigh in (popularity, margin, …), any
    scale. `attributes` maps a column name to its values, in the order the source gave them.
    """

    product_id: str
    title: str
    brand: str = ""
    category: tuple[str, ...] = ()
    description: str = ""
    price: float | None = None
    value: float | None = None
    attributes: Mapping[str, tuple[str, ...]] = {}


class Interaction(NamedTuple):
    """A click, a purchase or a judgement: `weight` > 0 says how much it counts beside others.

    `user_id` and `timestamp` are read and written back, but nothing uses them yet.
    """

    query: str
    product_id: str
    weight: float = 1.0
    user_id: str = ""
    timestamp: str = ""


class Attribute(NamedTuple):
    """A (slot, value) pair, e.g. (brand, nike)."""

    slot: str
    value: str

    def __str__(self) -> str:
        return f"{self.slot}: {self.value}"


Code: TypeAlias = tuple[Attribute, ...]
"""One to six attributes in slot order; coarse has 1–2, medium 3, fine more."""


def code_text(code: Code) -> str:
    """The code as a person reads it.

    >>> code_text((Attribute("type", "running shoe"), Attribute("brand", "nike")))
    'type: running shoe | brand: nike'
    """
    return " | ".join(map(str, code))


def read_code(text: str) -> Code:
    """The code that a person writes as `code_text` does, or nearly.

    >>> read_code("type:running shoe | brand: nike")
    (Attribute(slot='type', value='running shoe'), Attribute(slot='brand', value='nike'))
    """
    parts = (part.partition(":") for part in text.split("|"))
    return tuple(Attribute(slot.strip().lower(), value.strip()) for slot, _, value in parts)


class SharedCode(NamedTuple):
    """A code through which a hit was found.

    `query_weight` and `product_weight` are the two sides' weights of it; `query_source` and `product_source` say where
    that side has it from: `lexical`, its text holds it; `expansion`, the model wrote it, or it is nearest to a word of
    the query that no attribute says; `compound`, the model wrote a code of several attributes; `given`, a merchandiser
    gave it to the product; `near`, the query holds another that the product lacks and that this one comes near to, by
    its weight; `left_out`, the query says that it does not want it, and counts it all the same. `share` is its part, 0
    to 1, of all the weighed features that speak for the hit, `near_to` the attribute of the query that one which is
    `near` comes near to.
    """

    code: Code
    query_weight: float
    product_weight: float
    query_source: str
    product_source: str
    share: float
    near_to: Attribute | None = None


class Hit(NamedTuple):
    """A found product: `score` is comparable across queries; `codes` and `features` are filled when asked to explain.

    `features` maps the name of each feature to its part of `score`. `fits` says whether it fits what was asked, or is
    only near: a shop's search (`gram.open`) tells, a bare ranking leaves it None.
    """

    product_id: str
    score: float
    title: str = ""
    codes: tuple[SharedCode, ...] = ()
    features: Mapping[str, float] = {}
    fits: bool | None = None
