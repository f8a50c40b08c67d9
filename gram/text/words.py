"""Words and stems by the default analyzer. Where a shop may have tables of its own, ask its lexicon's analyzer."""

from __future__ import annotations

from gram.text.analysis import default_analyzer
from gram.text.stemming import check_language, has_digit, stem

__all__ = ["check_language", "has_digit", "stem", "stems", "words"]


def words(text: str) -> list[str]:
    """The words of a text, as `Analyzer.words` makes them."""
    return default_analyzer().words(text)


def stems(text: str, language: str = "porter") -> list[str]:
    """The stems of a text's words, in order."""
    return [stem(w, language) for w in words(text)]
