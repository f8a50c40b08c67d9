"""The tagger: which attributes a text holds, and where.

A shop with its own entity recogniser plugs it in as another `Tagger`. The default walks a word trie from every word of
the text: attributes are at most six words, so that costs what an Aho–Corasick automaton would, and a word can be added
to a dictionary at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol


class Tag(NamedTuple):
    """Attribute `attribute` (an id) stands at words `start` to `end` (end excluded) of a text."""

    attribute: int
    start: int
    end: int


class Tagger(Protocol):
    """Turns the stems of a text into attributes with their positions; overlapping ones are all returned."""

    def tag(self, stems: Sequence[str]) -> list[Tag]: ...


class _Node(dict[str, "_Node"]):
    __slots__ = ("attribute",)

    def __init__(self) -> None:
        self.attribute = -1


class TrieTagger:
    """Finds every known phrase of a text.

    >>> tagger = TrieTagger([("garag",), ("garag", "door"), ("door", "open")])
    >>> [tuple(t) for t in tagger.tag(["garag", "door", "open"])]
    [(0, 0, 1), (1, 0, 2), (2, 1, 3)]
    """

    def __init__(self, phrases: Iterable[Sequence[str]] = ()) -> None:
        self._root = _Node()
        for attribute, phrase in enumerate(phrases):
            self.add(attribute, phrase)

    def add(self, attribute: int, phrase: Sequence[str]) -> None:
        """Makes a phrase (its stems) known as `attribute`; a phrase names one attribute, the first to claim it."""
        node = self._root
        for word in phrase:
            node = node.setdefault(word, _Node())
        if node.attribute < 0:
            node.attribute = attribute

    def tag(self, stems: Sequence[str]) -> list[Tag]:
        tags = []
        for start in range(len(stems)):
            node = self._root
            for end in range(start, len(stems)):
                found = node.get(stems[end])
                if found is None:
                    break
                node = found
                if node.attribute >= 0:
                    tags.append(Tag(node.attribute, start, end + 1))
        return tags
