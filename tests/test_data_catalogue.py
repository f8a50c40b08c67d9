"""Catalogues: every column and format, the errors, and that what is written reads back the same."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gram.data.catalogue import iter_products, read_products, write_products
from gram.data.files import one_line
from gram.errors import BadRow, DataError, MissingColumn
from gram.records import Product

SHOE = Product(
    "7",
    "Air Zoom",
    brand="Nike",
    category=("Shoes", "Running"),
    description="Light.",
    price=99.5,
    value=-2.0,
    attributes={"fit": ("wide", "tall"), "color": ("red", "blue")},
)
BARE = Product("8", "Sock")


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "id,name,manufacturer,category_path,product_description,price,value,attributes,color\n"
        '7,Air Zoom ,Nike,Shoes > Running,Light.,99.5,-2,"{""fit"": ""wide|tall""}",red | blue|red\n'
        "8,Sock,,,,,,,\n"
    )
    assert read_products(path) == [SHOE, BARE]


def test_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    shoe = {"sku": 7, "title": "Air Zoom", "brand": "Nike", "category": ["Shoes", "Running"], "description": "Light."}
    shoe |= {"price": 99.5, "value": "-2", "attributes": {"fit": ["wide", "tall"]}, "color": ["red", None, "blue"]}
    path.write_text(json.dumps(shoe) + "\n" + json.dumps({"sku": 8, "title": "Sock", "price": None}))
    assert read_products(path, progress=True) == [SHOE, BARE]


@pytest.mark.parametrize(
    "kind", [pa.map_(pa.string(), pa.list_(pa.string())), pa.struct([("fit", pa.list_(pa.string()))])]
)
def test_parquet_with_a_map_or_a_struct(tmp_path: Path, kind: pa.DataType) -> None:
    path = tmp_path / "a.parquet"
    columns = {
        "product_id": pa.array([7.0, 8.0]),  # a number column with gaps is one of floats to pandas
        "title": pa.array(["Air Zoom", "Sock"]),
        "brand": pa.array(["Nike", None]),
        "category": pa.array([["Shoes", "Running"], None]),
        "description": pa.array(["Light.", ""]),
        "price": pa.array([99.5, float("nan")]),
        "value": pa.array([-2, None]),
        "attributes": pa.array([{"fit": ["wide", "tall"]}, None], type=pa.struct([("fit", pa.list_(pa.string()))])),
        "color": pa.array(["red|blue", None]),
    }
    if pa.types.is_map(kind):
        columns["attributes"] = pa.array([[("fit", ["wide", "tall"])], None], type=kind)
    pq.write_table(pa.table(columns), path)
    assert read_products(path) == [SHOE, BARE]


def test_only_the_bar_splits_a_string_and_lists_are_not_split(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"product_id": "1", "title": "t", "size": "1/2 in.; 5, 6 | 7", "note": ["a|b"], "wet": true, "n": 2.0}'
    )
    (product,) = read_products(path)
    assert product.attributes == {"size": ("1/2 in.; 5, 6", "7"), "note": ("a|b",), "wet": ("true",), "n": ("2",)}


def test_a_name_in_the_map_and_among_the_columns_has_the_values_of_both(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"product_id": "1", "title": "t", "color": "red", "attributes": {"color": ["blue", "red"]}}')
    assert read_products(path)[0].attributes == {"color": ("blue", "red")}


HEAD = "product_id,title,price,value,attributes,category\n1,Shoe,,,,\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (HEAD + "2,Hat,,,,\n1,Belt,,,,\n", ["line 4, column 'product_id'", "'1' is on line 2 already", "(value: '1')"]),
        (HEAD + " ,Hat,,,,\n", ["line 3, column 'product_id': no product_id (value: ' ')", "leave the row out"]),
        (HEAD + "2,,,,,\n", ["line 3, column 'title': no title", "fill it in"]),
        (HEAD + "2,Hat,$5,,,\n", ["line 3, column 'price': not a number (value: '$5')", "such as 12.99"]),
        (HEAD + "2,Hat,-5,,,\n", ["line 3, column 'price': a price below zero (value: '-5')"]),
        (HEAD + "2,Hat,,inf,,\n", ["line 3, column 'value': not a number (value: 'inf')"]),
        (
            HEAD + "2,Hat,,,red,\n",
            ["line 3, column 'attributes': not a JSON object, Expecting value at character 1 (value: 'red')"],
        ),
        (HEAD + "2,Hat,,,[1],\n", ["line 3, column 'attributes': not a map", "'[1]'"]),
        ('{"sku": "1", "title": ["a"]}', ["line 1, column 'title': a list where text belongs (value: \"['a']\")"]),
        ('{"sku": {"a": 1}, "title": "a"}', ["line 1, column 'sku': a map where text belongs"]),
        ('{"sku": "1", "title": "a", "price": true}', ["line 1, column 'price': not a number (value: 'True')"]),
        ('{"sku": "1", "title": "a", "category": [["x"]]}', ["line 1, column 'category': not one path"]),
        ('{"sku": "1", "title": "a", "size": [["x"]]}', ["line 1, column 'size': a list where values belong"]),
        ('{"sku": "1", "title": "a", "size": {"x": 1}}', ["line 1, column 'size': a map where values belong"]),
    ],
)
def test_errors_name_line_column_value_and_fix(tmp_path: Path, content: str, says: list[str]) -> None:
    path = tmp_path / ("a.jsonl" if content.startswith("{") else "a.csv")
    path.write_text(content)
    with pytest.raises(BadRow) as caught:
        read_products(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: line ")
    assert "Fix: " in message
    assert [part for part in says if part not in message] == []


def test_a_duplicate_after_a_quoted_line_break_names_both_true_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('product_id,title\n1,"two\nlines"\n2,b\n2,c\n')
    with pytest.raises(BadRow, match=r"line 5, .* '2' is on line 4 already"):
        read_products(path)


def test_a_catalogue_needs_rows_and_both_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("product_id,title\n")
    with pytest.raises(DataError, match="holds no products"):
        read_products(path)
    path.write_text("product_id,titel\n1,a\n")
    with pytest.raises(
        MissingColumn, match=r"no column 'title' .* found 'product_id', 'titel'. Fix: rename column 'titel'"
    ):
        read_products(path)


def test_products_come_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("product_id,title\n1,a\n,broken\n")
    assert next(iter_products(path)) == Product("1", "a")


def test_products_are_written_as_jsonl_alone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"end its name in .jsonl or .jsonl.gz"):
        write_products(tmp_path / "a.csv", [SHOE])


LINE = st.text(max_size=8).map(one_line)
FILLED = LINE.filter(bool)
ID = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=8).map(one_line).filter(bool)
NUMBER = st.none() | st.floats(allow_nan=False, allow_infinity=False)
PRODUCT = st.builds(
    Product,
    product_id=ID,
    title=FILLED,
    brand=LINE,
    category=st.lists(FILLED, max_size=3).map(tuple),
    description=st.text(max_size=12).map(str.strip),
    price=st.none() | st.floats(0, allow_infinity=False),
    value=NUMBER,
    attributes=st.dictionaries(FILLED, st.lists(FILLED, min_size=1, max_size=3, unique=True).map(tuple), max_size=3),
)


@given(st.lists(PRODUCT, min_size=1, max_size=4, unique_by=lambda product: product.product_id), st.booleans())
def test_written_products_read_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, products: list[Product], packed: bool
) -> None:
    path = tmp_path_factory.mktemp("products") / ("a.jsonl.gz" if packed else "a.jsonl")
    write_products(path, products)
    assert read_products(path) == products


def test_half_an_emoji_is_no_reason_to_fail_later(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"product_id": 1, "title": "Party \\ud83c"}\n{"product_id": 2, "title": "Caf\u00e9 \\ud83c\\udf89"}\n'
    )
    titles = [product.title for product in read_products(path)]
    assert titles == ["Party \ufffd", "Caf\u00e9 \U0001f389"]
    assert all(title.encode() for title in titles)
