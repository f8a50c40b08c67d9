"""Fields of products as filters, facets and sorting see them: columns and bitmaps.

A field is `brand`, `category` (each of its prefixes, "Shoes > Running" and "Shoes"), `price`, `value`, or the name of
an attribute column. Values compare without regard to case and to the form in which Unicode writes a letter. A field
whose values are numbers can be compared by size.


Dimension letters:
    N  products
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from gram.records import Product
from gram.text.letters import WHOLE, compose

Rows: TypeAlias = BitMap
RANGES = 5
"""Ranges of about as many products each that a numeric facet shows."""
MOST_VALUES = 100
"""Values of a field that a facet counts, those of most products."""
LETTERS = 200
"""Characters of a value whose marks are passed over in sorting: to part marks from one letter takes time by the square
of their number."""


def values_of(product: Product) -> dict[str, Sequence[str]]:
    """A product's values of every field but its numbers, as a searcher may name them. A field that it has goes before
    an attribute of that name."""
    values: dict[str, Sequence[str]] = dict(product.attributes)
    for name, number in (("price", product.price), ("value", product.value)):
        if number is not None:
            values.pop(name, None)
    if product.brand:
        values["brand"] = (product.brand,)
    if product.category:
        path = product.category
        values["category"] = tuple(" > ".join(path[: depth + 1]) for depth in range(len(path)))
    return values


class _Value(NamedTuple):
    """A value as some products write it."""

    folded: str
    number: float | None
    rows: list[int]


@dataclass
class Column:
    """One field of N products."""

    rows: dict[str, Rows] = field(default_factory=dict)  # folded value → products
    shown: dict[str, str] = field(default_factory=dict)  # folded value → as first written
    numbers: dict[int, float] = field(default_factory=dict)  # row → number

    @classmethod
    def of(cls, spelt: Mapping[str, _Value], numbers: dict[int, float]) -> Column:
        """The column of values as they are spelt, in the order in which products have them."""
        column = cls(numbers=numbers)
        for text, value in spelt.items():
            column.rows.setdefault(value.folded, BitMap()).update(value.rows)
            column.shown.setdefault(value.folded, text)
        return column

    @cached_property
    def first(self) -> dict[int, str]:
        """Each product's value, folded; of several the one that the column has first."""
        return {row: value for value, rows in reversed(self.rows.items()) for row in rows}

    @cached_property
    def last(self) -> dict[int, str]:
        """Each product's value, folded; of several the last by letter, which of a category is its whole path."""
        return {row: value for value in sorted(self.rows, key=letters) for row in self.rows[value]}


class Fields:
    """The columns of N products, which never change."""

    def __init__(self, products: Iterable[Product] = ()) -> None:
        self.n_products = 0
        spelt: dict[str, dict[str, _Value]] = {}  # field → value as spelt
        numbers: dict[str, dict[int, float]] = {}  # field → row → number
        for row, product in enumerate(products):
            self.n_products += 1
            for name, price in (("price", product.price), ("value", product.value)):
                if price is not None:
                    numbers.setdefault(name, {})[row] = float(price)
            for name, values in values_of(product).items():
                column = spelt.setdefault(name, {})
                for text in values:
                    value = column.get(text)
                    if value is None:  # read once however many products have it
                        value = column[text] = _Value(fold(text), to_number(text), [])
                    value.rows.append(row)
                    if value.number is not None:
                        numbers.setdefault(name, {})[row] = value.number
        self.columns = {
            name: Column.of(spelt.get(name, {}), numbers.get(name, {})) for name in dict.fromkeys([*numbers, *spelt])
        }

    def every(self) -> Rows:
        """All rows."""
        return BitMap(range(self.n_products))

    def equal(self, name: str, value: str) -> Rows:
        """Products that have a value; a number may be written in any way."""
        column = self.columns.get(name)
        if column is None:
            return BitMap()
        found = column.rows.get(fold(value), BitMap())
        number = to_number(value)
        if number is not None:
            found = found | BitMap(row for row, n in column.numbers.items() if n == number)
        return found

    def between(self, name: str, low: float, high: float) -> Rows:
        """Products whose number lies in a range, both ends included."""
        column = self.columns.get(name)
        return BitMap() if column is None else BitMap(r for r, n in column.numbers.items() if low <= n <= high)

    def exists(self, name: str) -> Rows:
        """Products that have the field."""
        column = self.columns.get(name)
        if column is None:
            return BitMap()
        return BitMap.union(BitMap(column.numbers), *column.rows.values())

    def sort_value(self, name: str, row: int) -> float | str | None:
        """What a product is sorted by in a field: its number, or its last value as it was first written."""
        column = self.columns.get(name)
        if column is None:
            return None
        if row in column.numbers:
            return column.numbers[row]
        return column.shown[column.last[row]] if row in column.last else None

    def numbers(self, name: str) -> NDArray[np.float64]:
        """The numbers of all products in a field, in rising order."""
        column = self.columns.get(name)
        numbers = np.array([] if column is None else list(column.numbers.values()), dtype=np.float64)
        return np.sort(numbers[~np.isnan(numbers)])


def fold(value: str) -> str:
    """A value as values are compared: whatever its case, its blanks, and the form in which Unicode writes its letters.

    >>> fold("Cafe\u0301  Nº"), fold("ＣＡＦÉ no")
    ('café no', 'café no')
    """
    folded = value.casefold() if value.isascii() else compose(compose(value).casefold())
    return " ".join(folded.split())


def letters(value: str) -> tuple[str, str]:
    """What texts are sorted by: their letters, whatever their case and marks; of those that have the same ones the
    text as values are compared.

    >>> sorted(["zoo", "Zebra", "Épée", "epee", "apple", "Łódź", "Løkken", "loud"], key=letters)
    ['apple', 'epee', 'Épée', 'Łódź', 'Løkken', 'loud', 'Zebra', 'zoo']
    """
    folded = fold(value)
    if folded.isascii():
        return folded[:LETTERS], folded
    apart = unicodedata.normalize("NFKD", folded[:LETTERS]).translate(WHOLE)
    return "".join(letter for letter in apart if not unicodedata.combining(letter)).casefold(), folded


def to_number(value: str) -> float | None:
    """The number that a value is, if it is one: 0.5, 12, -3."""
    text = value.strip()
    if not text or len(text) > 30 or not text.isascii() or text.strip("+-0123456789.eE"):
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def facet(parts: Sequence[tuple[Fields, Rows]], name: str) -> dict[str, Any]:
    """How many of some products have each value of a field; of numbers also the range, in `RANGES` parts.

    A part holds its lower end and not its upper one, but for the last, which holds both: no product is in two.
    """
    counts: dict[str, int] = {}
    shown: dict[str, str] = {}
    numbers: list[float] = []
    for fields, rows in parts:
        column = fields.columns.get(name)
        if column is None:
            continue
        for folded, holders in column.rows.items():
            if n := rows.intersection_cardinality(holders):
                counts[folded] = counts.get(folded, 0) + n
                shown.setdefault(folded, column.shown[folded])
        numbers += [number for row, number in column.numbers.items() if row in rows]
    best = sorted(counts, key=lambda value: (-counts[value], letters(value)))[:MOST_VALUES]
    found: dict[str, Any] = {"values": {shown[value]: counts[value] for value in best}}
    if numbers:
        found |= {"min": min(numbers), "max": max(numbers), "ranges": _ranges(np.array(numbers))}
    return found


def _ranges(numbers: NDArray[np.float64]) -> list[Mapping[str, float]]:
    low, high = numbers.min(), numbers.max()
    with np.errstate(over="ignore", invalid="ignore"):  # what lies between numbers of 1e308 may be none
        edges = np.unique(np.quantile(numbers, np.linspace(0, 1, RANGES + 1)).round(2))[1:-1]
    edges = np.array([low, *edges[(low < edges) & (edges < high)], high])
    counts, _ = np.histogram(numbers, edges)
    return [
        {"from": float(a), "to": float(b), "count": int(n)}
        for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
