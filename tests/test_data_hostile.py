"""What careless and hostile files are told: every one an error that names the place, the value and the fix."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gram.data import files
from gram.data.catalogue import read_products, write_products
from gram.data.log import read_log, read_qrels, read_queries
from gram.data.tables import read_table, write_tsv
from gram.errors import BadRow, DataError
from gram.records import Product

HEAD = "product_id,title,price\n"
ROW = '{"product_id": %s, "title": "x", "price": %s, "attributes": %s}'
LARGE = "9" * 5000
DEEP = "[" * 100_000 + "]" * 100_000

HOSTILE = [
    # ids that one room keeps and another changes
    (
        "a.csv",
        HEAD + "7\0,x,1\n",
        "line 2, column 'product_id': the control character U+0000 in an id (value: '7\\x00')",
    ),
    (
        "a.jsonl",
        ROW % ('"a\\u001b[31m"', 1, "{}"),
        "line 1, column 'product_id': the control character U+001B in an id",
    ),
    ("a.jsonl", ROW % ('"a\\tb"', 1, "{}"), "line 1, column 'product_id': the control character U+0009 in an id"),
    ("a.csv", HEAD + "\u200b,x,1\n", "line 2, column 'product_id': no product_id (value: '\\u200b')"),
    ("a.jsonl", ROW % ("1e20", 1, "{}"), "line 1, column 'product_id': a float, which may have lost digits of the id"),
    ("a.jsonl", ROW % ("9007199254740993.0", 1, "{}"), "a float, which may have lost digits of the id"),
    ("a.jsonl", ROW % ("1.10", 1, "{}"), "lost digits of the id (value: '1.1') Fix: write ids as text"),
    # numbers
    ("a.csv", HEAD + "1,x,1_000\n", "line 2, column 'price': not a number (value: '1_000') Fix: write a plain number"),
    ("a.csv", HEAD + '1,x,"1,000"\n', "line 2, column 'price': not a number (value: '1,000')"),
    ("a.csv", HEAD + "1,x,nan\n", "line 2, column 'price': not a number (value: 'nan')"),
    ("a.csv", HEAD + "1,x,-inf\n", "line 2, column 'price': not a number (value: '-inf')"),
    ("a.csv", HEAD + "1,x,１２\n", "line 2, column 'price': not a number (value: '１２')"),
    ("a.csv", HEAD + f"1,x,{LARGE}\n", "line 2, column 'price': not a finite number (value: '9999"),
    ("a.jsonl", ROW % (1, "Infinity", "{}"), "line 1, column 'price': not a finite number (value: 'inf')"),
    ("a.jsonl", ROW % (1, LARGE, "{}"), "line 1: broken JSON, a number of 5000 digits, 999999999999… (value: '{\"prod"),
    (
        "a.jsonl",
        ROW % (1, 1, json.dumps('{"a": ' + LARGE + "}")),
        "column 'attributes': not a JSON object, a number of",
    ),
    # nesting and names that stand twice
    ("a.jsonl", ROW % (1, 1, DEEP), "line 1: broken JSON, lists or objects nested too deep"),
    ("a.jsonl", ROW % (1, 1, json.dumps(DEEP)), "column 'attributes': not a JSON object, lists or objects nested too"),
    (
        "a.jsonl",
        '{"product_id": 1, "title": ' + "[" * 500 + "]" * 500 + "}",
        "column 'title': a list where text belongs",
    ),
    ("a.jsonl", '{"product_id": 1, "title": "x", "title": "y"}', "line 1: broken JSON, 'title' stands twice in one"),
    ("a.jsonl", ROW % (1, 1, '{"a": 1, "a": 2}'), "line 1: broken JSON, 'a' stands twice in one object"),
    (
        "a.csv",
        'product_id,title,attributes\n1,x,"{""a"":1,""a"":2}"\n',
        "column 'attributes': not a JSON object, 'a' st",
    ),
    (
        "a.csv",
        "product_id,title,Title\n1,x,y\n",
        "line 2, column 'Title': column 'title' is the title, too (value: 'y')",
    ),
    (
        "a.jsonl",
        '{"sku": 1, "title": "x"}\n{"sku": 2, "Title": "y", "title": "z"}',
        "line 2, column 'title': column 'Title' is the title, too (value: 'z') Fix: rename one of the two.",
    ),
    # texts that nobody sees, and cells longer than Python's csv reads
    ("a.csv", HEAD + "1,\u200b\ufeff \u200d,1\n", "line 2, column 'title': no title"),
    ("a.csv", HEAD + "1,\u3164,1\n", "line 2, column 'title': no title"),
    ("a.csv", HEAD + "1," + "x" * 131_073 + ",1\n", "line 2: broken row, field larger than field limit (131072)"),
    ("a.csv", HEAD + "1," + "x" * 131_073 + ",1\n", "if it is so long, write the table as JSONL"),
    (
        "a.csv",
        HEAD + '1,"' + "x\n" * 99_999,
        "line 2: broken row, field larger than field limit (131072) (value: '1,\"x')",
    ),
    ("a.tsv", 'product_id\ttitle\n1\t"' + "x" * 131_073 + '"\n', "line 2: broken row, field larger than field limit"),
    # files that are not what their names say
    (
        "a.csv",
        (HEAD + "1,x,1\n").encode("utf-16-le"),
        "is in UTF-16, without a byte order mark. Fix: convert it: iconv -f utf-16le",
    ),
    (
        "a.csv",
        (HEAD + "1,é,1\n").encode("utf-16-be"),
        "is in UTF-16, without a byte order mark. Fix: convert it: iconv -f utf-16be",
    ),
    ("a.csv", gzip.compress(HEAD.encode()), "is gzipped. Fix: call it 'a.csv.gz'."),
    (
        "a.csv",
        b"PK\x03\x04....",
        "is a zip archive or a spreadsheet. Fix: call it 'a.csv.zip', or save the spreadsheet as",
    ),
    ("a.jsonl", b"PAR1....", "is Parquet. Fix: end its name in .parquet."),
    (
        "a.csv.gz",
        HEAD,
        "cannot be unpacked: Not a gzipped file (b'pr'). Fix: copy it again, it is cut short or damaged; if",
    ),
    (
        "a.tsv",
        HEAD + "1,x,1\n",
        "Fix: separate the columns by what the file's ending says, or change it; this one uses ','.",
    ),
    ("a.csv", HEAD.replace(",", "\t"), "or change it; this one uses '\\t'."),
    ("a.csv", "product_id,title\r1,x\r", "line 1: broken row, new-line character seen in unquoted field"),
    ("a.csv", "product_id,title,\x1b[31m\n1,x\n", "line 2, column '\\x1b[31m': 2 fields where 3 belong"),
]


@pytest.mark.parametrize(("name", "content", "says"), HOSTILE, ids=[str(n) for n in range(len(HOSTILE))])
def test_a_hostile_catalogue_is_told_what_to_mend(tmp_path: Path, name: str, content: str | bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        read_products(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert says in message
    assert " Fix: " in message
    assert message.isprintable()


def test_a_value_too_deep_to_be_shown_is_still_named() -> None:
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    assert str(BadRow("a.jsonl", 2, "not text", "mend it.", "title", value)) == (
        "a.jsonl: line 2, column 'title': not text (value: a deeply nested list) Fix: mend it."
    )


@pytest.mark.parametrize(
    ("price", "number"), [("1e3", 1000.0), (" 12 ", 12.0), (".5", 0.5), ("5.", 5.0), ("+1.5", 1.5), ("", None)]
)
def test_plain_numbers_are_read(tmp_path: Path, price: str, number: float | None) -> None:
    (tmp_path / "a.csv").write_text(HEAD + f"1,x,{price}\n")
    assert read_products(tmp_path / "a.csv")[0].price == number


@pytest.mark.parametrize(("given", "read"), [("1234567", "1234567"), ("1234567.0", "1234567"), ('"1.10"', "1.10")])
def test_whole_numbers_and_texts_are_ids(tmp_path: Path, given: str, read: str) -> None:
    (tmp_path / "a.jsonl").write_text(ROW % (given, 1, "{}"))
    assert read_products(tmp_path / "a.jsonl")[0].product_id == read


def test_ids_are_checked_in_logs_queries_and_judgements_too(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("log.tsv", "queries.tsv", "qrels.tsv")]
    for path, text in zip(paths, ("query\tproduct_id\nq\ta\0\n", "q\0\tred\n", "q\ta\0\t1\n"), strict=True):
        path.write_text(text)
    for path, read in zip(paths, (lambda path: read_log(path, ["a"]), read_queries, read_qrels), strict=True):
        with pytest.raises(BadRow, match=r"the control character U\+0000 in an id"):
            read(path)


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (pa.array([7.0, 1e17]), "line 2, column 'product_id': a float, which may have lost digits of the id"),
        (
            pa.array([7.0, 16777217.0], pa.float32()),
            "line 2, column 'product_id': a float, .* digits of the id .*'16777216.0'",
        ),
    ],
)
def test_float_ids_of_parquet_are_read_while_they_are_exact(tmp_path: Path, ids: pa.Array, says: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"product_id": ids, "title": ["x", "y"]}), path)
    with pytest.raises(BadRow, match=says):
        read_products(path)
    pq.write_table(pa.table({"product_id": ids.slice(0, 1), "title": ["x"]}), path)
    assert read_products(path) == [Product("7", "x")]


def test_parquet_with_a_name_twice(tmp_path: Path) -> None:
    path, column = tmp_path / "a.parquet", pa.array(["1"])
    pq.write_table(pa.Table.from_arrays([column] * 3, names=["product_id", "title", "title"]), path)
    with pytest.raises(DataError, match=r"names the column 'title' twice. Fix: rename one of them."):
        read_products(path)
    twice = pa.array([[("a", "1"), ("a", "2")]], pa.map_(pa.string(), pa.string()))
    pq.write_table(pa.table({"product_id": column, "title": column, "attributes": twice}), path)
    with pytest.raises(BadRow, match=r"line 1, column 'attributes': 'a' stands twice in one map"):
        read_products(path)


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_a_damaged_body_of_parquet_is_told_from_a_damaged_end(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"product_id": [str(n) for n in range(99)], "title": ["needle", *["x"] * 98]})
    pq.write_table(table, path, compression=compression, write_page_checksum=True)
    raw = path.read_bytes()
    body = raw.replace(b"needle", b"noodle", 1)
    for damaged in (body, raw[:4] + bytes(200) + raw[204:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"cannot be read behind row 0: .* Fix: copy or write it again"):
            read_products(path)
    start = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")  # where the description of the body begins
    path.write_bytes(raw[:start] + bytes(100) + raw[start + 100 :])
    with pytest.raises(DataError, match="is not Parquet: "):
        read_products(path)


def test_what_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_UNPACKED", 2**20)
    log = b"query,product_id\n" + b"red shoe,1\n" * 200_000  # 2.2 MB, 5 kB when packed
    for name in ("log.csv.gz", "log.csv.zip"):
        path = tmp_path / name
        if name.endswith("gz"):
            path.write_bytes(gzip.compress(log))
        else:
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("log.csv", log)
        with pytest.raises(
            DataError, match=r"unpacks to more than 1 MiB and 200 times its size. Fix: .* unpack it yours"
        ):
            read_log(path, ["1"])
    (tmp_path / "log.csv").write_bytes(log)
    assert len(read_log(tmp_path / "log.csv", ["1"])) == 200_000
    monkeypatch.setattr(files, "MAX_RATIO", 1000)
    assert len(read_log(tmp_path / "log.csv.gz", ["1"])) == 200_000
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress(bytes(2**22)))
    with pytest.raises(DataError, match="unpacks to more than 1 MiB"):
        read_products(tmp_path / "a.parquet.gz")


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_LINE", 2**20)
    (tmp_path / "a.jsonl").write_bytes(b'{"id": 1}\n' + b" " * (2**20 + 1))
    with pytest.raises(BadRow, match="line 2: more than 1 MiB without a line break"):
        list(read_table(tmp_path / "a.jsonl").rows)
    (tmp_path / "a.jsonl").write_bytes(b'{"id": 1}\n' + b" " * (2**20 - 8) + b'{"a": 1}')
    assert len(list(read_table(tmp_path / "a.jsonl").rows)) == 2


def test_links_in_a_circle_and_a_file_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").symlink_to(tmp_path / "b.csv")
    (tmp_path / "b.csv").symlink_to(tmp_path / "a.csv")
    with pytest.raises(
        DataError, match=r"a.csv: cannot be read: Too many levels of symbolic links. Fix: check the name"
    ):
        read_products(tmp_path / "a.csv")
    (tmp_path / "c.csv").write_text(HEAD)
    with pytest.raises(DataError, match=r"cannot be read: Not a directory"):
        read_products(tmp_path / "c.csv" / "d.csv")
    with pytest.raises(DataError, match=r"cannot be written: .* Fix: check the name, the right to write there"):
        write_tsv(tmp_path / "c.csv" / "d.tsv", ["a"], [])


def test_no_permission_and_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.csv").write_text(HEAD)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(DataError, match=r"a.csv: may not be read. Fix: give yourself the right to read it"):
            read_products(tmp_path / "a.csv")
        with pytest.raises(DataError, match=r"a.jsonl: cannot be written: Permission denied. Fix: check the name"):
            write_products(tmp_path / "a.jsonl", [Product("1", "x")])
    full = Path("/dev/full")
    if full.exists():
        (tmp_path / "full.tsv").symlink_to(full)
        with pytest.raises(DataError, match=r"full.tsv: cannot be written: No space left on device"):
            write_tsv(tmp_path / "full.tsv", ["a"], [["x"]] * 10_000)
