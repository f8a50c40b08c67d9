"""Misspellings as fingers make them: two letters swapped, one dropped, one doubled, a neighbouring key hit."""

from __future__ import annotations

import re

import numpy as np

SHORTEST = 4
"""Words of fewer letters stay whole: a typo would make another word of them."""

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_LETTERS = re.compile(rf"[^\W\d_]{{{SHORTEST},}}")


def _find_neighbours() -> dict[str, str]:
    found: dict[str, str] = {}
    for r, row in enumerate(_ROWS):
        for i, letter in enumerate(row):
            near = row[max(i - 1, 0) : i] + row[i + 1 : i + 2]
            for other in (_ROWS[r - 1] if r else "", _ROWS[r + 1] if r + 1 < len(_ROWS) else ""):
                near += other[i : i + 1]
            found[letter] = near
    return found


_NEIGHBOURS = _find_neighbours()


def misspell(text: str, rng: np.random.Generator) -> str:
    """The text with one typo in one of its words of four letters or more; unchanged where it has none.

    A word keeps its first letter, as most people's typos do. Words with digits are left alone.

    >>> misspell("tv", np.random.default_rng(0))
    'tv'
    """
    words = list(_LETTERS.finditer(text))
    if not words:
        return text
    word = words[int(rng.integers(len(words)))]
    old = word.group()
    for _ in range(20):  # a swap of two equal letters changes nothing: try again
        new = _mistype(old, int(rng.integers(4)), int(rng.integers(1, len(old))), rng)
        if new != old:
            return text[: word.start()] + new + text[word.end() :]
    return text[: word.start()] + old[:-1] + text[word.end() :]


def _mistype(word: str, way: int, position: int, rng: np.random.Generator) -> str:
    letter = word[position]
    if way == 0:
        position = min(position, len(word) - 2)
        return word[:position] + word[position + 1] + word[position] + word[position + 2 :]
    if way == 1:
        return word[:position] + word[position + 1 :]
    if way == 2:
        return word[:position] + letter + word[position:]
    near = _NEIGHBOURS.get(letter.lower(), letter)
    return word[:position] + near[int(rng.integers(len(near)))] + word[position + 1 :]
