"""Scripts that are written without blanks: Chinese, Japanese, Thai, Lao, Burmese and Khmer.

Their runs of letters are cut into overlapping pairs, as Lucene's CJKAnalyzer does: what two texts share they share in
pairs, without a dictionary. In scripts with vowel signs and tone marks a letter has its marks with it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from itertools import pairwise

_SIGNED = ((0x0E01, 0x0E4E), (0x0E81, 0x0EDF), (0x1000, 0x109F), (0x1780, 0x17D3))  # Thai, Lao, Burmese, Khmer


def _list_category(initial: str) -> str:
    return "".join(
        c for first, last in _SIGNED for c in map(chr, range(first, last + 1)) if unicodedata.category(c)[0] == initial
    )


_HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
_LETTERS = _HAN + _KANA + _list_category("L")
_MARKS = "\u3099\u309a" + _list_category("M")
_LETTER = re.compile(f"[{_LETTERS}][{_MARKS}]*")
_RUN = re.compile(f"[{_LETTERS}][{_LETTERS}{_MARKS}]*")


def cut_runs(text: str) -> str:
    """The text with every run of these scripts cut into pairs of letters; a letter that stands alone stays alone.

    >>> cut_runs("東京タワー 333m"), cut_runs("ปลา")
    (' 東京 京タ タワ ワー  333m', ' ปล ลา ')
    """
    return _RUN.sub(lambda run: f" {' '.join(_pair_letters(run[0]))} ", text)


def _pair_letters(run: str) -> list[str]:
    letters = _LETTER.findall(run)
    return [a + b for a, b in pairwise(letters)] or letters


def join_words(words: Iterable[str]) -> str:
    """Words as a person reads them: with blanks between, but pairs of these scripts joined where they overlap.

    >>> join_words(["東京", "京タ", "タワ", "333", "m", "red"])
    '東京タワ 333 m red'
    """
    text, last = "", [""]
    for word in words:
        letters = _LETTER.findall(word) if not word.isascii() and _RUN.fullmatch(word) else []
        if len(letters) == len(last) == 2 and letters[0] == last[1]:
            text += letters[1]
        else:
            text += f" {word}" if text else word
        last = letters
    return text
