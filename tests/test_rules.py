"""Rules: which are kept, which match, what they ask."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import numpy as np
import pytest

from gram.codes.lexicon import Lexicon
from gram.errors import SettingError
from gram.records import Attribute
from gram.rules import LONGEST_TEXT, Rule, in_force, next_moment, parse_rule, replace_synonyms, steer
from gram.text.analysis import default_analyzer

ANALYZER = default_analyzer()
SOFA, RED = 0, 1
LEXICON = Lexicon(
    [Attribute("type", "sofa"), Attribute("colour", "red")], [[("sofa",)], [("red",)]], 2, *np.ones((3, 2), "f"), 9
)
PIN = {"action": "pin", "query": "x", "products": ["a"]}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "is a list, not a map"),
        ({"action": "jump", "query": "x"}, "action is 'jump'. Fix: choose from pin"),
        ({"action": "pin", "query": "x", "product": ["a"]}, "knows no 'product'"),
        ({"action": "pin", "products": ["a"]}, "by a query or by a code"),
        ({"action": "pin", "query": "x", "code": "type: x", "products": ["a"]}, "by a query or by a code"),
        *(
            ({"action": "pin", "code": code, "products": ["a"]}, f"code is '{code}', which is none in form. Fix: write")
            for code in ("EXISTS code", "sofa", "type:", ": sofa", "type: sofa |", "type: sofa | red")
        ),
        *(
            (PIN | {"query": query}, "which has no word. Fix: write words that searchers type, or give a code")
            for query in ("\N{CHRISTMAS TREE}", "!!!", "\u200b")
        ),
        ({"action": "pin", "query": "x", "products": "a"}, "products is no list of ids"),
        ({"action": "pin", "query": "x"}, "pin needs products"),
        ({"action": "filter", "query": "x"}, "filter needs a filter"),
        ({"action": "hide", "query": "x", "filter": " "}, "hide needs products or a filter"),
        ({"action": "filter", "query": "x", "filter": "price <"}, "cannot be read at character 8"),
        ({"action": "boost", "query": "x", "products": ["a"], "weight": float("nan")}, "weight is nan"),
        ({"action": "synonym", "code": "type: x", "target": "y"}, "synonym needs a query and a target"),
        (PIN | {"from": "soon"}, "from is 'soon'"),
        (
            {"action": "pin", "query": "x", "products": ["a"], "from": "2026-02-01", "until": "2026-01-01"},
            "ends before",
        ),
        ({"action": "pin", "query": "x", "products": ["a"], "draft": 1}, "draft is 1"),
    ],
)
def test_a_wrong_rule_is_told_what_to_mend(data: Any, says: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_rule("r", data)
    assert says in str(caught.value)
    assert "Fix: " in str(caught.value)


def test_a_rule_matches_words_and_codes_in_any_form() -> None:
    by_query = parse_rule("a", {"action": "pin", "query": "red sofas", "products": ["s1"]})
    by_code = parse_rule("b", {"action": "filter", "code": " Type: Sofas|colour:RED", "filter": "price < 5"})
    unknown = parse_rule("c", {"action": "filter", "code": "type: sofa | colour: mauve", "filter": "price < 5"})
    both = steer([by_query, by_code, unknown], ["Red Sofa"], LEXICON, {SOFA, RED})
    assert (both.rules, both.pins, both.filters) == (["a", "b"], ["s1"], ["price < 5"])
    neither = steer([by_query, by_code, unknown], ["sofa red"], LEXICON, {SOFA})
    assert neither.rules == []


def test_a_rule_without_a_word_matches_no_listing() -> None:
    """Kept by a version that took it, say."""
    rules = [Rule("r", "filter", query=query, filter="price < 5") for query in ("!!!", " ", "")]
    assert steer(rules, ["", "???"], LEXICON, set()).rules == []


def test_what_each_action_asks() -> None:
    def one(**data: Any) -> Any:
        return steer([parse_rule("r", {"query": "x", **data})], ["x"], LEXICON, set())

    assert one(action="hide", products=["a"]).hidden == {"a"}
    assert one(action="hide", filter="brand = b").hiding == ["brand = b"]
    assert one(action="bury", products=["a"]).boosts[0].weight == -100.0
    assert one(action="boost", filter="brand = b", weight=2).boosts[0].weight == 2.0
    assert one(action="redirect", target="/stores").redirect == "/stores"


def test_synonyms_stand_in_for_words() -> None:
    rules = [parse_rule("s", {"action": "synonym", "query": "settee", "target": "sofa"})]
    assert replace_synonyms(rules, "red Settees now", ANALYZER) == ("red sofa now", ["s"])
    assert replace_synonyms(rules, "red", ANALYZER) == ("red", [])


def test_synonyms_make_no_query_of_any_length() -> None:
    """What a thousand rules put into each other would be read anew for each of them, for minutes."""
    rules = [parse_rule(str(n), {"action": "synonym", "query": "x", "target": "x " * 1_500}) for n in range(9)]
    query, used = replace_synonyms(rules, "x", ANALYZER)
    assert (len(query) < 2 * LONGEST_TEXT, used) == (True, ["0", "1"])


def test_a_rule_has_its_time_and_a_draft_none() -> None:
    now = datetime(2026, 6, 1, tzinfo=timezone.utc)
    base = {"action": "pin", "query": "x", "products": ["a"]}
    rules = [
        parse_rule("past", base | {"until": "2026-05-01"}),
        parse_rule("now", base | {"from": "2026-05-01T00:00:00Z", "until": "2026-07-01"}),
        parse_rule("draft", base | {"draft": True}),
        parse_rule("always", base),
    ]
    assert [rule.rule_id for rule in in_force(rules, now)] == ["always", "now"]
    assert next_moment(rules, now) == datetime(2026, 7, 1, tzinfo=timezone.utc)
    assert next_moment(rules[2:], now) == datetime.max.replace(tzinfo=timezone.utc)
