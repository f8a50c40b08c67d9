"""Letters in one form, and as searchers type them: without the marks that their keyboards lack."""

from __future__ import annotations

import re
import unicodedata

WHOLE = str.maketrans(
    {
        **{"ß": "ss", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d", "đ": "d", "ħ": "h", "ı": "i", "ł": "l", "ŋ": "n"},
        **{"ø": "o", "ŧ": "t"},
    }
)
"""Small letters of Latin scripts that Unicode has no parts of, and what is typed in their place."""

_BLANKLESS = 1_000
"""Characters without a blank that are normalised at once: Unicode sorts the marks on a letter, which takes time by the
square of their number (100,000 marks on one letter took 23 s)."""

_PARTS = re.compile(rf"\S{{1,{_BLANKLESS}}}|\s+")
_MARKED = re.compile("(?<=[a-z])[\u0300-\u036f]+")


def compose(text: str) -> str:
    """Unicode's NFKC: wide and narrow letters, ligatures and accents in one form."""
    if len(text) <= _BLANKLESS:
        return unicodedata.normalize("NFKC", text)
    return "".join(unicodedata.normalize("NFKC", part) for part in _PARTS.findall(text))


def fold_letters(word: str) -> str:
    """A word in small letters with Latin ones as they are typed without marks; other scripts keep their marks, which
    tell letters from others there.

    >>> [fold_letters(word) for word in ("łódź", "straße", "smørrebrød", "café", "đồng", "жёлтый", "ガス")]
    ['lodz', 'strasse', 'smorrebrod', 'cafe', 'dong', 'жёлтый', 'ガス']
    """
    if word.isascii():
        return word
    apart = unicodedata.normalize("NFD", word).translate(WHOLE)
    return unicodedata.normalize("NFC", _MARKED.sub("", apart))
