"""The tagger against a reference that tries every phrase at every position."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gram.codes.tagger import Tag, TrieTagger

_WORDS = st.lists(st.sampled_from("abc"), max_size=8)
_PHRASES = st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(tuple), max_size=8)


def _by_brute_force(phrases: list[tuple[str, ...]], text: list[str]) -> set[Tag]:
    """Every phrase at every position; of equal phrases, the first."""
    return {
        Tag(phrases.index(phrase), start, start + len(phrase))
        for phrase in phrases
        for start in range(len(text))
        if tuple(text[start : start + len(phrase)]) == phrase
    }


@given(_PHRASES, _WORDS)
def test_it_finds_every_phrase_at_every_position(phrases: list[tuple[str, ...]], text: list[str]) -> None:
    found = TrieTagger(phrases).tag(text)
    assert len(set(found)) == len(found)
    assert set(found) == _by_brute_force(phrases, text)


@given(_PHRASES, _WORDS)
def test_tags_come_in_the_order_of_their_positions(phrases: list[tuple[str, ...]], text: list[str]) -> None:
    found = TrieTagger(phrases).tag(text)
    assert found == sorted(found, key=lambda tag: (tag.start, tag.end))


def test_a_phrase_can_be_added_at_any_time_and_its_first_attribute_keeps_it() -> None:
    tagger = TrieTagger([("garag", "door")])
    assert tagger.tag(["door"]) == []
    tagger.add(5, ["door"])
    tagger.add(6, ["door"])
    assert tagger.tag(["garag", "door"]) == [Tag(0, 0, 2), Tag(5, 1, 2)]


def test_an_empty_phrase_names_nothing() -> None:
    assert TrieTagger([()]).tag(["a", "b"]) == []
    assert TrieTagger().tag(["a"]) == []
