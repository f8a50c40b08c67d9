"""The product table gives back what it was given, and reads one line for one product."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gram.data.catalogue import read_products
from gram.errors import IndexFolderError
from gram.index import table as tables
from gram.index.table import ProductTable
from gram.records import Product

SHELF = [
    Product("b7", "Oak desk"),
    Product(
        "größe-10 靴",
        'Boots, 12" „warm"\n\u2028 second line',
        brand="Velanto",
        category=("Shoes", "Boots"),
        description="Line one.\nLine two. 😀",
        price=0.0,
        value=-3.5,
        attributes={"colour": ("red", "blue"), "size": ("10",)},
    ),
    Product("a1", "Half an emoji \ud83d"),
]

text = st.text(max_size=12)
products = st.builds(
    Product,
    product_id=text.filter(lambda t: not t.endswith("\0")),
    title=text,
    brand=text,
    category=st.lists(text, max_size=3).map(tuple),
    description=text,
    price=st.none() | st.floats(allow_nan=False),
    value=st.none() | st.floats(allow_nan=False),
    attributes=st.dictionaries(text, st.lists(text, max_size=2).map(tuple), max_size=2),
)


@pytest.mark.parametrize("mmap", [True, False])
def test_saved_and_loaded_it_is_the_same(mmap: bool, tmp_path: Path) -> None:
    ProductTable.write(tmp_path, iter(SHELF))
    table = ProductTable.load(tmp_path, mmap)
    assert len(table) == 3
    assert [table[i] for i in range(3)] == list(table) == SHELF
    assert table.ids.tolist() == [product.product_id for product in SHELF]
    assert [table.row(product.product_id) for product in SHELF] == [0, 1, 2]
    assert {path.name for path in tmp_path.iterdir()} == {
        "products.jsonl",
        "products.offsets.npy",
        "products.ids.npy",
    }


@given(st.lists(products, max_size=5, unique_by=lambda product: product.product_id))
def test_any_text_comes_back(shelf: list[Product]) -> None:
    table = ProductTable.build(shelf)
    assert list(table) == shelf
    assert [table.row(product.product_id) for product in shelf] == list(range(len(shelf)))
    assert [table.title(i) for i in range(len(shelf))] == [product.title for product in shelf]
    assert bytes(table.lines).count(b"\n") == len(shelf)


def test_the_lines_are_a_catalogue(tmp_path: Path) -> None:
    shelf = [SHELF[0], Product("a1", "Boots", "Velanto", ("Shoes", "Boots"), "Warm.", 9.5, 2.0, {"size": ("9", "10")})]
    ProductTable.write(tmp_path, shelf)
    assert read_products(tmp_path / "products.jsonl") == shelf


def test_only_the_line_of_the_row_is_parsed(tmp_path: Path) -> None:
    ProductTable.write(tmp_path, SHELF)
    path = tmp_path / "products.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"title":"Oak desk"', b'"title":"Oak desk!'))
    table = ProductTable.load(tmp_path)
    assert table[1] == SHELF[1]
    with pytest.raises(IndexFolderError, match=r"products\.jsonl: line 1 .*Fix: "):
        table[0]


def test_all_of_a_large_table_are_those_of_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are parsed four at a time here, also where the last ones are fewer."""
    monkeypatch.setattr(tables, "_AT_ONCE", 4)
    shelf = [product._replace(product_id=f"{n}") for n, product in enumerate(SHELF * 3)]
    table = ProductTable.build(shelf)
    assert list(table) == [table[row] for row in range(9)] == shelf


@pytest.mark.parametrize("line", [b'{"product_id":"6"', b'{"title":"no id"}', b"[7]", b"", b'{"product_id":"6"},{}'])
def test_a_damaged_line_among_many_is_named(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_AT_ONCE", 4)
    whole = ProductTable.build(Product(str(n), "Hat") for n in range(9))
    rows = [whole.lines[whole.offsets[n] : whole.offsets[n + 1]] for n in range(9)]
    rows[6] = line + b"\n"
    offsets = np.cumsum([0, *map(len, rows)])
    read = iter(ProductTable(b"".join(rows), offsets, whole.ids))
    assert [next(read).product_id for _ in range(6)] == ["0", "1", "2", "3", "4", "5"]
    with pytest.raises(IndexFolderError, match="line 7 is not a product"):
        next(read)


def test_a_title_alone_is_that_of_the_product() -> None:
    table = ProductTable.build(SHELF)
    assert [table.title(i) for i in range(len(SHELF))] == [p.title for p in SHELF]
    with pytest.raises(IndexError, match="no product"):
        table.title(len(SHELF))
    damaged = ProductTable(b'["no product"]\n', np.array([0, 15]), np.array(["a"]))
    with pytest.raises(IndexFolderError, match=r"line 1 is not a product.*Fix"):
        damaged.title(0)
    line = b'{"product_id":"a","title":"\xff\xfe"}'
    with pytest.raises(IndexFolderError, match=r"line 1 is not a product.*Fix"):
        ProductTable(line, np.array([0, len(line)]), np.array(["a"])).title(0)


def test_a_table_without_products(tmp_path: Path) -> None:
    ProductTable.write(tmp_path, [])
    table = ProductTable.load(tmp_path)
    assert (len(table), list(table), table.ids.tolist()) == (0, [], [])


def test_attributes_may_be_any_mapping() -> None:
    product = Product("1", "Hat", attributes=MappingProxyType({"size": ("9",)}))
    assert ProductTable.build([product])[0].attributes == {"size": ("9",)}


def test_what_is_not_there() -> None:
    table = ProductTable.build(SHELF)
    with pytest.raises(KeyError, match="no product has the id 'b8'"):
        table.row("b8")
    for row in (-1, 3):
        with pytest.raises(IndexError, match="among 3"):
            table[row]


def test_ids_that_would_be_lost() -> None:
    with pytest.raises(ValueError, match="'b7' is there twice"):
        ProductTable.build([*SHELF, Product("b7", "Another")])
    with pytest.raises(ValueError, match="NUL"):
        ProductTable.build([Product("x\0", "Hat")])


@pytest.mark.parametrize("name", ["products.jsonl", "products.offsets.npy", "products.ids.npy"])
@pytest.mark.parametrize("mmap", [True, False])
def test_a_damaged_file_is_named_with_the_fix(name: str, mmap: bool, tmp_path: Path) -> None:
    ProductTable.write(tmp_path, SHELF)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(IndexFolderError, match=f"{name}.*Fix: "):
        ProductTable.load(tmp_path, mmap)
    path.unlink()
    with pytest.raises(IndexFolderError, match=f"{name}.*Fix: "):
        ProductTable.load(tmp_path, mmap)


def test_nothing_pickled_is_read(tmp_path: Path) -> None:
    ProductTable.write(tmp_path, SHELF)
    np.save(tmp_path / "products.ids.npy", np.array(["a", "b", "c"], dtype=object), allow_pickle=True)
    with pytest.raises(IndexFolderError, match=r"products\.ids\.npy"):
        ProductTable.load(tmp_path, mmap=False)
