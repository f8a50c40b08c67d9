"""Rules: how merchandisers steer a search without training, for a query or for a code, for a time or for good.

A rule is a map: `action`, and `query` or `code` to say when; `from` and `until` (ISO 8601) bound its time; `draft`
keeps it from searchers while it is tried.

    {"action": "pin", "query": "sofa", "products": ["a1", "b2"]}         these come first, in this order
    {"action": "bury", "code": "type: sofa", "products": ["c3"]}         these come last
    {"action": "hide", "query": "sofa", "filter": "brand = \\"acme\\""}    these are not found
    {"action": "boost", "code": "type: sofa", "filter": "price < 500", "weight": 1.5}
    {"action": "filter", "query": "vegan shoes", "filter": "NOT material = leather"}
    {"action": "redirect", "query": "opening hours", "target": "/stores"}
    {"action": "synonym", "query": "settee", "target": "sofa"}           wherever the query says settee
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from gram.codes.lexicon import Lexicon
from gram.data.columns import find_lone_surrogate, has_control
from gram.data.files import one_line
from gram.errors import SettingError
from gram.index.filters import parse_filter
from gram.records import read_code
from gram.text.analysis import Analyzer, default_analyzer

ACTIONS = ("pin", "bury", "hide", "boost", "filter", "redirect", "synonym")
KEYS = ("action", "query", "code", "products", "filter", "weight", "target", "from", "until", "draft")
TOLD = ("error", "warnings")
"""What is told of a rule beside it, and is no part of one that is put back."""
MOST_PRODUCTS = 1000
LONGEST_TEXT = 4000  # characters of a query, a code, a filter, a target
STRONGEST = 100.0
"""A boost's weight at most, in logarithms of odds."""


class RuleError(SettingError):
    """A rule that cannot be kept as it is."""


@dataclass(frozen=True)
class Rule:
    """One rule, read and checked."""

    rule_id: str
    action: str
    query: str = ""
    code: str = ""
    products: tuple[str, ...] = ()
    filter: str = ""
    weight: float = 1.0
    target: str = ""
    begins: datetime | None = None
    ends: datetime | None = None
    draft: bool = False


@dataclass
class Steering:
    """What the rules that match a query ask for; what a filter of `hiding` lets through is not found."""

    rules: list[str] = field(default_factory=list)
    pins: list[str] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)
    boosts: list[Rule] = field(default_factory=list)
    filters: list[str] = field(default_factory=list)
    hiding: list[str] = field(default_factory=list)
    redirect: str = ""


def parse_rule(rule_id: str, data: Any) -> Rule:
    """Checks a rule. Raises RuleError, which names what is to be mended."""
    if not isinstance(data, Mapping):
        raise RuleError(f"rule {rule_id!r}: is a {type(data).__name__}, not a map. Fix: send a JSON object")
    unknown = sorted(set(map(str, data)) - {*KEYS, *TOLD})
    if unknown:
        raise RuleError(f"rule {rule_id!r}: knows no {unknown[0]!r}. Fix: choose from {', '.join(KEYS)}")
    action = data.get("action")
    if action not in ACTIONS:
        raise RuleError(f"rule {rule_id!r}: action is {action!r}. Fix: choose from {', '.join(ACTIONS)}")
    texts = {name: _text(rule_id, data, name) for name in ("query", "code", "filter", "target")}
    if bool(texts["query"].strip()) == bool(texts["code"].strip()):
        raise RuleError(f"rule {rule_id!r}: says when by a query or by a code. Fix: give one of the two, not both")
    if texts["query"].strip() and not default_analyzer().words(texts["query"]):
        problem = f"query is {texts['query']!r:.80}, which has no word"
        raise RuleError(f"rule {rule_id!r}: {problem}. Fix: write words that searchers type, or give a code")
    if texts["code"].strip() and not all(slot and value for slot, value in read_code(texts["code"])):
        problem = f"code is {texts['code']!r:.80}, which is none in form"
        raise RuleError(f'rule {rule_id!r}: {problem}. Fix: write "type: sofa" or "type: sofa | colour: red"')
    products = data.get("products", [])
    if not isinstance(products, list) or not all(isinstance(p, str) for p in products):
        raise RuleError(f'rule {rule_id!r}: products is no list of ids. Fix: write ["a1", "b2"]')
    for product_id in products:
        _check_storable(rule_id, "a product's id", product_id)
    if len(products) > MOST_PRODUCTS:
        raise RuleError(
            f"rule {rule_id!r}: names {len(products)} products. Fix: name {MOST_PRODUCTS} at most, or a filter"
        )
    weight, draft = data.get("weight", 1.0), data.get("draft", False)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not abs(weight) <= STRONGEST:
        raise RuleError(f"rule {rule_id!r}: weight is {weight!r}. Fix: a number from -{STRONGEST:g} to {STRONGEST:g}")
    if not isinstance(draft, bool):
        raise RuleError(f"rule {rule_id!r}: draft is {draft!r}. Fix: write true or false")
    parse_filter(texts["filter"])
    rule = Rule(
        rule_id, action, texts["query"], texts["code"], tuple(products), texts["filter"].strip(), float(weight),
        texts["target"], _time(rule_id, data, "from"), _time(rule_id, data, "until"), draft,
    )  # fmt: skip
    _check_object(rule)
    return rule


def check_rule_id(rule_id: Any) -> None:
    """Raises RuleError for an id that no address of the service can hold."""
    named = isinstance(rule_id, str) and bool(one_line(rule_id)) and "/" not in rule_id
    if not named or has_control(rule_id) or find_lone_surrogate(rule_id):
        fix = "give a text without slashes, control characters and halves of characters"
        raise RuleError(f"the id of a rule is {rule_id!r:.60}. Fix: {fix}")


def without_told(data: Mapping[str, Any]) -> dict[str, Any]:
    """A rule's map as it is kept, where it was sent as it was shown."""
    return {name: value for name, value in data.items() if name not in TOLD}


def _check_object(rule: Rule) -> None:
    needs = {
        "pin": bool(rule.products),
        "bury": bool(rule.products or rule.filter),
        "hide": bool(rule.products or rule.filter),
        "boost": bool(rule.products or rule.filter),
        "filter": bool(rule.filter),
        "redirect": bool(rule.target),
        "synonym": bool(rule.target and rule.query),
    }
    lacking = {
        "pin": ("products", '"products": ["a1", "b2"]'),
        "filter": ("a filter", '"filter": "price < 50"'),
        "redirect": ("a target", '"target": "/stores"'),
        "synonym": ("a query and a target, and no code", '"query": "settee", "target": "sofa"'),
    }
    if not needs[rule.action]:
        either = "products or a filter", '"products": ["a1", "b2"] or "filter": "price < 50"'
        what, example = lacking.get(rule.action, either)
        raise RuleError(f"rule {rule.rule_id!r}: {rule.action} needs {what}. Fix: add them as in {example}")
    if rule.begins and rule.ends and rule.begins >= rule.ends:
        raise RuleError(f"rule {rule.rule_id!r}: ends before it begins. Fix: exchange from and until")


def in_force(rules: Iterable[Rule], now: datetime | None = None) -> list[Rule]:
    """The rules whose time it is, drafts left out, in the order of their ids."""
    now = now or datetime.now(timezone.utc)
    live = [r for r in rules if not r.draft and (not r.begins or r.begins <= now) and (not r.ends or now < r.ends)]
    return sorted(live, key=lambda rule: rule.rule_id)


def next_moment(rules: Iterable[Rule], now: datetime) -> datetime:
    """When the next rule begins or ends, drafts left out; `datetime.max` if none ever will."""
    times = (time for rule in rules if not rule.draft for time in (rule.begins, rule.ends))
    return min((time for time in times if time and time > now), default=datetime.max.replace(tzinfo=timezone.utc))


def replace_synonyms(rules: Sequence[Rule], query: str, analyzer: Analyzer) -> tuple[str, list[str]]:
    """The query with synonyms' targets where it says their words, whatever the form; and the ids of those rules. One
    that is longer than a target may be has nothing more put into it."""
    words, used = analyzer.words(query), []
    stems = [analyzer.stem(word) for word in words]
    for rule in rules:
        sought = analyzer.stems(rule.query) if rule.action == "synonym" and len(query) <= LONGEST_TEXT else []
        for begin in range(len(stems) - len(sought) + 1 if sought else 0):
            if stems[begin : begin + len(sought)] == sought:
                query = " ".join([*words[:begin], rule.target, *words[begin + len(sought) :]])
                words = analyzer.words(query)
                stems = [analyzer.stem(word) for word in words]
                used.append(rule.rule_id)
                break
    return query, used


def steer(rules: Sequence[Rule], queries: Sequence[str], lexicon: Lexicon, lexical: Collection[int]) -> Steering:
    """What the rules ask for a query, given as typed and as read, of these lexical attributes, none that it leaves out.

    A rule by query matches the same words in the same order, one by code a query that holds each of its attributes,
    whatever their form.
    """
    steering, analyzer = Steering(), lexicon.analyzer
    forms = [analyzer.stems(query) for query in queries]
    for rule in rules:
        sought = analyzer.stems(rule.query)
        by_query = bool(sought) and sought in forms  # none is not what a listing without a query says
        by_code = bool(rule.code) and all(lexicon.find(*attribute) in lexical for attribute in read_code(rule.code))
        if rule.action == "synonym" or not (by_query or by_code):
            continue
        steering.rules.append(rule.rule_id)
        if rule.action == "pin":
            steering.pins = list(dict.fromkeys([*steering.pins, *rule.products]))
        elif rule.action == "redirect":
            steering.redirect = steering.redirect or rule.target
        elif rule.action == "filter":
            steering.filters.append(rule.filter)
        elif rule.action == "hide":
            steering.hidden |= set(rule.products)
            steering.hiding += [rule.filter] if rule.filter else []
        else:
            steering.boosts.append(rule if rule.action == "boost" else replace(rule, weight=-STRONGEST))
    return steering


def _text(rule_id: str, data: Mapping[str, Any], name: str) -> str:
    value = data.get(name, "")
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise RuleError(f"rule {rule_id!r}: {name} is {json.dumps(value, default=str)[:80]}. Fix: write a short text")
    _check_storable(rule_id, name, value)
    return value


def _check_storable(rule_id: str, name: str, text: str) -> None:
    if half := find_lone_surrogate(text):
        raise RuleError(f"rule {rule_id!r}: {name} has {half}, which no file can hold. Fix: take it out")


def _time(rule_id: str, data: Mapping[str, Any], name: str) -> datetime | None:
    value = data.get(name)
    if value in (None, ""):
        return None
    try:
        time = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except (AttributeError, ValueError):
        raise RuleError(f"rule {rule_id!r}: {name} is {value!r}. Fix: write 2026-11-27T09:00:00Z") from None
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)
