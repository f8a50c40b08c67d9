"""Measures against values worked out by hand, run files, and the test that tells two runs apart."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gram.errors import BadRow, DataError, MissingExtra, SettingError
from gram.evaluation.comparison import compare, table
from gram.evaluation.measures import Result, evaluate, ranking, read_run, relevant, write_run
from gram.evaluation.significance import significance

GRADED = {"q1": {"a": 3.0, "b": 2.0, "c": 1.0}, "q2": {"d": 2.0}, "q3": {"a": 1.0}}


def test_graded_judgements_by_hand() -> None:
    result = evaluate(GRADED, {"q1": {"c": 3.0, "a": 2.0, "x": 1.0}, "q9": {"a": 1.0}})
    # q1: of the relevant a and b (grade ≥ 2) only a is found, at rank 2. q2 has no answer, q3 nothing to find.
    ndcg = (1 + 3 / math.log2(3)) / (3 + 2 / math.log2(3) + 1 / 2)
    expected = {"R@10": 0.5, "R@100": 0.5, "R@300": 0.5, "nDCG@10": ndcg, "RR": 0.5, "Success@10": 1, "Success@100": 1}
    assert {name: values["q1"] for name, values in result.per_query.items()} == pytest.approx(expected)
    assert all(values.keys() == {"q1", "q2"} and values["q2"] == 0 for values in result.per_query.values())
    assert result.mean == pytest.approx({name: value / 2 for name, value in expected.items()})
    assert (result.left_out, result.unanswered, result.unknown) == (1, 1, 1)


def test_binary_judgements_count_grade_one() -> None:
    qrels = {"q": {"a": 1.0, "b": 0.0}}
    assert relevant(qrels) == {"q": ["a"]}
    result = evaluate(qrels, {"q": {"b": 2.0, "a": 1.0}}, ["RR", "R@1", "Success@10"])
    assert result.mean == {"RR": 0.5, "R@1": 0.0, "Success@10": 1.0}


def test_grades_between_whole_numbers() -> None:
    qrels = {"q": {"a": 2.33, "b": 1.67}}
    result = evaluate(qrels, {"q": {"b": 2.0, "a": 1.0}}, ["R@1", "RR", "nDCG@10", "R(rel=1)@1"])
    ndcg = (1.67 + 2.33 / math.log2(3)) / (2.33 + 1.67 / math.log2(3))
    assert result.mean == pytest.approx({"R@1": 0, "RR": 0.5, "nDCG@10": ndcg, "R(rel=1)@1": 0.5})


def test_equal_and_nearly_equal_scores() -> None:
    assert ranking({"b": 1.0, "a": 1.0, "c": 1.0 + 1e-12}) == ["c", "a", "b"]
    qrels = {"q": {"a": 1.0}}
    assert evaluate(qrels, {"q": {"b": 1.0, "a": 1.0, "c": 1.0 + 1e-12}}, ["RR"]).mean["RR"] == 0.5


def test_nothing_to_judge() -> None:
    assert evaluate({"q": {"a": 0.0}}, {}, ["RR"]) == Result({"RR": 0.0}, {"RR": {}}, left_out=1)
    assert evaluate({"q": {"a": 1.0}}, {"q": {}}, ["RR"]).unanswered == 1


def test_unknown_measure_and_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match="no measure 'Recal@10'"):
        evaluate(GRADED, {}, ["Recal@10"])
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(MissingExtra, match=r"\[eval\]"):
        evaluate(GRADED, {})


IDS = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=5)
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(IDS, st.dictionaries(IDS, FINITE, min_size=1, max_size=5), max_size=4))
def test_a_run_survives_its_file(tmp_path_factory: pytest.TempPathFactory, run: dict[str, dict[str, float]]) -> None:
    path = tmp_path_factory.mktemp("runs") / "a.trec"
    write_run(path, run)
    assert read_run(path) == run


def test_run_file_ranks_and_no_leftovers(tmp_path: Path) -> None:
    path = tmp_path / "a.trec"
    write_run(path, {"q": {"b": 0.5, "c": 2.0, "a": 0.5}}, tag="bm25")
    assert path.read_text() == "q Q0 c 1 2.0 bm25\nq Q0 a 2 0.5 bm25\nq Q0 b 3 0.5 bm25\n"
    with pytest.raises(SettingError, match="white space"):
        write_run(path, {"q": {"a b": 1.0}})
    with pytest.raises(SettingError, match="not a number"):
        write_run(path, {"q": {"a": math.nan}})
    assert len(read_run(path)["q"]) == 3  # the old file is whole
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("row", "column", "problem"),
    [
        ("q Q0 b 2 0.5", "tag", "5 fields where 6 belong"),
        ("q Q0 b 2 high gram", "score", "not a number"),
        ("q Q0 b 2 nan gram", "score", "not a number"),
        ("q Q0 a 2 0.5 gram", "product_id", "twice"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, row: str, column: str, problem: str) -> None:
    path = tmp_path / "a.trec"
    path.write_text(f"q\tQ0\ta\t1\t1.0\tgram\n\n{row}\n")
    with pytest.raises(BadRow, match=problem) as caught:
        read_run(path)
    assert (caught.value.line, caught.value.column) == (3, column)


def test_unreadable_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_run(tmp_path / "none.trec")


def test_significance_by_hand() -> None:
    ones, zeros = dict.fromkeys("abc", 1.0), dict.fromkeys("abc", 0.0)
    assert significance(ones, zeros) == 2 / 8  # of 2³ ways to swap, only none and all set the means as far apart
    assert significance(ones, ones) == 1.0
    # differences 2, 1, -1 sum to 2; of ±2 ±1 ±1 six in eight sum to 2 or more in size
    assert significance({"a": 2, "b": 1, "c": 0}, {"a": 0, "b": 0, "c": 1}) == 6 / 8
    with pytest.raises(SettingError, match="same queries"):
        significance(ones, {"a": 1.0})


def test_random_swaps_agree_with_all_swaps() -> None:
    rng = np.random.default_rng(3)
    a = {str(i): float(x) for i, x in enumerate(rng.normal(0.5, 1, 12))}
    b = dict.fromkeys(a, 0.0)
    every, sampled = significance(a, b), significance(a, b, permutations=4000)
    assert every != sampled
    assert every == pytest.approx(sampled, abs=0.03)
    assert sampled == significance(a, b, permutations=4000)


def test_table_marks_what_differs() -> None:
    def result(values: list[float]) -> Result:
        return Result({"RR": float(np.mean(values))}, {"RR": {str(i): v for i, v in enumerate(values)}})

    results = {"bm25": result([0.5] * 20), "gram": result([1.0] * 20), "noise": result([0.5] * 19 + [0.6])}
    worse = {**results, "poor": result([0.0] * 20)}
    markers = {row.name: row.marker for row in compare(worse, "bm25")}
    assert markers == {"bm25": {}, "gram": {"RR": "+"}, "noise": {"RR": ""}, "poor": {"RR": "-"}}
    lines = table(results, "bm25").split("\n")
    assert lines[:4] == ["run        RR", "bm25    .500", "gram   1.000+", "noise   .505"]
    assert table(results, "bm25", markdown=True).split("\n")[:3] == [
        "| run   |     RR |",
        "|-------|-------:|",
        "| bm25  |   .500 |",
    ]
    with pytest.raises(SettingError, match="No run is called 'dense'"):
        compare(results, "dense")
