"""Logs, queries and judgements: columns, headers or none, the errors, and round trips."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gram.data.files import one_line
from gram.data.log import HEAVIEST, read_log, read_qrels, read_queries, write_log, write_qrels, write_queries
from gram.errors import BadRow, DataError, MissingColumn
from gram.records import Interaction

LOG = 'query\tproduct_id\tweight\tuser_id\ttimestamp\nred shoe\t1\t2.5\tu\t2024-01-01\n24" pan\t2\t\t\t\n'


def test_log_with_every_column(tmp_path: Path) -> None:
    path = tmp_path / "log.tsv"
    path.write_text(LOG)
    want = [Interaction("red shoe", "1", 2.5, "u", "2024-01-01"), Interaction('24" pan', "2")]
    assert read_log(path, ["1", "2"]) == want
    assert read_log(path, {"1": 0, "2": 0}.keys(), progress=True) == want


def test_log_by_other_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "log.csv"
    path.write_text("id,search_term,sku,clicks\n9,red shoe,1,3\n")
    with caplog.at_level(logging.INFO, "gram.data"):
        assert read_log(path, {"1"}) == [Interaction("red shoe", "1", 3.0)]
    assert "log.csv: reading column 'search_term' as query" in caplog.messages


def test_no_log() -> None:
    assert read_log("none", {"1"}) == []


def test_unknown_products_are_left_out_and_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "log.csv"
    path.write_text("query,product_id\n" + "q,1\n" * 6 + "q,x\nq,y\nq,z\nq,w\n")
    assert read_log(path, {"1"}, max_unknown=0.4) == [Interaction("q", "1")] * 6
    found = "4 of 10 interactions are with unknown products ('x' on line 8, 'y' on line 9, 'z' on line 10)"
    assert caplog.record_tuples == [("gram.data", logging.WARNING, f"{path}: {found}; they are left out")]
    with pytest.raises(DataError) as caught:
        read_log(path, {"1"}, max_unknown=0.39)
    assert str(caught.value).startswith(f"{path}: {found}, 40.0% where 39.0% are allowed. Fix: ")
    assert "--max-unknown" in str(caught.value)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (" ,1,1", "line 3, column 'query': no query (value: ' ') Fix: "),
        ("a,,1", "line 3, column 'product_id': no product_id"),
        ("a,1,0", "line 3, column 'weight': a weight that is not above 0 (value: '0') Fix: "),
        ("a,1,-1", "line 3, column 'weight': a weight that is not above 0 (value: '-1') Fix: "),
        ("a,1,inf", "line 3, column 'weight': not a number (value: 'inf') Fix: "),
        ("a,1,two", "line 3, column 'weight': not a number (value: 'two') Fix: "),
    ],
)
def test_log_errors_name_line_column_value_and_fix(tmp_path: Path, row: str, says: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"query,product_id,weight\na,1,1\n{row}\n")
    with pytest.raises(BadRow) as caught:
        read_log(path, {"1"})
    assert str(caught.value).startswith(f"{path}: {says}")


def test_a_log_without_queries_is_told_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("querry,product_id\na,1\n")
    with pytest.raises(MissingColumn, match=r"found 'querry', 'product_id'. Fix: rename column 'querry' to 'query'"):
        read_log(path, {"1"})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("q.tsv", 'query_id\tquery\n1\tred shoe\n2\t"tall" hat\n'),
        ("q.tsv", '1\tred shoe\n2\t"tall" hat\n'),
        ("topics.txt", '1\tred shoe\n2\t"tall" hat\n'),
        ("q.csv", 'qid,search_term\n1,red shoe\n2,"""tall"" hat"\n'),
        ("q.jsonl", '{"_id": 1, "text": "red shoe"}\n{"_id": 2, "text": "\\"tall\\" hat"}\n'),
    ],
)
def test_queries_with_and_without_a_header(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert read_queries(path) == {"1": "red shoe", "2": '"tall" hat'}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("qrels.tsv", "query_id\tproduct_id\tgrade\n1\ta\t3\n1\tb\t0\n0\ta\t0.5\n"),
        ("qrels.tsv", "1\ta\t3\n1\tb\t0\n0\ta\t0.5\n"),
        ("qrels.tsv", "1\t0\ta\t3\n1\t0\tb\t0\n0\t0\ta\t0.5\n"),
        ("qrels.test", "1 0 a 3\n1 0 b 0\n0   0 a 0.5\n"),
        ("qrels", "1\t0\ta\t3\n1\t0\tb\t0\n0\t0\ta\t0.5\n"),
        ("qrels.csv", "query-id,corpus-id,score\n1,a,3\n1,b,0\n0,a,0.5\n1,a,3\n"),
        ("qrels.jsonl", '{"qid":1,"sku":"a","rel":3}\n{"qid":1,"sku":"b","rel":0}\n{"qid":0,"sku":"a","rel":0.5}'),
    ],
)
def test_qrels_of_every_habit(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert read_qrels(path) == {"1": {"a": 3.0, "b": 0.0}, "0": {"a": 0.5}}


def test_the_first_row_of_a_bare_file_may_repeat_a_value(tmp_path: Path) -> None:
    path = tmp_path / "qrels.tsv"
    path.write_text("7\t0\t7\t0\n")
    assert read_qrels(path) == {"7": {"7": 0.0}}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("q.tsv", "1\ta\n2\t\n", "line 2, column 'query': no query (value: '') Fix: "),
        ("q.tsv", "1\ta\n2\tb\n1\tb\n", "line 3, column 'query_id': query '1' is on line 1 already (value: '1') Fix: "),
        ("q.tsv", "1\ta\tb\n", "line 1: 3 fields and no header (value: '1\\ta\\tb') Fix: write query_id<tab>query."),
        ("q.tsv", "query_id\ttxt\n1\ta\n", "there is no column 'query'"),
        ("q.txt", "", "is empty."),
        ("qrels.tsv", "q\tp\tgood\n", "line 1, column 'grade': not a number (value: 'good') Fix: "),
        ("qrels.tsv", "query_id\tproduct_id\tgrade\nq\tp\t\n", "line 2, column 'grade': no grade (value: '') Fix: "),
        (
            "qrels.tsv",
            "q\tp\t1\nq\tp\t2\n",
            "line 2, column 'grade': product 'p' has another grade for query 'q' on line 1",
        ),
        ("qrels.test", "q 0 p 1\nq 0 p\n", "line 2, column 'grade': 3 fields where 4 belong (value: 'q 0 p') Fix: "),
    ],
)
def test_query_and_qrels_errors(tmp_path: Path, name: str, content: str, says: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        _ = read_qrels(path) if name.startswith("qrels") else read_queries(path)
    assert str(caught.value).startswith(f"{path}: {says}")


def test_files_are_as_plain_as_they_can_be(tmp_path: Path) -> None:
    write_log(tmp_path / "log.tsv", [Interaction('24" pan', "1"), Interaction('"tall" hat', "2", 0.5)])
    write_queries(tmp_path / "q.tsv", {"1": "red\tshoe"})
    write_qrels(tmp_path / "qrels.tsv", {"1": {"a": 3.0, "b": 0.5}})
    assert (tmp_path / "log.tsv").read_text() == ('query\tproduct_id\tweight\n24" pan\t1\t1\n"""tall"" hat"\t2\t0.5\n')
    assert (tmp_path / "q.tsv").read_text() == "query_id\tquery\n1\tred shoe\n"
    assert (tmp_path / "qrels.tsv").read_text() == "query_id\tproduct_id\tgrade\n1\ta\t3\n1\tb\t0.5\n"


LINE = st.text(max_size=8).map(one_line) | st.text('" a', max_size=5).map(one_line)
FILLED = LINE.filter(bool)
ID = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=8).map(one_line).filter(bool)


def test_a_weight_that_float32_cannot_sum_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.tsv"
    path.write_text("query\tproduct_id\tweight\nsofa\tp\t1e31\n")
    with pytest.raises(BadRow, match=r"weight above 1e\+30"):
        read_log(path, {"p"})


WEIGHT = st.floats(0, HEAVIEST, exclude_min=True)


@given(st.lists(st.builds(Interaction, FILLED, ID, WEIGHT, LINE, LINE), max_size=5))
def test_a_written_log_reads_back_the_same(tmp_path_factory: pytest.TempPathFactory, log: list[Interaction]) -> None:
    path = tmp_path_factory.mktemp("log") / "log.tsv.gz"
    write_log(path, log)
    assert read_log(path, {interaction.product_id for interaction in log}) == log


@given(st.dictionaries(ID, FILLED, max_size=5), st.dictionaries(ID, st.dictionaries(ID, WEIGHT, min_size=1)))
def test_written_queries_and_qrels_read_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, queries: dict[str, str], qrels: dict[str, dict[str, float]]
) -> None:
    folder = tmp_path_factory.mktemp("judged")
    write_queries(folder / "q.tsv", queries)
    write_qrels(folder / "qrels.tsv", qrels)
    assert read_queries(folder / "q.tsv") == queries
    assert read_qrels(folder / "qrels.tsv") == qrels
