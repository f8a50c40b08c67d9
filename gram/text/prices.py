"""Prices that a query asks for: "sofa under $500", "lamp between 20 and 40 dollars"."""

from __future__ import annotations

import re
from typing import NamedTuple

_AMOUNT = r"(\d{1,3}(?:,\d{3})+(?:\.\d{1,2})?|\d{1,3}(?:\.\d{3})+(?:,\d{1,2})?|\d{1,9}(?:[.,]\d{1,2})?)"
_SIGN, _WORD = r"(?:us\s?)?[$€£]\s?", r"\s?(?:dollars?|bucks|usd|euros?|eur|pounds? sterling|gbp|[$€£])"
_MONEY = rf"(?:{_SIGN}{_AMOUNT}|{_AMOUNT}{_WORD})"
_NOT = r"(?:not|no)\s+"
_LESS, _MORE = r"(?:under|below|less than|cheaper than)", r"(?:over|above|more than)"
_UNDER = rf"(?:(?<!not )(?<!no ){_LESS}|up to|at most|max(?:imum)?|{_NOT}{_MORE})"
_OVER = rf"(?:(?<!not )(?<!no ){_MORE}|from|at least|min(?:imum)?|{_NOT}{_LESS})"
_END = r"(?![\w]|[.,]\d)"
_UNIT = (
    r"(?:in|inch|inches|ft|feet|foot|yds?|yards?|mm|cm|m|meters?|metres?|oz|ounces?|lbs?|pounds?|kg|g|grams?|ml|l|lit(?:er|re)s?"
    r"|w|watts?|v|volts?|gb|tb|hz|pcs?|pieces?|packs?|ct|count|x)\b"
)
_BARE = rf"{_AMOUNT}{_END}(?!\s*-?\s*{_UNIT}|-?[\w\"'%½¼¾])"
"""An amount that may lack its currency, behind one that has it: no size, as of "$300 - 60 inch"."""
_TO = r"\s*(?:to|[-–—])\s*"
_BETWEEN = re.compile(
    rf"\b(?:between|from)\s+(?:(?:{_SIGN})?{_AMOUNT}(?:{_WORD})?\s*(?:and|to|[-–—])\s*{_MONEY}{_END}"
    rf"|{_MONEY}\s*(?:and|to|[-–—])\s*{_BARE})",
    re.IGNORECASE,
)
_RANGE = re.compile(
    rf"(?<![\w.,$€£-])(?:{_MONEY}{_TO}(?:{_MONEY}{_END}|{_BARE})"
    rf"|{_AMOUNT}{_TO}{_AMOUNT}{_WORD}{_END}|{_AMOUNT}(?:\s+to\s+|[-–—]){_SIGN}{_AMOUNT}{_END})",
    re.IGNORECASE,
)
_BELOW = re.compile(rf"\b{_UNDER}\s+{_MONEY}{_END}", re.IGNORECASE)
_ABOVE = re.compile(rf"\b{_OVER}\s+{_MONEY}{_END}", re.IGNORECASE)


class PriceRange(NamedTuple):
    """What a query asks to pay, both ends included, and the query without it."""

    low: float
    high: float
    query: str

    def __str__(self) -> str:
        return f"price from {self.low:g}" if self.high == float("inf") else f"price {self.low:g} to {self.high:g}"


def read_price(query: str) -> PriceRange | None:
    """The price that a query asks for, if it names one with a sign or word of money: a bare number may be a size.

    >>> read_price("leather sofa under $500")
    PriceRange(low=0.0, high=500.0, query='leather sofa')
    >>> read_price("lamp between 20 and 40 dollars").query, read_price("tv under 50 in")
    ('lamp', None)
    >>> read_price("jeans $30-$60"), read_price("shelf 24-36 inch")
    (PriceRange(low=30.0, high=60.0, query='jeans'), None)
    >>> read_price("tv over $500 under $1,000")
    PriceRange(low=500.0, high=1000.0, query='tv')
    >>> read_price("tv not under $500, no more than $1,000")
    PriceRange(low=500.0, high=1000.0, query='tv ,')
    """
    low, high, rest = 0.0, float("inf"), query
    for pattern in (_BETWEEN, _BELOW, _ABOVE, _RANGE):
        found = pattern.search(rest)
        if not found:
            continue
        amounts = [_number(amount) for amount in found.groups() if amount]
        if pattern is _RANGE and amounts[0] > amounts[1]:  # without a word that says so, it is none that falls
            continue
        low = low if pattern is _BELOW else max(low, min(amounts))
        high = high if pattern is _ABOVE else min(high, max(amounts))
        rest = f"{rest[: found.start()]} {rest[found.end() :]}"
    return None if rest == query else PriceRange(min(low, high), max(low, high), " ".join(rest.split()))


def _number(amount: str) -> float:
    """Of an amount whose last two digits at most are behind a comma or a point; others part thousands."""
    *whole, last = amount.replace(",", ".").split(".")
    return float(f"{''.join(whole)}.{last}") if whole and len(last) < 3 else float("".join([*whole, last]))
