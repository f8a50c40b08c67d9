"""The traits of a generated shop: each changes what it says and nothing else, and the judgements stay exact."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest

from gram.data.dataset import Dataset
from gram.data.shop.catalogue import Offer, size, stock, tells, vocabulary
from gram.data.shop.further import MEASURES, furnish, further_slots
from gram.data.shop.generate import MINOR, _grades, _matches, _open, _opposed, _Page, _searches, _session, generate
from gram.data.shop.otherwise import read_range, synonyms
from gram.data.shop.traits import PLAIN, Traits
from gram.data.shop.wishes import Wish, names_of
from gram.errors import SettingError
from gram.text.fields import FIELDS, joined_text
from gram.text.prices import read_price
from gram.text.words import stems

NAMES = [trait.name for trait in fields(Traits)]
PRICE = re.compile(r"(?:(under|less than|over)|between|from) \$?(\d+)(?: dollars)?(?: (?:and|to) \$?(\d+))?")
FURTHER = {slot for of_type in further_slots().values() for slot in of_type}


@cache
def shop_of(traits: str) -> Dataset:
    return generate(700, 3500, 3, 400, Traits.parse(traits))


@cache
def offers_of(traits: str) -> list[Offer]:
    return furnish(stock(700, np.random.default_rng(5)), Traits.parse(traits), 5)


@cache
def searches_of(traits: str) -> list[tuple[str, tuple[Wish, ...]]]:
    rng = np.random.default_rng(7)
    return list(_searches(_open(offers_of(traits)), rng, 1500, Traits.parse(traits), 7))


def test_every_trait_is_off_in_the_plain_shop_and_on_in_the_rich_one() -> None:
    assert Traits() == PLAIN == Traits.parse("plain") == Traits.parse("")
    assert all(getattr(Traits.rich(), name) > getattr(PLAIN, name) for name in NAMES)
    assert Traits.parse("rich") == Traits.rich()
    assert Traits.parse("rich, plain , head") == replace(PLAIN, head=Traits.rich().head)


@pytest.mark.parametrize(
    ("text", "problem"),
    [("synonym", "is no trait. Fix: choose from plain, rich, slots"), ("head=much", "'much' is no number"),
     ("slots=1.5", "slots is 1.5. Fix: choose from 0 to 1"), ("ranges=nan", "ranges is nan"), ("head=-1", "0 to 5")],
)  # fmt: skip
def test_traits_are_checked(text: str, problem: str) -> None:
    with pytest.raises(SettingError, match=problem):
        Traits.parse(text)


@pytest.mark.parametrize("name", NAMES)
def test_each_trait_alone_changes_the_shop(name: str) -> None:
    assert shop_of(name) != shop_of("plain")


@pytest.mark.parametrize("name", ["synonyms", "ranges", "conflicts", "head", "position"])
def test_what_is_of_searchers_leaves_the_catalogue(name: str) -> None:
    assert shop_of(name).products == shop_of("plain").products


@pytest.mark.parametrize("name", ["conflicts", "head", "position"])
def test_what_is_of_clicks_leaves_queries_and_judgements(name: str) -> None:
    assert shop_of(name).parts == shop_of("plain").parts
    assert {row.query for row in shop_of(name).log} == {row.query for row in shop_of("plain").log}
    assert len(shop_of(name).log) == len(shop_of("plain").log)


@pytest.mark.parametrize("name", ["slots", "measures"])
def test_further_attributes_are_added_to_products_that_stay_the_same(name: str) -> None:
    added = FURTHER if name == "slots" else set(MEASURES)
    lacking: Counter[bool] = Counter()
    for plain, rich in zip(offers_of("plain"), offers_of(name), strict=True):
        assert rich.product.title.startswith(plain.product.title)
        assert rich.product.description.startswith(plain.product.description)
        attributes = {slot: told for slot, told in rich.product.attributes.items() if slot not in added}
        assert attributes == plain.product.attributes
        assert {slot: of_slot for slot, of_slot in rich.values.items() if slot not in added} == plain.values
        same = {"title": plain.product.title, "description": plain.product.description, "attributes": attributes}
        assert rich.product._replace(**same) == plain.product
        if name == "slots":
            lacking.update(slot not in rich.values for slot in further_slots().get(rich.product_type.value.name, ()))
        for slot in rich.values.keys() & added:  # told in some field
            assert all(tells(joined_text(rich.product, FIELDS), value) for value in rich.values[slot])
    assert name == "measures" or 0.2 < lacking[True] / lacking.total() < 0.4


@pytest.mark.parametrize("name", ["slots", "measures", "synonyms", "ranges"])
def test_a_search_is_the_plain_one_or_has_what_the_trait_says(name: str) -> None:
    searches, plain_searches = searches_of(name), searches_of("plain")
    changed = 0
    for (query, wishes), (plain_query, plain) in zip(searches, plain_searches, strict=True):
        if wishes == plain:
            assert query == plain_query
            continue
        changed += 1
        (new,) = set(wishes) - set(plain)
        assert wishes[0].slot == "type" and len(wishes) <= 4  # noqa: PT018
        assert {w.slot for w in wishes} - {w.slot for w in plain} <= {new.slot}
        if name == "slots":
            assert new.slot in FURTHER
        elif name == "measures":
            assert new.slot in MEASURES
        elif name == "ranges":
            assert read_range(new.words)
        else:
            assert [w.slot for w in wishes] == [w.slot for w in plain]
            assert any(new.words in words for (slot, _), words in synonyms().items() if slot == new.slot)
    expected = {"slots": 0.19, "measures": 0.04, "synonyms": 0.22, "ranges": 0.2}[name]
    assert 0.7 * expected < changed / len(searches) < 1.3 * expected


def test_turning_one_trait_off_leaves_what_the_others_change() -> None:
    others = zip(searches_of("rich"), searches_of("rich,synonyms=0"), strict=True)
    changed = [(wishes, plain) for (_, wishes), (_, plain) in others if wishes != plain]
    assert changed
    for wishes, plain in changed:
        assert sum(a != b for a, b in zip(wishes, plain, strict=True)) == 1
    assert shop_of("rich,conflicts=0").parts == shop_of("rich").parts


def test_synonyms_are_in_queries_and_in_no_product_text() -> None:
    searched = set(stems(" ".join(words for of_value in synonyms().values() for words in of_value)))
    sold = {stem for product in shop_of("rich").products for stem in stems(joined_text(product, FIELDS))}
    forms = [value for of_type in further_slots().values() for of_slot in of_type.values() for value in of_slot]
    typed = set()
    for department in vocabulary():
        sold |= set(stems(" ".join([department.name, *department.brands, *department.series, *department.text])))
        for product_type in department.product_types:
            sold |= set(stems(product_type.shelf))
            forms += [product_type.value, *(value for of_slot in product_type.slots.values() for value in of_slot)]
    for value in forms:
        sold |= set(stems(" ".join(value.sold)))
        typed |= set(value.typed)
    assert not searched & sold
    assert not typed & {words for of_value in synonyms().values() for words in of_value}  # they mean one thing
    assert synonyms().keys() <= {(value.slot, value.name) for value in forms}
    shop = shop_of("synonyms")
    for queries in ({row.query for row in shop.log}, shop.parts["test"].queries.values()):
        share = sum(bool(searched & set(stems(query))) for query in queries) / len(queries)
        assert 0.12 < share < 0.35


def test_words_for_further_values_are_no_others() -> None:
    """Otherwise a query of the plain shop would mean more products than it does there."""
    product_types = [product_type for department in vocabulary() for product_type in department.product_types]
    known = {
        words
        for product_type in product_types
        for value in (product_type.value, *(value for of_slot in product_type.slots.values() for value in of_slot))
        for words in names_of(value)
    }
    further = [value for of_type in further_slots().values() for of_slot in of_type.values() for value in of_slot]
    assert further_slots().keys() <= {product_type.value.name for product_type in product_types}
    assert not known & {words for value in further for words in names_of(value)}


def test_price_ranges_are_judged_by_price() -> None:
    shop = shop_of("ranges=1")
    prices = {product.product_id: product.price for product in shop.products}
    read = Counter[str]()
    for part in shop.parts.values():
        for query_id, query in part.queries.items():
            found = PRICE.search(query)
            if not found:
                continue
            word, numbers = found[1] or "between", [float(number) for number in found.groups()[1:] if number]
            low, high = (numbers[0], 1e9) if word == "over" else (0.0 if word != "between" else numbers[0], numbers[-1])
            assert all(low <= (prices[product_id] or 0) <= high for product_id in part.qrels[query_id])
            read[word] += 1
            money = read_price(query)
            if "$" in query or "dollars" in query:
                assert money
                assert (money.low, min(money.high, 1e9)) == (low, high)
            else:
                read["bare"] += money is None
    assert min(read[word] for word in ("under", "less than", "over", "between", "bare")) > 3


def test_ranges_mean_what_they_say() -> None:
    offer = next(o for o in offers_of("plain") if "size" in o.values)
    offer = offer._replace(values={"size": (size("oz", "64"),)})
    offer = offer._replace(product=offer.product._replace(price=49.99))
    true = ("under $50", "from $49 to $50", "over 49", "at least 2 quart", "32 to 64 oz", "up to 1 gallon")
    false = ("under 49", "over $50", "between 10 and 20 dollars", "at least 65 oz", "up to 1 quart", "60 to 70 inch")
    for words, holds in [*((words, True) for words in true), *((words, False) for words in false)]:
        asked = read_range(words)
        assert asked
        assert asked.holds(offer) is holds, words
    assert [read_range(words) for words in ("red", "10 x 12", "2 1/2 in", "24 inch", "spf 50")] == [None] * 5


def test_measures_are_written_in_many_ways() -> None:
    titles = " ".join(offer.product.title for offer in offers_of("measures"))
    queries = " ".join(query for query, _ in searches_of("measures"))
    for text in (titles, queries):
        assert re.search(r"\d x \d", text)
        assert re.search(r"\d[ -]\d/\d", text)


def test_grades_are_those_of_a_slow_reading() -> None:
    """A wish is true of a product that has a value so called, or lies within the range; the rest is the rule."""
    offers, searches = offers_of("rich"), searches_of("rich")
    shop = _open(offers)

    def fulfils(offer: Offer, wish: Wish) -> bool:
        for of_slot in offer.values.values():
            for value in of_slot:
                if wish.words in names_of(value) or wish.words in synonyms().get((value.slot, value.name), ()):
                    return True
        asked = read_range(wish.words)
        return asked is not None and asked.holds(offer)

    for _, wishes in searches[:60]:
        grades = _grades(shop, wishes)
        for offer, grade in zip(offers, grades, strict=True):
            missed = [wish for wish in wishes if not fulfils(offer, wish)]
            near = len(wishes) >= 3 and len(missed) == 1 and missed[0].slot in MINOR
            assert grade == (3 if not missed else 2 if near else 0)


def test_the_head_takes_its_share_of_the_log() -> None:
    shares = []
    for exponent in (0.0, 0.9, 1.2, 2.0):
        counts = sorted(Counter(row.query for row in shop_of(f"head={exponent}").log).values(), reverse=True)
        shares.append(sum(counts[:20]) / sum(counts))
    assert shares == sorted(shares)
    assert shares[0] < 0.15
    assert shares[2] > 0.3
    assert shares[3] > 0.5


@pytest.mark.parametrize("position", [0.0, 0.3, 1.0])
def test_clicks_fall_with_the_rank_as_the_position_says(position: float) -> None:
    """A page whose products appeal alike and stand in one order, seen 4,000 times."""
    n = 10
    page = _Page(np.arange(n), -np.arange(n, dtype=float), np.full(n, 0.5), np.ones(n, bool), np.array([], int))
    rng = np.random.default_rng(1)
    clicks = Counter(row for _ in range(4000) for row, _ in _session(page, rng, False, position))
    for rank in range(n):
        assert abs(clicks[rank] - 2000 / (1 + position * rank)) < 150


def test_a_share_of_clicks_goes_against_the_query() -> None:
    plain, some, most = (shop_of(traits).log for traits in ("plain", "conflicts=0.3", "conflicts=1"))
    assert [row._replace(product_id="") for row in plain] == [row._replace(product_id="") for row in some]
    moved, movable = ({n for n, row in enumerate(log) if row != plain[n]} for log in (some, most))
    assert moved <= movable
    assert 0.25 < len(moved) / len(movable) < 0.35
    assert len(movable) / len(plain) > 0.15
    assert {some[n].weight for n in moved} == {1.0, 3.0}  # clicked and sold


def test_a_conflict_is_in_one_thing_of_which_the_product_has_another() -> None:
    offers = offers_of("plain")
    shop, listed = _open(offers), np.arange(len(offers)) % 10 > 0
    seen = 0
    for _, wishes in searches_of("plain")[:300]:
        for row in _opposed(shop, wishes, _matches(shop, wishes), listed):
            (missed,) = [wish for wish in wishes if not shop.answers[wish.words][row]]
            assert missed.slot in ("colour", "size", "material", "brand")
            assert missed.slot in offers[row].values
            assert listed[row]
            seen += 1
    assert seen > 100


def test_the_same_seed_makes_the_same_rich_shop() -> None:
    code = (
        "import hashlib; from gram.data.shop.generate import generate; from gram.data.shop.traits import Traits; "
        "print(hashlib.sha256(repr(generate(120, 240, 3, 40, Traits.rich())).encode()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    ours = [hashlib.sha256(repr(generate(120, 240, seed, 40, Traits.rich())).encode()).hexdigest() for seed in (3, 4)]
    assert other.stdout.strip() == ours[0] != ours[1]
