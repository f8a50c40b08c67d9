"""How columns and words find their slot."""

from __future__ import annotations

import pytest

from gram.codes.slots import SLOTS, head_of, slot_of_column, slot_of_words
from gram.text.analysis import default_analyzer

ANALYZER = default_analyzer()


@pytest.mark.parametrize(
    ("column", "slot"),
    [
        ("brand", "brand"),
        ("Manufacturer", "brand"),
        ("Product Type", "type"),
        ("colour", "colour"),
        ("Color Family", "colour"),
        ("Upholstery Material", "material"),
        ("assembled-width", "size"),
        ("Item Weight", "size"),
        ("Model Number", "model"),
        ("Gender", "audience"),
        ("age_range", "audience"),
        ("Room", "scenario"),
        ("Feature", "function"),
        ("Holiday", "season"),
        ("collection", "series"),
        ("Wattage", "specification"),
        ("サイズ", "specification"),
    ],
)
def test_a_column_finds_its_slot(column: str, slot: str) -> None:
    assert slot_of_column(column, ANALYZER) == slot


@pytest.mark.parametrize(
    ("phrase", "slot"),
    [
        ("5 gal", "size"),
        ("2 x 4", "size"),
        ("1/2 in", "size"),
        ("40", "size"),
        ("4096", "model"),
        ("dw713", "model"),
        ("iphone 12", "model"),
        ("mp3 player", ""),  # about a player, which no word list tells
        ("stainless steel", "material"),
        ("orange", "colour"),
        ("navy blue", "colour"),
        ("christmas", "season"),
        ("boys", "audience"),
        ("necklace for women", ""),  # the head is the necklace
        ("camping", "scenario"),
        ("deluxe", "marketing"),
        ("oz", "modifier"),
        ("hose", ""),
    ],
)
def test_words_give_their_slot_away(phrase: str, slot: str) -> None:
    assert slot_of_words(tuple(phrase.split()), ANALYZER) == slot


def test_a_shop_with_other_slots_gets_no_default_ones() -> None:
    slots = ("thing", "specification")
    assert slot_of_column("color", ANALYZER, slots) == "specification"
    assert slot_of_column("Thing", ANALYZER, slots) == "thing"
    assert slot_of_column("color", ANALYZER, ("thing", "maker")) == "maker"
    assert slot_of_words(("red",), ANALYZER, slots) == ""


def test_the_default_slots_are_distinct_and_begin_with_type() -> None:
    assert len(set(SLOTS)) == len(SLOTS) == 15
    assert SLOTS[0] == "type"


def test_a_head_ends_before_an_inner_stop_word() -> None:
    assert head_of(["shelf", "with", "door", "for", "kids"], ANALYZER.stopwords) == 1
    assert head_of(["the", "shelf"], ANALYZER.stopwords) == 2
    assert head_of([], ANALYZER.stopwords) == 0
