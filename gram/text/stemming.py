"""Stems, which make one word of `opener` and `openers`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

import Stemmer

from gram.errors import SettingError
from gram.text.letters import fold_letters

MAX_WORD = 64
"""Characters of a word: what is longer is read as its first so many. The longest word of Home Depot's titles and
queries has 26. Not tuned: a word of any length costs memory wherever words are kept."""

CACHED_STEMS = 250_000
"""Stems that are kept, of words of at most MAX_WORD characters each: 150 MB if all were as long and in a wide script, a
fifth of that for words as they are. Home Depot has 23,000 words."""

DERIVED = ("ed", "eds", "ing", "ings")
"""Endings of words that may be made of a noun and are none of its forms."""

SHORTEST_ROOT = 3
"""Letters of what -ed or -ing may be added to: "red" and "king" are made of nothing."""

_MARKLESS = ("", "english", "lovins", "porter")
"""Stemmers that know no letter with a mark, so that it is read without before; what others make of one comes first."""

_DIGIT = re.compile(r"\d")


def has_digit(word: str) -> bool:
    """Whether a word carries a number: a size, a count, a model number."""
    return bool(_DIGIT.search(word))


def check_language(name: str) -> str:
    """What `stem` takes for a language's name: a Snowball stemmer's, or nothing for `none`. Raises SettingError for
    another one."""
    known = sorted(Stemmer.algorithms())
    if name not in (*known, "none"):
        raise SettingError(f"there is no stemmer for {name!r}. Fix: choose none, or one of {', '.join(known)}")
    return "" if name == "none" else name


def stem(word: str, language: str = "porter", folded: bool = True) -> str:
    """The word's stem, by a Snowball stemmer (`porter` for English), its letters as `fold_letters` gives them where it
    is `folded`; words with digits keep their form, and so do words longer than any that `Analyzer.words` makes.

    >>> stem("openers"), stem("dw713s"), stem("Łódź".lower()), stem("straße"), stem("strasse")
    ('open', 'dw713s', 'lodz', 'strass', 'strass')
    """
    return word if len(word) > MAX_WORD else stem_short(word, language, folded)


def bases(word: str) -> Iterator[str]:
    """What a word in -ed or -ing may be made of, if it is made of another.

    >>> list(bases("rugged")), list(bases("casings")), list(bases("red"))
    (['rugg', 'rugge', 'rug'], ['cas', 'case'], [])
    """
    word = word.removesuffix("s")
    for ending in ("ed", "ing"):
        root = word.removesuffix(ending)
        if len(root) >= SHORTEST_ROOT and root != word:
            yield from (root, root + "e")
            if root[-1] == root[-2]:
                yield root[:-1]


@lru_cache(maxsize=CACHED_STEMS)
def stem_short(word: str, language: str, folded: bool = True) -> str:
    """`stem` for words of at most MAX_WORD characters, which are kept."""
    if folded and language in _MARKLESS:
        word = fold_letters(word)
    found = word if has_digit(word) or not language else str(_stemmer(language).stemWord(word)) or word
    return fold_letters(found) if folded else found


@lru_cache(maxsize=8)
def _stemmer(language: str) -> Stemmer.Stemmer:
    return Stemmer.Stemmer(language)
