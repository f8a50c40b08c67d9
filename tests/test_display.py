"""Why a hit was found, as a terminal shows it: no shared code is left out."""

from __future__ import annotations

import pytest

from gram.display import format_hit
from gram.records import Attribute, Hit, SharedCode
from gram.shop import Shop


def shared(value: str, share: float) -> SharedCode:
    return SharedCode((Attribute("type", value),), 1.0, 0.5, "lexical", "expansion", share)


def test_codes_of_shares_that_cannot_be_seen_are_named_in_one_line() -> None:
    hit = Hit("a1", 1.0, "Sofa", codes=(shared("sofa", 0.25), shared("couch", 0.0), shared("settee", -0.0001)))
    assert format_hit(hit).splitlines() == [
        "        25.0%  type: sofa  (query lexical 1.00 × product expansion 0.50)",
        "         also  type: couch, type: settee",
    ]


def test_the_shares_that_are_shown_are_all_there_are() -> None:
    """Many small ones are no small one: what is folded stands with its sum."""
    small = [shared(f"sofa {i}", 0.0004) for i in range(5)]
    hit = Hit("a1", 1.0, "Sofa", codes=(shared("sofa", 0.25), *small, shared("settee", -0.02)))
    lines = format_hit(hit).splitlines()
    assert lines == [
        "        25.0%  type: sofa  (query lexical 1.00 × product expansion 0.50)",
        "        -2.0%  type: settee  (query lexical 1.00 × product expansion 0.50)",
        "         0.2%  also type: sofa 0, type: sofa 1, type: sofa 2, type: sofa 3, type: sofa 4",
    ]
    percent = [float(line.partition("%")[0]) for line in lines]
    assert sum(percent) == pytest.approx(100 * sum(code.share for code in hit.codes))


def test_more_than_eight_codes_are_named() -> None:
    hit = Hit("a1", 1.0, "Sofa", codes=tuple(shared(f"sofa {i}", 0.02) for i in range(10)))
    assert len(format_hit(hit).splitlines()) == 9
    assert format_hit(hit).splitlines()[-1] == "         4.0%  also type: sofa 8, type: sofa 9"
    weightless = Hit("a1", 1.0, "Sofa", codes=tuple(shared(f"sofa {i}", 0.0) for i in range(10)))
    assert format_hit(weightless).startswith("         also  type: sofa 0, type: sofa 1, ")


def test_an_explanation_has_what_weighs_nothing(shop: Shop) -> None:
    searcher = shop.live.searcher
    title = searcher.index.table[3].title
    weightless = searcher.with_scorer(searcher.scorer.without(["codes"]))
    codes = weightless.search(title, k=1, explain=True)[0].codes
    whole = searcher.search(title, k=1, explain=True)[0].codes
    assert len(codes) > 1
    assert {c.code for c in codes} == {c.code for c in whole if len(c.code) == 1}
    assert not any(c.share for c in codes)
