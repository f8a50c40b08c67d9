"""The speller against a brute-force reading of every known word."""

from __future__ import annotations

from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from gram.text.spelling import LONGEST, Speller

WORDS = st.text(alphabet="abcde", min_size=1, max_size=9)


@cache
def slow_distance(a: str, b: str) -> int:
    """Optimal string alignment by its recursive definition."""
    if not a or not b:
        return len(a) + len(b)
    options = [slow_distance(a[1:], b) + 1, slow_distance(a, b[1:]) + 1, slow_distance(a[1:], b[1:]) + (a[0] != b[0])]
    if len(a) > 1 and len(b) > 1 and a[0] == b[1] and a[1] == b[0]:
        options.append(slow_distance(a[2:], b[2:]) + 1)
    return min(options)


@given(st.dictionaries(WORDS, st.integers(1, 5), max_size=12), WORDS)
def test_a_word_one_edit_from_a_known_one_is_read_as_a_nearest(counts: dict[str, int], word: str) -> None:
    found = Speller(counts, stem=str).correct(word)  # words as their own stems
    near = [w for w, n in counts.items() if n >= 2 and len(w) >= 4 and slow_distance(word, w) == 1]
    if word in counts or len(word) < 4:
        assert found is None
    elif near:
        assert found in near
    else:
        assert found is None or slow_distance(word, found) <= 2


def test_numbers_and_models_are_never_corrected() -> None:
    assert Speller({"dw713": 5, "dw714": 9}).correct("dw715") is None


def test_words_are_compared_as_spelt_and_as_stems() -> None:
    spellings = {
        "tape": "tape",
        "tarp": "tarps",
        "china": "china",
        "allig": "alligator",
        "alik": "alike",
        "can": "cans",
    }
    speller = Speller(dict.fromkeys((*spellings, "garbag"), 20), spellings)
    assert [speller.correct(word) for word in ("taope", "aligator", "chinking")] == ["tape", "alligator", None]
    assert speller.correct("garbagecans") == "garbage cans"
    assert speller.correct("taping") is None, "its stem is known"


def test_two_edits_are_a_guess_in_long_words_and_behind_two_words_run_together() -> None:
    speller = Speller(dict.fromkeys(("miracle", "caution", "cast", "iron"), 20), stem=str)
    assert speller.correct("miricale") == "miracle"
    assert speller.correct("niricle") is None, "another first letter, and two edits"
    assert speller.correct("mricl") is None, "too short for two"
    assert speller.correct("castiron") == "cast iron"


def test_of_words_as_near_the_one_that_goes_with_the_rest_is_meant() -> None:
    speller = Speller({"garage": 10, "gauge": 90}, stem=str)
    assert speller.correct("garge") == "gauge"
    assert speller.correct("garge", {"garage": 5.0, "gauge": 1.0}.__getitem__) == "garage"
    assert speller.correct("gaugge", {"garage": 5.0, "gauge": 1.0}.__getitem__) == "gauge", "nearer"


def test_over_long_words_are_left_as_they_are() -> None:
    known = "a" * LONGEST
    speller = Speller({known: 5, known + "b": 5}, stem=str)
    assert speller.correct("b" + known[1:]) == known
    assert speller.correct("b" + known) is None, "one letter too long, though one edit from a known word"
    assert speller.correct("a" * 100_000) is None
