"""Words as the whole project counts them: one normaliser for titles, queries, attribute values and keyword evidence.

Sellers write `5-gal.`, `12"` and `2x4`; searchers write `5 gallon`, `12 inch` and `2 x 4`. Both become the same words
here.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import Stemmer

from gram.errors import SettingError

UNITS: dict[str, str] = {
    form: unit
    for unit, forms in {
        "in": "in inch inches",
        "ft": "ft foot feet",
        "yd": "yd yds yard yards",
        "mm": "mm millimeter millimeters millimetre millimetres",
        "cm": "cm centimeter centimeters centimetre centimetres",
        "m": "m meter meters metre metres",
        "gal": "gal gals gallon gallons",
        "qt": "qt qts quart quarts",
        "oz": "oz ounce ounces",
        "lb": "lb lbs pound pounds",
        "kg": "kg kgs kilogram kilograms",
        "g": "g gram grams",
        "ml": "ml milliliter milliliters millilitre millilitres",
        "l": "l liter liters litre litres",
        "sqft": "sqft",
        "w": "w watt watts",
        "v": "v volt volts",
        "amp": "amp amps ampere amperes",
        "hp": "hp horsepower",
        "btu": "btu btus",
        "gpm": "gpm",
        "gpf": "gpf",
        "psi": "psi",
        "gauge": "gauge ga",
        "gb": "gb gigabyte gigabytes",
        "tb": "tb terabyte terabytes",
        "mah": "mah",
        "hz": "hz hertz",
        "pc": "pc pcs piece pieces",
        "pack": "pack packs pk",
        "ct": "ct count",
    }.items()
    for form in forms.split()
}
"""Every known way to write a unit, and the one we keep."""

_UNIT = "|".join(sorted(UNITS, key=len, reverse=True))
_GLUED_UNIT = re.compile(rf"(?<=\d)(?=(?:{_UNIT})\b)")
_MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0963\u0970-\u0e7f\u0eb1-\u0ece\u1000-\u109f"
"""Accents and vowel signs, which are parts of words in many scripts but no letters to Python's `\\w`."""
_WORD = re.compile(rf"\d+\.\d+|(?<![\w.])\.\d+|\d+/\d+|[\w{_MARKS}]+")
_FRACTION = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
_EDITS = [
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),  # 1,500
    (re.compile(rf"(?<![\d.,])(\d+),(\d\d?)(?=\s*(?:{_UNIT})\b)"), r"\1.\2"),  # 0,5 l
    (re.compile(r"(?<![^\s(])[\"“](?!\s|x\s*[\d.])([^\"“”]*[^\s\"“”])[\"”](?!\w)"), r"\1"),  # "iphone 12" is not 12 in
    (re.compile(r"(?<![^\s(])['‘](?!x\s*[\d.])(?=[^\W\d])([^'‘’]*\w)['’](?!\w)"), r"\1"),
    (re.compile(r"(?<=\d)\s*['′’][\s-]*(?=\d+(?:[\s-]\d+/\d+|[./]\d+)?\s*(?:[\"”]|''))"), " ft "),  # 8'6" has both
    (re.compile(r"(?<=\d)((?:\s?(?:in|inch|ft|feet|cm|mm|m)\.?|\s*[\"”'′’]{1,2})?)\s*[x×*]\s*(?=\.?\d)"), r"\1 x "),
    (re.compile(r"(?<=\d)\s*(?:\"|”|'')"), " in "),
    (re.compile(r"(?<=\d)\s*['′’](?!\w)"), " ft "),
    (re.compile(r"['’]s\b"), "s"),
    (re.compile(r"['’`]"), ""),
    (re.compile(r"\b(?:sq|square)\W*(?:ft|feet|foot)\b\.?"), "sqft"),
]
_DIGIT = re.compile(r"\d")
_DECIMAL = re.compile(r"(\d*)\.(\d+)")
_FRACTIONS = {f"{k / d:.6f}".rstrip("0"): f"{k}/{d}" for d in (2, 4, 8, 16) for k in range(1, d, 2)}
"""What is below 1 stays a fraction, as most write it: 0.375 is 3/8."""


def words(text: str) -> list[str]:
    """The words of a text: lower case, units and dimensions in one form, punctuation gone.

    >>> words('BEHR 5-gal. Men\\'s 1/2" x 10ft. Pipe, 2x4')
    ['behr', '5', 'gal', 'mens', '1/2', 'in', 'x', '10', 'ft', 'pipe', '2', 'x', '4']
    >>> words("11.0 cu ft, 2.50 inch, .5 hp")
    ['11', 'cu', 'ft', '2.5', 'in', '1/2', 'hp']
    """
    text = _FRACTION.sub(" ", text.replace("″", '"').replace("´", "'").replace("_", " "))  # 5½ is 5 1/2, not 51/2
    text = unicodedata.normalize("NFKC", text).lower().replace("⁄", "/")
    for pattern, new in _EDITS:
        text = pattern.sub(new, text)
    text = _GLUED_UNIT.sub(" ", text)
    found = [_DECIMAL.sub(_shortest, w) if "." in w else w for w in _WORD.findall(text)]
    return [UNITS.get(w, w) if (i and _DIGIT.search(found[i - 1])) or len(w) > 4 else w for i, w in enumerate(found)]


def _shortest(decimal: re.Match[str]) -> str:
    """One way to write a number: 11.0 is 11, 2.50 is 2.5, .5 is 1/2."""
    whole, rest = decimal[1].lstrip("0") or "0", decimal[2].rstrip("0")
    if whole != "0" and len(decimal[2]) == 3:
        return decimal[0]  # 1.500 may be a thousand and a half
    number = f"{whole}.{rest}" if rest else whole
    return _FRACTIONS.get(number, number)


def has_digit(word: str) -> bool:
    """Whether a word carries a number: a size, a count, a model number."""
    return bool(_DIGIT.search(word))


@lru_cache(maxsize=8)
def _stemmer(language: str) -> Stemmer.Stemmer:
    return Stemmer.Stemmer(language)


def stemmed_as(language: str) -> str:
    """What `stem` takes for a language's name: a Snowball stemmer's, or nothing for `none`. Raises SettingError for
    another one."""
    known = sorted(Stemmer.algorithms())
    if language not in (*known, "none"):
        raise SettingError(f"there is no stemmer for {language!r}. Fix: choose none, or one of {', '.join(known)}")
    return "" if language == "none" else language


@lru_cache(maxsize=500_000)
def stem(word: str, language: str = "porter") -> str:
    """The word's stem, by a Snowball stemmer (`porter` for English); words with digits keep their form.

    >>> stem("openers"), stem("dw713s")
    ('open', 'dw713s')
    """
    return word if has_digit(word) or not language else str(_stemmer(language).stemWord(word)) or word


def stems(text: str, language: str = "porter") -> list[str]:
    """The stems of a text's words, in order."""
    return [stem(w, language) for w in words(text)]
