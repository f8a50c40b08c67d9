"""The normaliser: one form for what sellers and searchers write."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gram.errors import SettingError
from gram.text.analysis import MAX_QUERY, MAX_QUERY_WORDS, Analyzer, default_analyzer
from gram.text.prices import read_price
from gram.text.scripts import join_words
from gram.text.stemming import MAX_WORD, stem_short
from gram.text.words import check_language, has_digit, stem, stems, words


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
        ("シューズ", "ｼｭｰｽﾞ", "シュ ュー ーズ"),
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
    for form, unit in default_analyzer().units.items():
        assert words(f"7 {form}") == words(f"7{form}") == ["7", unit]


_TOKENS = ["5", "40", "1/2", "2.5", "½", "1,000", "in", "inches", "ft.", "sq", "sq-ft", '5"', "6'", "x", "2x4", "5X_5"]
_TOKENS += ["12V", "Men's", "a_b", "Crème", "m18", "oz", "(2", "pack)", "किताब", "—", "東京都", "กิน"]


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
    assert stem("kinderschuhe", check_language("german")) == "kinderschuh"
    assert stem("kinderschuhe", check_language("none")) == "kinderschuhe"
    with pytest.raises(SettingError, match=r"klingon.*german"):
        check_language("klingon")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("東京タワー", "東京 京タ タワ ワー"),
        ("東", "東"),
        ("赤いソファ 2人用", "赤い いソ ソフ ファ 2 人用"),  # what is no such letter ends a run
        ("tシャツ27cm", "t シャ ャツ 27 cm"),
        ("รองเท้า", "รอ อง งเ เท้ ท้า"),  # a tone mark stays with its letter
        ("ស្បែកជើង", "ស្ប បែ កជើ"),
        ("소파 커버", "소파 커버"),  # Korean is written with blanks
        ("canapé жёлтый", "canapé жёлтый"),
    ],
)
def test_scripts_without_blanks_are_cut_into_pairs(text: str, expected: str) -> None:
    if text.startswith("ស"):  # each letter with its signs, in pairs
        assert words(text) == [a + b for a, b in zip(["ស្", "បែ", "ក"], ["បែ", "ក", "ជើ"], strict=True)] + ["ជើង"]
    else:
        assert words(text) == expected.split()


@pytest.mark.parametrize("text", ["東京タワー", "赤 い", "red 東京都 sofa", "12 in", "", "シュ シュ"])
def test_joined_words_are_read_as_the_same_words(text: str) -> None:
    assert words(join_words(words(text))) == words(text)


def test_pairs_that_overlap_are_joined_and_others_are_not() -> None:
    assert join_words(words("東京タワー")) == "東京タワー"
    assert join_words(["東京", "大阪"]) == "東京 大阪"
    assert join_words(["赤", "赤い"]) == "赤 赤い"


def test_a_long_word_is_cut_and_no_long_word_is_kept_in_the_cache() -> None:
    assert words("a" * 1000 + " sofa") == ["a" * MAX_WORD, "sofa"]
    assert words("1" * MAX_WORD + ".5") == ["1" * MAX_WORD], "no dot is left at the end"
    before = stem_short.cache_info().currsize
    assert stem("b" * (MAX_WORD + 1)) == "b" * (MAX_WORD + 1)
    assert stem_short.cache_info().currsize == before


@pytest.mark.parametrize(
    ("query", "n_words", "told"),
    [
        ("red sofa", 2, ()),
        ("sofa " * MAX_QUERY_WORDS, MAX_QUERY_WORDS, ()),
        ("sofa " * (MAX_QUERY_WORDS + 1), MAX_QUERY_WORDS, ("101 words", "first 100")),
        ("東" * 1000, MAX_QUERY_WORDS, ("999 words",)),
        ("東" * 100_000, MAX_QUERY_WORDS, ("100,000 characters", "1,999 words")),
        ("x" * (MAX_WORD + 1), 1, ("A word has 65 characters",)),
        ("e" + "\u0301" * 100_000, 1, ("100,001 characters", "A word has 1,999 characters")),
    ],
)
def test_what_is_cut_from_a_query_is_told(query: str, n_words: int, told: tuple[str, ...]) -> None:
    text, left_out = default_analyzer().clip_query(query)
    assert len(words(text)) == n_words
    assert words(text) == words(query[:MAX_QUERY])[:MAX_QUERY_WORDS]
    assert all(part in left_out for part in told)
    assert bool(left_out) == bool(told)


_HOSTILE = ["東", "\u0301", "\u0327\u0301", "a", "a ", '"a ', "5'", "1,", ".5", "sq.", "½", "ﷺ", "\u0e33"]


@pytest.mark.parametrize("unit", _HOSTILE)
def test_no_text_takes_long(unit: str) -> None:
    began = time.process_time()
    words(unit * (100_000 // len(unit)))
    assert time.process_time() - began < 5  # a tenth of a second or so; 100,000 marks on one letter took 23


def test_an_analyzer_stems_in_its_language() -> None:
    assert Analyzer("german").stems("2 Kinderschuhe") == ["2", "kinderschuh"]
    assert Analyzer("").stem("openers") == "openers"


@pytest.mark.parametrize(
    ("query", "read"),
    [
        ("sofa under $1,000", (0, 1000, "sofa")),
        ("sofa under $1,234.50", (0, 1234.5, "sofa")),
        ("sofa under 1.000 euros", (0, 1000, "sofa")),
        ("sofa under 1.234,50 €", (0, 1234.5, "sofa")),
        ("sofa under $12.5", (0, 12.5, "sofa")),
        ("tv over $500 under $1,000", (500, 1000, "tv")),
        ("tv under $500 over $1,000", (500, 1000, "tv")),
        ("tv between 1,000 and 2,000 dollars", (1000, 2000, "tv")),
        ("under $50", (0, 50, "")),
        ("sofa under $1,0000", None),
        ("tv under 50 in", None),
        ("tv $500", None),
        ("jeans $30-$60", (30, 60, "jeans")),
        ("jeans $30 - 60", (30, 60, "jeans")),
        ("$30–60 jeans", (30, 60, "jeans")),
        ("sandals $15 to $30", (15, 30, "sandals")),
        ("30-60 dollars", (30, 60, "")),
        ("jeans 30 - 60 € blue", (30, 60, "jeans blue")),
        ("jeans 30 to $60", (30, 60, "jeans")),
        ("jeans 30 dollars to 60 dollars", (30, 60, "jeans")),
        ("sofa us $1,000 - $2,000.50", (1000, 2000.5, "sofa")),
        ("jeans from $20 to $40", (20, 40, "jeans")),
        ("jeans from $20 to 40", (20, 40, "jeans")),
        ("jeans between $20 and 40", (20, 40, "jeans")),
        ("shelf 24-36 inch", None),
        ("shelf 24 to 36 in", None),
        ("jeans 30-60", None),
        ("tv $300 - 60 inch", None),
        ("lamp $30 - 60 w", None),
        ("cups $10 to 12-pack", None),
        ("iphone 12 - $500", None),
        ("walkman mp3-30 dollars", None),
        ("shirt $20 and $40", None),
        ("cups under $20 - 50 pieces", (0, 20, "cups - 50 pieces")),
    ],
)
def test_prices_that_a_query_names(query: str, read: tuple[float, float, str] | None) -> None:
    assert read_price(query) == read


@pytest.mark.parametrize(
    ("written", "typed"),
    [
        ("Łódź", "lodz"), ("Straße", "strasse"), ("STRAẞE", "Strasse"), ("cafés", "cafes"),
        ("Crème brûlée", "creme brulee"),
        ("smørrebrød", "smorrebrod"), ("œuvre Ærø", "oeuvre aero"), ("Þór Đặng", "thor dang"),
        ("İstanbul kılıç", "istanbul kilic"),
        ("naïve", "naive"), ("Škoda Ångström", "skoda angstrom"),
    ],
)  # fmt: skip
def test_letters_are_found_as_they_are_typed(written: str, typed: str) -> None:
    for analyzer in (Analyzer(), Analyzer("")):
        stemmed = analyzer.stems(written), [analyzer.stem(word) for word in analyzer.words(written)]
        assert stemmed == (analyzer.stems(typed), analyzer.stems(typed)), analyzer.language or "no stemmer"
    assert words(written) != words(typed), "what is shown has the marks"


@pytest.mark.parametrize(
    ("a", "b"), [("мой", "мои"), ("ガス", "カス"), ("हिन्दी", "हनद"), ("ό", "ο"), ("5½", "5"), ("ø50", "50")]
)
def test_marks_of_other_scripts_tell_words_apart(a: str, b: str) -> None:
    assert stems(a) != stems(b)


def test_a_stemmer_sees_the_marks_of_its_language() -> None:
    german, french = Analyzer("german"), Analyzer("french")
    assert german.stems("Häuser Haus Straßen") == ["haus", "haus", "strass"]
    assert french.stems("élevées élevée") == ["elev", "elev"]


def test_a_model_of_before_reads_marks_as_it_learnt_them(tmp_path: Path) -> None:
    saved = Analyzer().to_json()
    assert Analyzer.from_json(saved, tmp_path).stems("Łódź") == ["lodz"]
    del saved["folded"]
    assert Analyzer.from_json(saved, tmp_path).stems("Łódź") == ["łódź"]
