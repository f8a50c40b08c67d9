"""Filters: what they let through against a slow reading, and errors that point at the character."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from gram.index.fields import Fields, facet, fold, to_number
from gram.index.filters import FilterError, parse_filter, quote
from gram.records import Product

SHELF = [
    Product("a", "Red shoe", brand="Nike", category=("Shoes", "Running"), price=50.0, attributes={"colour": ("red",)}),
    Product("b", "Blue shoe", brand="nike", category=("Shoes",), price=80.0, attributes={"colour": ("blue", "red")}),
    Product("c", "Sofa", brand="Acme & Sons", attributes={"size": ("72",), "seats": ("3",)}),
    Product("d", "Lamp", price=50.5),
]
FIELDS = Fields(SHELF)


def found(text: str, codes: dict[str, set[int]] | None = None) -> str:
    rows = parse_filter(text).rows(FIELDS, lambda code: BitMap((codes or {}).get(code, set())))
    return "".join(SHELF[row].product_id for row in rows)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", "abcd"),
        ("brand = nike", "ab"),
        ('brand="NIKE"', "ab"),
        ("brand != nike", "cd"),
        ("not brand = nike and price >= 50", "d"),
        ("price < 50.5", "a"),
        ("price <= 50.5", "ad"),
        ("price > 50", "bd"),
        ("price between 50 and 60", "ad"),
        ('colour IN ["red", blue]', "ab"),
        ("colour = blue OR size = 72.0", "bc"),
        ('category = "Shoes > Running"', "a"),
        ("category = shoes AND (price > 60 OR colour = green)", "b"),
        ("EXISTS size", "c"),
        ("NOT EXISTS price", "c"),
        ('brand = "Acme & Sons"', "c"),
        ("weight = 3", ""),
        ("brand = 'Acme & Sons' AND 'size' IN ['72','4 ft']", "c"),
        ("brand != 'nike' AND price=50.5", "d"),
        ("price < '50.5' OR code = 'type: sofa'", "ac"),
        ("category = 'Shoes > Running' or not('brand'='nike' or brand = 'Acme & Sons')", "ad"),
        ('code = "type: sofa"', "c"),
        ('NOT (code = "type: sofa" OR price = 50)', "bd"),
    ],
)
def test_what_a_filter_lets_through(text: str, ids: str) -> None:
    assert found(text, {"type: sofa": {2}}) == ids


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("brand = Levi's AND colour = 'dark blue'", ("Levi's", "dark blue")),
        ("brand = \"Levi's\" AND colour = 'dark blue'", ("Levi's", "dark blue")),
        ("brand = 'Levi's' AND colour = 'dark blue'", ("Levi's", "dark blue")),
        (r"brand = 'Rock \'n\' Roll' OR brand = '6\" pipe'", ("Rock 'n' Roll", '6" pipe')),
        ("brand IN [boys', '47, Levi's]", ("boys'", "'47", "Levi's")),
        ("brand = '47 AND brand != Levi's AND colour = 'dark blue'", ("'47", "Levi's", "dark blue")),
        ("brand = ''", ("",)),
        ("brand = '\\\\' OR brand = 'AND'", ("\\", "AND")),
    ],
)
def test_an_apostrophe_is_no_quotation_mark(text: str, values: tuple[str, ...]) -> None:
    assert tuple(value for _, value in parse_filter(text).values) == values


@pytest.mark.parametrize(
    ("text", "at", "says"),
    [
        ("brand", 6, "expected =, !=,"),
        ("brand =", 8, "expected a value, found the end"),
        ("brand = nike nike", 14, "expected AND, OR or the end"),
        ("price < cheap", 9, "expected a number, found 'cheap'"),
        ("price BETWEEN 1 2", 17, "expected AND and the upper end"),
        ('brand = "nike', 9, "a quotation mark that is not closed"),
        ("(brand = nike", 14, "a closing parenthesis"),
        ("colour IN red", 11, 'a list such as ["red", "blue"]'),
        ("colour IN [red", 15, "a comma or the end of the list"),
        ("AND brand = x", 1, "the name of a field"),
        ("brand ! nike", 7, "means nothing here"),
        ("brand = nike AND EXISTS Code", 25, "expected a field, which code is not, found 'Code'"),
        ("code < 5", 6, "expected =, != or IN behind code"),
        ("code BETWEEN 1 AND 2", 6, "expected =, != or IN behind code"),
        ("(" * 60 + "a = b", 41, "no more than 40 parentheses"),
        ("a = b" * 2000, 4001, "at most 4000 characters"),
    ],
)
def test_an_error_points_at_the_character(text: str, at: int, says: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse_filter(text)
    assert caught.value.at == at
    assert says in str(caught.value)
    assert "Fix: write it as" in str(caught.value)


def test_a_filter_tells_what_it_asks() -> None:
    asked = parse_filter('brand = Nike AND (code = "type: sofa" OR NOT size IN [4, 5, 4]) AND price < 5')
    assert asked.names == ("brand", "code", "size", "price")
    assert (asked.codes, asked.values) == (("type: sofa",), (("brand", "Nike"), ("size", "4"), ("size", "5")))
    assert asked.sized == ("price",)


def test_a_product_with_several_numbers_counts_as_its_last_one() -> None:
    """Whichever of them other products had first."""
    sizes = [("20",), ("10", "20"), ("20", "10"), ("10", "wide")]
    fields = Fields(Product(str(n), "x", attributes={"size": values}) for n, values in enumerate(sizes))
    assert [fields.sort_value("size", row) for row in range(4)] == [20, 20, 10, 10]


def test_a_field_goes_before_an_attribute_of_its_name() -> None:
    named = dict.fromkeys(("price", "value", "brand"), ("9",))
    lamps = [Product("a", "Lamp", brand="Acme", price=500.0, value=2.0, attributes=named)]
    fields = Fields([*lamps, Product("b", "Lamp", attributes=named)])
    for text, row in (("price < 10", 1), ("price = 500", 0), ("value = 9", 1), ("value < 5", 0), ("brand = 9", 1)):
        assert set(parse_filter(text).rows(fields, lambda _: BitMap())) == {row}
    assert (fields.sort_value("price", 0), fields.sort_value("value", 0)) == (500, 2)
    counted = facet([(fields, BitMap([0]))], "price")
    assert (counted["values"], counted["max"]) == ({}, 500)


def test_a_value_is_shown_as_it_was_first_written() -> None:
    fields = Fields(Product(str(n), "x", brand=brand) for n, brand in enumerate(["NIKE", "Nike", "nike ", "Acme"]))
    assert facet([(fields, fields.every())], "brand")["values"] == {"NIKE": 3, "Acme": 1}


def test_values_are_one_in_whatever_form_unicode_writes_them() -> None:
    """A letter with its mark (NFC), or the letter and a mark behind it (NFD); and wide letters."""
    cafes = ["caf\u00e9", "cafe\u0301", "CAFE\u0301", "\uff23afe\u0301"]
    fields = Fields(Product(str(n), "x", brand=brand) for n, brand in enumerate([*cafes, "\u03aa\u0301", "\u0390"]))
    assert facet([(fields, fields.every())], "brand")["values"] == {"caf\u00e9": 4, "\u03aa\u0301": 2}
    for cafe in cafes:
        assert set(parse_filter(f"brand IN [{cafe}, x]").rows(fields, lambda _: BitMap())) == {0, 1, 2, 3}
    assert {fields.columns["brand"].first[row] for row in range(4)} == {"caf\u00e9"}, "what distinct goes by"
    others = Fields([Product("z", "x", brand="cafe\u0301")])
    both = facet([(fields, fields.every()), (others, others.every())], "brand")["values"]
    assert both["caf\u00e9"] == 5, "of several segments too"


def test_folding_a_value_of_many_marks_takes_no_minutes() -> None:
    begin = time.process_time()
    assert fold("a" + "\u0301\u0316" * 100_000)
    assert time.process_time() - begin < 10


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        rows, at = parse_filter(text).rows(FIELDS, lambda _: BitMap()), 1
    except FilterError as error:
        rows, at = BitMap(), error.at
    assert 1 <= at <= len(text) + 1
    assert set(rows) <= {0, 1, 2, 3}


@given(st.text(min_size=1, max_size=20))
def test_a_quoted_value_is_read_back(value: str) -> None:
    fields = Fields([Product("a", "x", attributes={"kind": (value,)}), Product("b", "y")])
    assert set(parse_filter(f"kind = {quote(value)}").rows(fields, lambda _: BitMap())) == {0}


COMPARISONS = st.sampled_from(
    [
        ("price < 60", lambda p: p.price is not None and p.price < 60),
        ("brand = nike", lambda p: p.brand.lower() == "nike"),
        ("EXISTS size", lambda p: "size" in p.attributes),
        ("colour = red", lambda p: "red" in p.attributes.get("colour", ())),
    ]
)
TREES = st.recursive(
    COMPARISONS,
    lambda inner: st.one_of(
        st.tuples(st.just("NOT"), inner),
        st.tuples(st.sampled_from(["AND", "OR"]), inner, inner),
    ),
    max_leaves=6,
)


def as_text(tree: Any) -> str:
    if tree[0] == "NOT":
        return f"NOT ({as_text(tree[1])})"
    if tree[0] in ("AND", "OR"):
        return f"({as_text(tree[1])}) {tree[0]} ({as_text(tree[2])})"
    return str(tree[0])


def lets_through(tree: Any, product: Product) -> bool:
    if tree[0] == "NOT":
        return not lets_through(tree[1], product)
    if tree[0] in ("AND", "OR"):
        both = [lets_through(part, product) for part in tree[1:]]
        return all(both) if tree[0] == "AND" else any(both)
    return bool(tree[1](product))


@given(TREES)
def test_trees_of_comparisons_against_a_slow_reading(tree: Any) -> None:
    assert found(as_text(tree)) == "".join(p.product_id for p in SHELF if lets_through(tree, p))


def test_facets_count_values_and_ranges() -> None:
    counted = facet([(FIELDS, BitMap([0, 1])), (FIELDS, BitMap([2]))], "colour")
    assert counted == {"values": {"red": 2, "blue": 1}}
    prices = facet([(FIELDS, FIELDS.every())], "price")
    assert (prices["min"], prices["max"]) == (50.0, 80.0)
    assert sum(part["count"] for part in prices["ranges"]) == 3
    assert facet([(FIELDS, FIELDS.every())], "unknown") == {"values": {}}


@pytest.mark.parametrize(
    ("prices", "counts"),
    [
        ([5, 5], [2]),
        ([0.001, 0.002, 0.004], [3]),
        ([1, 2, 3, 50, 50, 60, 70, 80], [2, 1, 2, 1, 2]),
        (range(11), [2] * 4 + [3]),
        ([-1.7e308, 1.7e308, 1.7e308], [3]),
        ([0, 1, 2, 3, 1.7e308, 1.7e308], [1, 1, 2, 2]),
    ],
)
def test_ranges_count_what_filters_of_them_let_through(prices: Sequence[float], counts: list[int]) -> None:
    """Each price in one: a range holds its lower end, the last one its upper end too."""
    fields = Fields([Product(str(row), "", price=price) for row, price in enumerate(prices)])
    ranges = facet([(fields, fields.every())], "price")["ranges"]
    signs = ["<"] * (len(ranges) - 1) + ["<="]
    filters = [
        f"price >= {one['from']!r} AND price {sign} {one['to']!r}" for one, sign in zip(ranges, signs, strict=True)
    ]
    through = [len(parse_filter(text).rows(fields, lambda _: BitMap())) for text in filters]
    assert through == [one["count"] for one in ranges] == counts


@pytest.mark.parametrize(
    ("text", "number"), [("12", 12.0), (" -0.5 ", -0.5), ("1e3", 1000.0), ("12 in", None), ("nan", None)]
)
def test_which_values_are_numbers(text: str, number: float | None) -> None:
    assert to_number(text) == number
