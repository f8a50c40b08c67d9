"""The codes that there are: which ones, in what order, and how many products have each."""

from __future__ import annotations

import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from gram.errors import SettingError
from gram.records import Attribute, Product
from gram.shop import Shop


def test_each_code_has_as_many_products_as_its_filter_finds(shop: Shop) -> None:
    """After changes of products and of their codes as well."""
    shop.update([Product("c1", "Black zumbrel sofa"), Product("c2", "Red sofa")])
    shop.edit_code("c2", "colour", "black", True)
    shop.edit_code("c1", "type", "sofa", False)
    shop.delete([str(shop.live.searcher.index.table.ids[0])])
    listed = shop.list_codes(limit=10_000)
    assert listed.found == len(listed.codes) == len(shop.live.searcher.lexicon) == sum(listed.slots.values())
    for code, products in listed.codes:
        assert shop.search("", filter=f'code = "{code}"').found == products, code
    assert listed.codes == sorted(listed.codes, key=lambda one: (-one.products, one.code))
    shop.delete(["c1", "c2"])


def test_of_a_slot_by_their_beginnings_in_parts(shop: Shop) -> None:
    every = shop.list_codes(limit=10_000)
    colours = [one for one in every.codes if one.code.slot == "colour"]
    listed = shop.list_codes(" Colour ")
    assert (listed.codes, listed.found, listed.slots) == (colours[:100], len(colours), every.slots)
    assert shop.list_codes("colour", limit=2, offset=1).codes == colours[1:3]
    assert list(every.slots.values()) == sorted(every.slots.values(), reverse=True)
    black = shop.list_codes(prefix="BLA")
    assert Attribute("colour", "black") in [one.code for one in black.codes]
    assert all(one.code.value.startswith("bla") for one in black.codes)
    assert sum(black.slots.values()) == black.found < every.found
    assert shop.list_codes("colour", "zzz") == shop.list_codes("colour", "!?") == ([], 0, {})


def test_their_beginnings_are_read_as_a_filter_reads_values(shop: Shop) -> None:
    """In any form of their words."""
    values = sorted({one.code.value for one in shop.list_codes(limit=10_000).codes})
    pairs = [words for words in values if re.fullmatch("[a-z]+ [a-z]+[^aeiosuxyz]", words)]
    assert len(pairs) > 10
    for words in pairs:
        first, last = words.split()
        for prefix in (f"{first.upper()}-{last[:2]}", f" {first}   {last}s"):
            assert words in {one.code.value for one in shop.list_codes(limit=10_000, prefix=prefix).codes}, prefix
    assert "sofa" in {one.code.value for one in shop.list_codes(prefix=" Sofas").codes}


def test_what_cannot_be_listed_is_refused(shop: Shop) -> None:
    with pytest.raises(SettingError, match="no slot 'flavour'"):
        shop.list_codes("flavour")
    wrong: list[dict[str, Any]] = [{"limit": 10_001}, *({name: n} for name in ("limit", "offset") for n in (-1, 2.5))]
    for given in [*wrong, {"limit": True}, {"slot": None}, {"prefix": 5}]:
        with pytest.raises(SettingError, match=r"is .*\. Fix: give a (whole number|limit|text)"):
            shop.list_codes(**given)


def test_over_http(client: TestClient, shop: Shop) -> None:
    listed = shop.list_codes("colour", "b", 2)
    answer = client.get("/codes?slot=colour&prefix=b&limit=2").json()
    codes = [{"code": str(code), "products": products} for code, products in listed.codes]
    assert answer == {"codes": codes, "found": listed.found, "slots": listed.slots}
    assert len(client.get("/codes").json()["codes"]) == 100
    for wrong in ("slot=flavour", "limit=x", "limit=10001", "offset=-1", "colour=red"):
        assert client.get(f"/codes?{wrong}").status_code == 400, wrong
