"""Names that nobody has: what was asked by one is answered, and said."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from gram.errors import SettingError
from gram.names import GUESSED_WORDS, MOST, _guess_field
from gram.records import Product
from gram.shop import Shop

COLR = "no product has a field 'colr'. Fix: did you mean 'colour'?"
BLAKC = "no product has colour = 'blakc'. Fix: did you mean 'Black'?"
QQQ = "no product has colour = 'qqq'. Fix: ask for the facet 'colour' to see what there is"
GIVE = "give products a 'stock', or leave it out of the filter"
STOCK = f"no product has stock = 'some'. Fix: {GIVE}"
NUMBERLESS = [
    "no product has a number in 'colour'. Fix: compare it by = or IN, or price, value by size",
    f"no product has 'stock'. Fix: {GIVE}",
]
SOFE = "the lexicon has no code type: sofe. Fix: write type: sofa"


@pytest.mark.parametrize(
    ("asked", "warnings"),
    [
        ({"facets": ("brand", "colr"), "distinct": "colr"}, [COLR]),
        ({"distinct": " colour ", "facets": ("price",)}, []),
        ({"filter": 'NOT code = "type: sofe"'}, [SOFE]),
        ({"filter": 'code IN ["type: sofas", "type: sofa | type: sofe"] OR code != "type: sofe"'}, [SOFE]),
        ({"filter": 'code = "colour: sofa"'}, ["the lexicon has no code colour: sofa. Fix: write type: sofa"]),
        ({"filter": 'code = "color: black"'}, ["the lexicon has no code color: black. Fix: write colour: black"]),
        ({"filter": 'code = " COLOUR: Blacks"'}, []),
        ({"filter": "code = qqq"}, ["the lexicon has no code qqq. Fix: choose one that some product has"]),
        ({"filter": "NOT colour IN [black, blakc]"}, [BLAKC]),
        ({"filter": "colour = BLACK AND price = 3.33 AND colour != qqq"}, [QQQ]),
        ({"filter": "stock = some"}, [STOCK]),
        ({"filter": "NOT colour < 5 AND (colour BETWEEN 1 AND 2 OR price >= 5 OR stock > 2)"}, NUMBERLESS),
    ],
)
def test_an_answer_says_what_nobody_has(shop: Shop, asked: dict[str, Any], warnings: list[str]) -> None:
    for _ in range(2):  # remembered as well
        assert shop.search("sofa", **asked).warnings == warnings


def test_a_sort_by_what_is_no_field_is_told_what_there_is(shop: Shop) -> None:
    fields = ", ".join(sorted(shop.live.snapshot.field_names)[:30])
    for name in ("title", "description", "product_id", "score"):
        with pytest.raises(
            SettingError, match=f"^{name} is no field to sort by. Fix: .*choose from the fields "
        ) as told:
            shop.search("sofa", sort=f"-{name}")
        assert str(told.value).endswith(fields)
        assert ("the best first" in str(told.value)) == (name == "score")
    with pytest.raises(SettingError, match="sort is 'brand,price', and takes one field"):
        shop.search("sofa", sort="-brand,price")
    for nameless in ("-", "+", " - "):
        with pytest.raises(SettingError, match="sort lacks a field's name"):
            shop.search("sofa", sort=nameless)
    assert shop.search("sofa", sort="- price").hits == shop.search("sofa", sort="-price").hits


def test_a_sort_and_a_filter_by_such_a_field_are_refused_as_before(shop: Shop) -> None:
    for asked in ({"sort": "colr"}, {"sort": "-code "}, {"filter": "colr = red"}):
        with pytest.raises(SettingError, match="no product has a field 'co"):
            shop.search("sofa", **asked)  # type: ignore[arg-type]


def test_what_comes_is_warned_of_no_more(shop: Shop) -> None:
    asked: dict[str, Any] = {"facets": ("zumbrelity",), "filter": 'code = "brand: zumbrelin"'}
    assert len(shop.search("sofa", **asked).warnings) == 2
    shop.add_attribute("brand", "zumbrelin")
    shop.update(Product(key, "Zumbrelin sofa", attributes={"zumbrelity": (key,)}) for key in ("much", "little"))
    assert shop.search("sofa", **asked).warnings == []
    assert shop.search("sofa", filter="zumbrelity = much").warnings == []
    shop.delete(["much"])
    assert len(shop.search("sofa", filter="zumbrelity = much").warnings) == 1, "of what went as well"
    shop.delete(["little"])


def test_values_are_compared_with_so_many_alone(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many values a field has, and however many are asked that no product has."""
    looked_at: list[int] = []

    def note(sought: str, known: list[str], **options: Any) -> None:
        looked_at.append(len(known))

    monkeypatch.setattr("gram.names.LOOKED_AT", 30)
    monkeypatch.setattr("gram.names.process.extractOne", note)
    shop.update([Product("z", "Zumbrelin", attributes={"size": tuple(f"size {n}" for n in range(100))})])
    assert len(shop.search("sofa", filter=f"size IN [{', '.join('xyz')}]").warnings) == 3
    assert len(shop.search("sofa", filter=f"size IN [{', '.join('abcdefghijklmnopqrstuvw')}]").warnings) == MOST
    assert looked_at == [10] * 3 + [3] * MOST
    shop.delete(["z"])


def test_no_answer_says_more_than_it_should(shop: Shop) -> None:
    """However many names are sent, and however long they are."""
    assert len(shop.search("sofa", facets=[f"field {n}" for n in range(50)]).warnings) == MOST
    (warning,) = shop.search("sofa", distinct="x" * 100_000).warnings
    assert len(warning) < 500
    assert _guess_field("colr", frozenset()) == "leave it out"
    with pytest.raises(SettingError, match="a facet is 5"):
        shop.search("sofa", facets=(5,))


def test_a_rule_for_what_nobody_has_is_kept_and_said(shop: Shop) -> None:
    hide = {"action": "hide", "filter": 'code = "type: sofe"'}
    assert shop.warnings(shop.put_rule("r", hide | {"query": "sofa"})) == [SOFE]
    assert shop.warnings(shop.put_rule("r", hide | {"code": "type: sofa | type: sofe"})) == [SOFE]
    assert [rule.rule_id for rule in shop.rules()] == ["r"]
    form = shop.put_rule("r", {"action": "boost", "code": "Type:  sofas", "filter": 'code = "type: sofas"'})
    assert shop.warnings(form) == []
    assert shop.search("black sofa").rules == ["r"], "as the filter reads it"
    there = next(iter(shop.live.searcher.index.table.ids.tolist()))
    named = {"action": "hide", "query": "sofa", "products": [there, "gone"], "filter": "colour = blakc"}
    gone = "there is no product 'gone'. Fix: add it, or leave it out"
    assert shop.warnings(shop.put_rule("r", named)) == [BLAKC, gone]
    many = shop.put_rule("r", {"action": "pin", "query": "sofa", "products": [f"gone {n}" for n in range(99)]})
    assert len(shop.warnings(many)) == MOST
    shop.remove_rule("r")


def test_of_a_code_no_more_words_are_read_right_than_an_attribute_has(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is sought among all words of the shop, and a filter holds thousands."""
    read: list[str] = []
    monkeypatch.setattr(shop.live.searcher.speller, "correct", lambda word, _: read.append(word))
    words = " ".join(f"blakc{letter}" for letter in "abcdefghijklmnop")
    (warning,) = shop.search("sofa", filter=f'code = "colour: {words}"').warnings
    assert "the lexicon has no code colour: blakca" in warning
    assert read[1:] == words.split()[:GUESSED_WORDS]


def test_over_http(client: TestClient) -> None:
    nothing = client.get("/search", params={"q": "sofa", "facets": "colour", "fields": "price,score"}).json()
    assert nothing["warnings"] == []
    sent = {"q": "sofa", "facets": ["colr"], "fields": ["colr", "descripton"], "filter": 'NOT code = "type: sofe"'}
    described = "no product has a field 'descripton'. Fix: did you mean 'description'?"
    assert client.post("/search", json=sent).json()["warnings"] == [COLR, SOFE, described]
    rule = {"action": "boost", "code": "type: sofe", "filter": "price < 5"}
    assert client.put("/rules/r", json=rule).json() == rule | {"warnings": [SOFE]}
    assert client.get("/rules/r").json() == rule
    client.delete("/rules/r")
    tried = client.post("/rules/try", json={"q": "sofa", "rules": [rule, rule | {"filter": "colr = red"}]}).json()
    assert (tried["warnings"], tried["after"]["warnings"]) == ([SOFE, COLR], [])


def test_a_price_is_passed_over_and_said_where_no_product_has_one(shop: Shop) -> None:
    snapshot = shop.live.snapshot
    vars(snapshot)["field_names"] = snapshot.field_names - {"price"}
    found = shop.search("sofa under $1")
    told = "no product has a price: what the query says of one is passed over. Fix: give products a price"
    assert (found.read_as, found.warnings) == ("sofa", [told])
    assert [hit.product_id for hit in found.hits] == [hit.product_id for hit in shop.search("sofa").hits]
    assert shop.search("under $1").read_as == "under $1"
