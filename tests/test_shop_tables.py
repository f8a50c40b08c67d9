"""Tables that a shop replaces: what it changes, what is refused, and that a saved copy is the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gram.coder.base import QueryTerms
from gram.codes.mining import MiningSettings
from gram.codes.slots import SLOTS, slot_of_column, slot_of_words
from gram.errors import DataError
from gram.text.analysis import Analyzer, default_analyzer
from gram.text.shop_tables import NAMES, Tables


def test_a_file_replaces_the_table_of_its_name_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "stopwords.json").write_text('["und", "der"]')
    tables = Tables.load(tmp_path)
    assert tables.stopwords == {"und", "der"}
    assert tables.units == Tables.load().units
    assert tables.slot_seeds == Tables.load().slot_seeds
    assert tables.slot_columns == Tables.load().slot_columns


def test_texts_and_slots_are_read_by_a_shops_tables(tmp_path: Path) -> None:
    (tmp_path / "units.json").write_text('{"cl": ["cl", "centilitre"], "btl": ["btl", "bottles"]}')
    (tmp_path / "slot_seeds.json").write_text('{"style": ["brut"], "colour": ["rosé"]}')
    (tmp_path / "slot_columns.json").write_text('{"style": ["dosage|sugar"]}')
    analyzer = Analyzer(tables=Tables.load(tmp_path, SLOTS))
    assert analyzer.words("70cl 6 bottles 3 inches") == ["70", "cl", "6", "btl", "3", "inches"]
    assert default_analyzer().words("70cl 3 inches") == ["70cl", "3", "in"]
    assert slot_of_words(("brut",), analyzer) == "style"
    assert slot_of_words(("red",), analyzer) == ""
    assert slot_of_words(("70", "cl"), analyzer) == "size"
    assert slot_of_column("Residual Sugar", analyzer) == "style"
    assert slot_of_column("Colour Family", analyzer) == "specification"


def test_saved_tables_come_back_the_same(tmp_path: Path) -> None:
    analyzer = Analyzer("german", Tables.load())
    saved = json.loads(json.dumps(analyzer.to_json()))
    assert Analyzer.from_json(saved, tmp_path) == analyzer
    assert list(Tables.from_json(saved["tables"], tmp_path).slot_columns) == list(analyzer.tables.slot_columns)


def test_tables_saved_before_there_were_negations_have_the_default_ones(tmp_path: Path) -> None:
    saved = Tables.load().to_json()
    del saved["negations"], saved["purposes"]
    assert Tables.from_json(saved, tmp_path) == Tables.load()
    saved["negations"] = {"asked": ["ohne"]}
    tables = Tables.from_json(saved, tmp_path)
    assert QueryTerms.read("Schuhe ohne Senkel", Analyzer("german", tables)).left_out == [["senkel"]]
    assert not QueryTerms.read("shoes without laces", Analyzer(tables=tables)).left_out
    saved["negations"] = {"after": ["frei"]}
    assert not QueryTerms.read("shoes without laces", Analyzer(tables=Tables.from_json(saved, tmp_path))).left_out
    saved["purposes"] = ["für"]
    german = Analyzer("german", Tables.from_json(saved, tmp_path))
    assert QueryTerms.read("Akku", german).purposes == {german.stem("für")}


def test_a_shop_without_units_has_none(tmp_path: Path) -> None:
    (tmp_path / "units.json").write_text("{}")
    assert Analyzer(tables=Tables.load(tmp_path)).words("5in 3 inches") == ["5in", "3", "inches"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("units", "[]", r"units\.json: units must be an object with lists of words, not list"),
        ("units", '{"in": "in inch"}', r"units, 'in': a list is expected, not 'in inch'"),
        ("units", '{"in": ["inch"]}', r"units, 'in': is not among the ways to write it\. Fix: add 'in'"),
        ("units", '{"in": ["in", "inch"], "zoll": ["zoll", "inch"]}', r"'inch' is 'in' and 'zoll'"),
        ("units", '{"m2": ["m2"]}', r"units, 'm2': 'm2' is no unit: they are written in letters"),
        ("units", '{"in": ["in"], "in": ["inch"]}', r"the key 'in' twice"),
        ("stopwords", '{"a": 1}', r"stopwords must be a list of words, not dict"),
        ("stopwords", '["The"]', r"stopwords: 'The' is not one word in lower case"),
        ("stopwords", '["of the"]', r"'of the' is not one word"),
        ("stopwords", "[7]", r"7 is no word"),
        ("slot_seeds", '{"color": ["red"]}', r"'color' is no slot of this shop\. Fix: choose from type, brand"),
        ("slot_columns", '{"colour": ["colou(r"]}', r"'colour': 'colou\(r' is no regular expression"),
        ("slot_columns", '{"colour": [', r"slot_columns\.json: cannot be read as JSON: .*line 1"),
        ("negations", '{"behind": ["no"]}', r"negations: 'behind' is no list of it\. Fix: choose from asked, before"),
        ("negations", '["no"]', r"negations must be an object with lists of words, not list"),
        ("stop_words", "[]", r"stop_words\.json: is no table\. Fix: name it one of units\.json, stopwords\.json"),
    ],
)
def test_a_table_that_cannot_be_used_is_named_with_its_fix(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / f"{name}.json").write_text(content)
    with pytest.raises(DataError, match=message) as error:
        Tables.load(tmp_path, SLOTS)
    assert "Fix: " in str(error.value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("w/o", r"negations\.json: negations, 'asked': 'w/o' is never met: .* as \['w', 'o'\]\. Fix: take it out"),
        ("don't", r"\"don't\" is never met: .* as \['dont'\]\. Fix: write 'dont'"),
        ("--", r"'--' is never met: .* as \[\]\. Fix: take it out"),
    ],
)
def test_a_negation_that_no_text_is_read_to_have_is_refused(word: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "negations.json").write_text(json.dumps({"before": ["ohne"], "asked": ["ohne", word]}))
    with pytest.raises(DataError, match=message):
        MiningSettings(tables=str(tmp_path)).make_analyzer()
    (tmp_path / "purposes.json").write_text(json.dumps(["für", "w/"]))
    (tmp_path / "negations.json").write_text(json.dumps({"asked": ["ohne"]}))
    with pytest.raises(DataError, match=r"purposes\.json: purposes: 'w/' is never met: .* Fix: write 'w'"):
        MiningSettings(tables=str(tmp_path)).make_analyzer()
    (tmp_path / "purposes.json").unlink()
    (tmp_path / "negations.json").write_text(json.dumps({"asked": ["बिना", "ohne", "不含"]}))
    assert MiningSettings(tables=str(tmp_path)).make_analyzer().tables.negations["asked"] == {"बिना", "ohne", "不含"}


def test_a_folder_without_tables_is_no_setting(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no tables"):
        Tables.load(tmp_path)
    with pytest.raises(DataError, match="has no tables"):
        Tables.load(tmp_path / "nowhere")


def test_the_default_tables_pass_the_same_checks() -> None:
    defaults = Tables.load()
    assert Tables.from_json(defaults.to_json(), Path("defaults")) == defaults
    assert set(defaults.to_json()) == set(NAMES)
    assert {*defaults.slot_seeds, *defaults.slot_columns} <= set(SLOTS)
