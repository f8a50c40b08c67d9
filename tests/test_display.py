"""Why a hit was found, as a terminal shows it: no shared code is left out."""

from __future__ import annotations

from gram.display import format_hit
from gram.records import Attribute, Hit, SharedCode
from gram.shop import Shop


def shared(value: str, share: float) -> SharedCode:
    return SharedCode((Attribute("type", value),), 1.0, 0.5, "lexical", "expansion", share)


def test_codes_that_weigh_nothing_come_last() -> None:
    hit = Hit("a1", 1.0, "Sofa", codes=(shared("sofa", 0.25), shared("couch", 0.0), shared("settee", -0.0001)))
    assert format_hit(hit).splitlines() == [
        "        25.0%  type: sofa  (query lexical 1.00 × product expansion 0.50)",
        "         0.0%  type: couch  (query lexical 1.00 × product expansion 0.50)",
        "         0.0%  type: settee  (query lexical 1.00 × product expansion 0.50)",
    ]


def test_more_than_eight_codes_are_named() -> None:
    hit = Hit("a1", 1.0, "Sofa", codes=tuple(shared(f"sofa {i}", 0.0) for i in range(10)))
    assert len(format_hit(hit).splitlines()) == 9
    assert format_hit(hit).splitlines()[-1] == "         also  type: sofa 8, type: sofa 9"


def test_an_explanation_has_what_weighs_nothing(shop: Shop) -> None:
    searcher = shop.live.searcher
    title = searcher.index.table[3].title
    weightless = searcher.with_scorer(searcher.scorer.without(["codes"]))
    codes = weightless.search(title, k=1, explain=True)[0].codes
    whole = searcher.search(title, k=1, explain=True)[0].codes
    assert len(codes) > 1
    assert {c.code for c in codes} == {c.code for c in whole if len(c.code) == 1}
    assert not any(c.share for c in codes)
