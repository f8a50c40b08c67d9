"""The normaliser: one form for what sellers and searchers write."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gram.errors import SettingError
from gram.text.words import UNITS, has_digit, stem, stemmed_as, stems, words


@pytest.mark.parametrize(
    ("seller", "searcher", "expected"),
    [
        ("5-gal.", "5 gallons", "5 gal"),
        ('12"', "12 inch", "12 in"),
        ("12″", "12''", "12 in"),
        ("2x4", "2 X 4", "2 x 4"),
        ("6'", "6 feet", "6 ft"),
        ("12V", "12 volt", "12 v"),
        ("1,500 sq. ft.", "1500 square feet", "1500 sqft"),
        ("5½ in.", "5 1/2 inches", "5 1/2 in"),
        ("½-in", "1/2 inch", "1/2 in"),
        ("11.0 cu. ft.", "11 cu ft", "11 cu ft"),
        (".5 hp", "1/2hp", "1/2 hp"),
        ("0.375 in", '3/8"', "3/8 in"),
        ("2.50 qt.", "2.5 quart", "2.5 qt"),
        ("10,000mAh", "10000 mAh", "10000 mah"),
        ("0,5 l", "0.5 litre", "1/2 l"),
        ("18x30x.75 in.", '18 x 30x3/4"', "18 x 30 x 3/4 in"),
        ("5'x7'", "5 ft. x7 ft.", "5 ft x 7 ft"),
        ("10cmx12cm", "10 cm x 12 cm", "10 cm x 12 cm"),
        ("8'6\"", "8 ft. 6 in.", "8 ft 6 in"),
        ("Men’s", "men's", "mens"),
        ("ＡＢＣ１２", "abc12", "abc12"),
        ("Crème Brûlée", "crème-brûlée", "crème brûlée"),
        ("हिन्दी किताब", "हिन्दी, किताब", "हिन्दी किताब"),
        ("ランニングシューズ", "ﾗﾝﾆﾝｸﾞｼｭｰｽﾞ", "ランニングシューズ"),
        ("under_score", "under score", "under score"),
    ],
)
def test_both_ways_to_write_it_become_one(seller: str, searcher: str, expected: str) -> None:
    assert words(seller) == words(searcher) == expected.split()


@pytest.mark.parametrize("text", ["", "  ", "!!!", "—", "。、"])
def test_a_text_without_words_has_none(text: str) -> None:
    assert words(text) == stems(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("made in italy", "made in italy"),  # a word that is a unit only after a number
        ("a m l", "a m l"),
        ("m18 drill", "m18 drill"),
        ("12 in 1 tool", "12 in 1 tool"),
        ('"iphone 12"', "iphone 12"),  # what is quoted ends in no inches
        ('24" "white" vanity', "24 in white vanity"),
        ('12 " x 14 "', "12 in x 14 in"),
        ("sizes 6,7", "sizes 6 7"),
        ("1.500 W", "1.500 w"),  # a thousand and a half, or one and a half
    ],
)
def test_units_are_units_where_a_number_stands_before_them(text: str, expected: str) -> None:
    assert words(text) == expected.split()


def test_every_form_of_a_unit_becomes_its_name() -> None:
    for form, unit in UNITS.items():
        assert words(f"7 {form}") == words(f"7{form}") == ["7", unit]


_TOKENS = ["5", "40", "1/2", "2.5", "½", "1,000", "in", "inches", "ft.", "sq", "sq-ft", '5"', "6'", "x", "2x4", "5X_5"]
_TOKENS += ["12V", "Men's", "a_b", "Crème", "m18", "oz", "(2", "pack)", "किताब", "—"]


@given(st.lists(st.sampled_from(_TOKENS), max_size=8))
@example(["sq", "—", "ft."])
def test_reading_what_was_read_changes_nothing(tokens: list[str]) -> None:
    once = words(" ".join(tokens))
    assert words(" ".join(once)) == once


@given(st.text())
def test_words_hold_no_space_and_no_capitals(text: str) -> None:
    for word in words(text):
        assert word
        assert word == word.lower()
        assert not any(c.isspace() for c in word)


def test_numbers_are_not_stemmed_and_a_language_can_be_left_out() -> None:
    assert stems("Running shoes 12ers") == ["run", "shoe", "12ers"]
    assert stem("openers", "") == "openers"
    assert stem("chaussures", "french") == "chaussur"
    assert has_digit("m18")
    assert not has_digit("inch")


def test_a_language_has_a_stemmer_or_none() -> None:
    assert stem("kinderschuhe", stemmed_as("german")) == "kinderschuh"
    assert stem("kinderschuhe", stemmed_as("none")) == "kinderschuhe"
    with pytest.raises(SettingError, match=r"klingon.*german"):
        stemmed_as("klingon")
