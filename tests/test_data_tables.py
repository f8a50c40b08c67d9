"""Rows of every format with their lines, and what is said of files that cannot be read."""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gram.data.columns import read_records
from gram.data.files import one_line
from gram.data.tables import Row, read_table, write_tsv
from gram.errors import BadRow, DataError, MissingColumn, MissingExtra

CSV = 'id,text\n1,"two\nlines, one comma"\n\n2,24" pan\n'
TSV = 'id\ttext\n1\t"two\nlines, one comma"\n\n2\t24" pan\n'
JSONL = '{"id": "1", "text": "two\\nlines, one comma"}\n\n\n{"id": "2", "text": "24\\" pan"}\n'
ROWS = [Row(2, {"id": "1", "text": "two\nlines, one comma"}), Row(5, {"id": "2", "text": '24" pan'})]


def rows_of(path: Path, **options: str) -> list[Row]:
    return list(read_table(path, **options).rows)


@pytest.mark.parametrize(("name", "content"), [("a.csv", CSV), ("a.tsv", TSV), ("a.jsonl", "\n" + JSONL)])
@pytest.mark.parametrize("packing", ["plain", "gz", "zip", "other zip", "bom", "crlf"])
def test_every_text_format_and_packing_gives_the_same_rows(
    tmp_path: Path, name: str, content: str, packing: str
) -> None:
    path, raw = tmp_path / name, content.encode()
    if packing == "gz":
        path = tmp_path / f"{name}.gz"
        path.write_bytes(gzip.compress(raw))
    elif "zip" in packing:
        path = tmp_path / (f"{name}.zip" if packing == "zip" else "archive.zip")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, raw)
            archive.writestr("__MACOSX/._" + name, b"finder")
    elif packing == "crlf":
        path.write_bytes(raw.replace(b"\n", b"\r\n"))
    else:
        path.write_bytes((b"\xef\xbb\xbf" if packing == "bom" else b"") + raw)
    assert read_table(path).columns == ("id", "text")
    rows = [Row(line, {k: v.replace("\r\n", "\n") for k, v in cells.items()}) for line, cells in rows_of(path)]
    assert rows == ROWS


@pytest.mark.parametrize("suffix", [".parquet", ".parquet.gz"])
def test_parquet_keeps_types_and_counts_rows_from_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    pq.write_table(pa.table({"id": [7, 8], "tags": [["a"], None]}), tmp_path / "plain.parquet")
    raw = (tmp_path / "plain.parquet").read_bytes()
    path.write_bytes(gzip.compress(raw) if suffix.endswith("gz") else raw)
    assert rows_of(path) == [Row(1, {"id": 7, "tags": ["a"]}), Row(2, {"id": 8, "tags": None})]
    assert list(read_table(path, columns=("id", "absent")).rows)[1] == Row(2, {"id": 8})


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"Parquet needs an extra .* pip install -e '.\[parquet\]'"):
        read_table(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('1\t"a quiet place', '"a quiet place'),  # never closed: as it stands
        ('1\t"a quiet" place', '"a quiet" place'),  # closed too early: as it stands
        ('1\t"a ""quiet"" place"', 'a "quiet" place'),  # quoted as CSV is
        ('1\t"a\tquiet place"', "a\tquiet place"),
        ("1\t5' x 24\" mat", "5' x 24\" mat"),
    ],
)
def test_quotation_marks_in_tsv(tmp_path: Path, line: str, text: str) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(f"id\ttext\n{line}\n2\tnext\n")
    assert rows_of(path) == [Row(2, {"id": "1", "text": text}), Row(3, {"id": "2", "text": "next"})]


def test_index_column_of_pandas_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(",id\n0,a\n1,b\n")
    assert read_table(path).columns == ("id",)
    assert rows_of(path) == [Row(2, {"id": "a"}), Row(3, {"id": "b"})]


def test_encoding_and_delimiter_can_be_given(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("id\ttext\n1\tcafé\n".encode("latin-1"))
    assert rows_of(path, encoding="latin-1", delimiter="\t") == [Row(2, {"id": "1", "text": "café"})]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"", ["is empty"]),
        ("a.jsonl", b"\n\n", ["is empty"]),
        ("a.csv", b"id,text\n1,a\n2,b,c\n", ["line 3:", "3 fields where 2 belong", "'2,b,c'", "Fix: put a field"]),
        ("a.csv", b'id,text\n1,"a\nb"\n2\n', ["line 4, column 'text'", "1 fields where 2 belong", "'2'"]),
        ("a.tsv", b"id\ttext\n1\ta\tb\n", ["line 2:", "3 fields where 2 belong", r"'1\ta\tb'", "holds a tab"]),
        ("a.csv", b'id,text\n1,"a\n2,b\n', ["line 2:", "broken row, unexpected end", "'1,\"a'", "close the quot"]),
        ("a.csv", b'id,text\n1,"a"b\n', ["line 2:", "broken row", "'1,\"a\"b'"]),
        ("a.tsv", b'id\ttext\n"1\n2\tb\n', ["line 2:", "broken row", "'\"1'"]),
        ("a.csv", b"id,text,id\n1,a,b\n", ["line 1, column 'id'", "names a column twice", "rename one"]),
        ("a.jsonl", b'{"id": 1}\n{"id": \n', ["line 2:", "broken JSON", "at character", "'{\"id\":'", "Fix:"]),
        ("a.jsonl", b"[1, 2]\n", ["line 1:", "not a JSON object", "'[1, 2]'", "Fix: write"]),
        ("a.csv", b"id,text\n1,a\n2,caf\xe9 noir\n", ["line 3:", "0xe9 is not utf-8", "noir", "iconv", "latin-1"]),
        ("a.csv", "id\n1\n".encode("utf-16"), ["is in UTF-16", "Fix: convert it"]),
        ("a.parquet", b"no", ["is not Parquet", "Fix:"]),
        ("a.csv.gz", b"no", ["cannot be unpacked", "Fix:"]),
        ("a.csv.gz", gzip.compress(b"id\n1\n" * 100)[:-12], ["cannot be unpacked", "Fix:"]),
        ("a.csv.zip", b"no", ["cannot be unpacked", "Fix:"]),
        ("a.xlsx", b"no", ["no known ending", "Fix: name it .csv, .tsv, .jsonl or .parquet"]),
    ],
)
def test_errors_name_the_place_the_value_and_the_fix(
    tmp_path: Path, name: str, content: bytes, says: list[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        rows_of(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "Fix: " in message
    assert [part for part in says if part not in message] == []
    assert isinstance(caught.value, BadRow) == ("line " in says[0])


def test_a_missing_file_a_folder_and_a_zip_of_two(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        rows_of(tmp_path / "a.csv")
    (tmp_path / "b.csv").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        rows_of(tmp_path / "b.csv")
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("one.csv", "id\n1\n")
        archive.writestr("two.csv", "id\n1\n")
    with pytest.raises(DataError, match=r"holds 2 files \('one.csv', 'two.csv'\)"):
        rows_of(tmp_path / "c.zip")


def test_other_names_are_resolved_and_said_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "products.csv"
    path.write_text("SKU,id,Product Name,brand,manufacturer\n7,1,Shoe,Nike,Nike Inc\n")
    names = {"product_id": ("sku", "id"), "title": ("product_name", "name"), "brand": ("manufacturer",)}
    with caplog.at_level(logging.INFO, "gram.data"):
        (record,) = read_records(read_table(path), names, ("product_id", "title"))
    assert [record.text(field) for field in names] == ["7", "Shoe", "Nike"]
    assert record.others == {"id": "1", "manufacturer": "Nike Inc"}
    assert caplog.messages == [
        "products.csv: reading column 'SKU' as product_id",
        "products.csv: reading column 'Product Name' as title",
    ]


def test_in_jsonl_the_first_row_with_another_name_decides(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"sku": "1"}, {"sku": "2", "asin": "B2"}, {"product_id": "3", "sku": "x"}, {"asin": "B4"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    *records, last = read_records(read_table(path), {"product_id": ("asin", "sku")}, ("product_id",))
    assert [record.text("product_id") for record in records] == ["1", "2", "3"]
    assert [record.others for record in records] == [{}, {"asin": "B2"}, {"sku": "x"}]
    with pytest.raises(BadRow, match="line 4, column 'product_id': no product_id"):
        last.text("product_id", required=True)


@pytest.mark.parametrize(
    ("header", "fix"),
    [
        ("prodct_id,size", "found 'prodct_id', 'size'. Fix: rename column 'prodct_id' to 'product_id'"),
        ("length,size", "found 'length', 'size'. Fix: name the column that holds it 'product_id', or add one."),
        ("product_id;size", "this one uses ';'"),
    ],
)
def test_a_missing_column_names_those_found_and_the_nearest(tmp_path: Path, header: str, fix: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(header + "\n")
    with pytest.raises(MissingColumn) as caught:
        read_records(read_table(path), {"product_id": ("sku",)}, ("product_id",))
    assert str(caught.value).startswith(f"{path}: there is no column 'product_id' (or sku); found ")
    assert fix in str(caught.value)


def test_a_failed_write_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    write_tsv(path, ("id",), [("1",)])
    with pytest.raises(ZeroDivisionError):
        write_tsv(path, ("id",), ((str(1 // left),) for left in (1, 0)))
    assert path.read_text() == "id\n1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.tsv"]


def test_gzipped_files_of_the_same_text_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.tsv.gz", "b.tsv.gz"):
        write_tsv(tmp_path / name, ("id",), [("1",)])
    assert (tmp_path / "a.tsv.gz").read_bytes() == (tmp_path / "b.tsv.gz").read_bytes()


def test_a_table_is_written_only_as_what_its_name_says(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"written as TSV. Fix: end its name in .tsv"):
        write_tsv(tmp_path / "a.csv", ("id",), [])


@given(st.lists(st.tuples(st.text('"\t\n\r a', max_size=6) | st.text(max_size=9), st.text(max_size=9)), max_size=6))
def test_a_written_tsv_reads_back_each_row_on_its_line(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("tsv") / "a.tsv"
    write_tsv(path, ("a", "b"), cells)
    want = [Row(line, {"a": one_line(a), "b": one_line(b)}) for line, (a, b) in enumerate(cells, 2)]
    assert rows_of(path) == want


CELL = st.text('",;\n\r\t a\0', max_size=6) | st.text(max_size=9)
"""Texts of all that means something to a reader, and any others."""


@given(st.lists(st.tuples(CELL, CELL), max_size=6), st.booleans())
def test_what_python_writes_as_csv_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str]], packed: bool
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("a", "b"), *cells])
    path = tmp_path_factory.mktemp("csv") / ("a.csv.gz" if packed else "a.csv")
    raw = text.getvalue().encode()
    path.write_bytes(gzip.compress(raw) if packed else raw)
    assert [row.cells for row in rows_of(path)] == [{"a": a, "b": b} for a, b in cells]


SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | CELL
JSON = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CELL, inner, max_size=3))


@given(st.lists(st.dictionaries(CELL, JSON, max_size=4), min_size=1, max_size=4), st.booleans())
def test_what_python_writes_as_jsonl_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, object]], ascii_only: bool
) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    path.write_bytes("\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows).encode())
    assert rows_of(path) == [Row(line, row) for line, row in enumerate(rows, 1)]


@given(
    st.lists(st.tuples(st.none() | CELL, st.none() | st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False))),
    st.sampled_from(["none", "snappy", "zstd"]),
)
def test_what_pyarrow_writes_as_parquet_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str | None, int | None, float]], compression: str
) -> None:
    path = tmp_path_factory.mktemp("parquet") / "a.parquet"
    schema = pa.schema([("text", pa.string()), ("whole", pa.int64()), ("number", pa.float64())])
    want = [dict(zip(schema.names, row, strict=True)) for row in cells]
    pq.write_table(pa.Table.from_pylist(want, schema), path, compression=compression)
    assert rows_of(path) == [Row(line, row) for line, row in enumerate(want, 1)]
