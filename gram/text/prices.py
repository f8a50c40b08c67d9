"""Prices that a query asks for: "sofa under $500", "lamp between 20 and 40 dollars"."""

from __future__ import annotations

import re
from typing import NamedTuple

_AMOUNT = r"(\d{1,7}(?:[.,]\d{1,2})?)"
_SIGN, _WORD = r"(?:us\s?)?[$€£]\s?", r"\s?(?:dollars?|bucks|usd|euros?|eur|pounds? sterling|gbp|[$€£])"
_MONEY = rf"(?:{_SIGN}{_AMOUNT}|{_AMOUNT}{_WORD})"
_UNDER = r"(?:under|below|less than|cheaper than|up to|at most|max(?:imum)?|no more than)"
_OVER = r"(?:over|above|more than|from|at least|min(?:imum)?)"
_BETWEEN = re.compile(
    rf"\b(?:between|from)\s+(?:{_SIGN})?{_AMOUNT}(?:{_WORD})?\s*(?:and|to|-)\s*{_MONEY}(?!\w)", re.IGNORECASE
)
_BELOW = re.compile(rf"\b{_UNDER}\s+{_MONEY}(?!\w)", re.IGNORECASE)
_ABOVE = re.compile(rf"\b{_OVER}\s+{_MONEY}(?!\w)", re.IGNORECASE)


class PriceRange(NamedTuple):
    """What a query asks to pay, both ends included, and the query without it."""

    low: float
    high: float
    query: str


def read_price(query: str) -> PriceRange | None:
    """The price that a query asks for, if it names one with a sign or word of money: a bare number may be a size.

    >>> read_price("leather sofa under $500")
    PriceRange(low=0.0, high=500.0, query='leather sofa')
    >>> read_price("lamp between 20 and 40 dollars").query, read_price("tv under 50 in")
    ('lamp', None)
    """
    for pattern in (_BETWEEN, _BELOW, _ABOVE):
        found = pattern.search(query)
        if not found:
            continue
        amounts = [float(amount.replace(",", ".")) for amount in found.groups() if amount]
        low, high = min(amounts), max(amounts)
        if pattern is _BELOW:
            low = 0.0
        elif pattern is _ABOVE:
            high = float("inf")
        rest = " ".join(f"{query[: found.start()]} {query[found.end() :]}".split())
        return PriceRange(low, high, rest) if rest else None
    return None
