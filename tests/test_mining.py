"""The lexicon that mining makes, on catalogues and logs small enough to work out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gram.codes.lexicon import Lexicon
from gram.codes.mining import MiningSettings, mine
from gram.errors import ModelError
from gram.records import Attribute, Interaction, Product
from gram.text.fields import FIELDS, field_texts, joined_text
from gram.text.words import has_digit, stems, words

SMALL = MiningSettings(min_products=2, min_queries=2)


def _rich() -> list[Product]:
    """Six rakes and hoses of two brands, with every kind of column."""
    return [
        Product(
            str(i),
            title,
            brand=brand,
            category=("Garden", kind),
            description="Guaranteed against rust.",
            attributes={"Color": (colour,), "Handle Material": ("ash",)},
        )
        for i, (title, brand, kind, colour) in enumerate(
            [
                ("Acme Leaf Rake, 24 in.", "Acme", "Rakes", "Green"),
                ("Acme Leaf Rake, 30 in.", "Acme", "Rakes", "Teal Blue"),
                ("Acme Garden Hose 50 ft.", "Acme", "Hoses", "Green"),
                ("Bolt & Sons Garden Hose BH200", "Bolt & Sons", "Hoses", "Green"),
                ("Bolt & Sons Leaf Rake for Kids", "Bolt & Sons", "Rakes", "Teal Blue"),
                ("Bolt & Sons Soaker Hose 50 ft.", "Bolt & Sons", "Hoses", "Green"),
            ]
        )
    ]


LOG = [
    Interaction("leaf rake", "0"),
    Interaction("leaf rake", "1"),
    Interaction("acme leaf rake", "0"),
    Interaction("green hose", "2"),
    Interaction("garden hose 50 foot", "2"),
    Interaction("sprinkler", "5"),
]


def _id(lexicon: Lexicon, text: str) -> int:
    found = lexicon.id_of(stems(text, lexicon.language))
    assert found >= 0, text
    return found


@pytest.mark.parametrize(
    ("text", "attribute"),
    [
        ("acme", Attribute("brand", "acme")),
        ("bolt & son", Attribute("brand", "bolt sons")),
        ("rakes", Attribute("type", "rake")),  # spelt so most often, though the category says rakes
        ("leaf rake", Attribute("type", "leaf rake")),
        ("teal blue", Attribute("colour", "teal blue")),
        ("ash", Attribute("material", "ash")),
        ("kids", Attribute("audience", "kids")),
        ("50 ft", Attribute("size", "50 ft")),
        ("bh200", Attribute("model", "bh200")),
        ("sprinklers", Attribute("modifier", "sprinkler")),
        ("leaf", Attribute("modifier", "leaf")),
        ("guarantee", Attribute("modifier", "guaranteed")),  # named as it is spelt, not by its stem
    ],
)
def test_attributes_have_their_slots_and_names(text: str, attribute: Attribute) -> None:
    lexicon = mine(_rich(), LOG, SMALL)
    assert lexicon.attributes[_id(lexicon, text)] == attribute


def test_counts_and_mention_rates() -> None:
    lexicon = mine(_rich(), LOG, SMALL)
    acme, rake = _id(lexicon, "acme"), _id(lexicon, "rake")
    assert (lexicon.n_products, lexicon.products[acme], lexicon.products[rake]) == (6, 3, 3)
    # "acme leaf rake" names it; "leaf rake", "acme leaf rake" name a rake.
    assert (lexicon.queries[acme], lexicon.queries[rake]) == (1, 2)
    # Acme: 5 of the 6 interactions are with products 0, 1 or 2, one names it; prior .2 counts as 20 interactions.
    assert lexicon.mention_rate[acme] == pytest.approx((1 + 20 * 0.2) / (5 + 20))
    # Rake, a type: 3 interactions are with products 0 and 1, all name it.
    assert lexicon.mention_rate[rake] == pytest.approx((3 + 20 * 0.3) / (3 + 20))
    # 50 ft: clicked by way of product 2 twice and 5 once, and named once in another spelling.
    assert lexicon.mention_rate[_id(lexicon, "50 ft")] == pytest.approx((1 + 20 * 0.08) / (3 + 20))
    # Guaranteed stands in descriptions only: it counts for no product, and no interaction.
    assert lexicon.products[_id(lexicon, "guaranteed")] == 0
    assert lexicon.mention_rate[_id(lexicon, "guaranteed")] == pytest.approx(0.04)


def test_stop_words_are_no_attributes() -> None:
    lexicon = mine([*_rich(), Product("on", "Running shoe for men", brand="On")], LOG, SMALL)
    assert lexicon.id_of(["shoe"]) >= 0
    assert [lexicon.id_of([word]) for word in ("for", "on")] == [-1, -1]


def test_what_is_made_of_a_noun_is_no_form_of_it(tmp_path: Path) -> None:
    lexicon = mine(_titles("Wool rug", "Rugs for kids", "Rugged phone", "Hinged box", "Hinge box"), [])
    rug, rugged = _id(lexicon, "rug"), lexicon.id_of(["rugged"])
    assert lexicon.analyzer.stems("rug rugs rugged") == ["rug", "rug", "rugged"]
    assert (lexicon.products[rug], lexicon.products[rugged]) == (2, 1)
    assert lexicon.id_of(lexicon.analyzer.stems("hinged")) == _id(lexicon, "hinge"), "no title has hinges"
    lexicon.save(tmp_path / "lexicon.jsonl")
    assert Lexicon.load(tmp_path / "lexicon.jsonl").analyzer.stem("rugged") == "rugged"


def test_frequent_words_are_learnt_and_the_rest_lexical_only() -> None:
    lexicon = mine(_rich(), LOG, SMALL)
    two_words = {"bolt sons", "teal blue", "leaf rake"}
    one_word = {"acme", "bolt", "sons", "garden", "leaf", "rake", "hose", "green", "teal", "blue", "ash"}
    assert {a.value for a in lexicon.attributes[: lexicon.n_learnt]} == two_words | one_word


def test_what_more_than_a_quarter_of_the_products_hold_is_not_learnt() -> None:
    titles = [f"{'alpha' * (i < 26)} {'beta' * (i < 25)} word{i}" for i in range(100)]
    lexicon = mine(_titles(*titles), [])
    assert _id(lexicon, "alpha") >= lexicon.n_learnt > _id(lexicon, "beta")


@pytest.mark.parametrize("settings", [None, SMALL, MiningSettings(min_products=1, min_queries=1)])
@pytest.mark.parametrize(
    ("products", "log"),
    [
        (_rich(), LOG),
        (_rich(), []),
        ([Product(p.product_id, p.title, p.brand) for p in _rich()], LOG),
        ([Product(p.product_id, p.title) for p in _rich()], []),
        ([Product("1", "Ergonomic Chair for the Office 2000")], [Interaction("chair chair this", "1")]),
        ([Product("1", "!!!"), Product("2", "", brand="—")], []),
        (
            [
                Product("1", "ランニングシューズ 27cm", "ミズノ"),
                Product("2", "Crème brûlée"),
                Product("3", "हिन्दी किताब"),
            ],
            [],
        ),
        ([], []),
    ],
    ids=["rich", "no log", "brand and title", "titles", "one product", "no words", "scripts", "nothing"],
)
def test_every_word_is_an_attribute_and_numbers_are_not_learnt(
    products: list[Product], log: list[Interaction], settings: MiningSettings | None
) -> None:
    lexicon = mine(products, log, settings)
    texts = [text for p in products for _, text in field_texts(p)] + [i.query for i in log]
    for word in {word for text in texts for word in words(text)} - lexicon.analyzer.stopwords:
        assert lexicon.id_of(stems(word)) >= 0, word
    for attribute in lexicon.attributes[: lexicon.n_learnt]:
        assert not any(map(has_digit, attribute.value.split()))
        assert attribute.value not in lexicon.analyzer.stopwords
    assert len({form for forms in lexicon.forms for form in forms}) == len(lexicon)
    assert len(lexicon) == len(lexicon.products) == len(lexicon.queries) == len(lexicon.mention_rate)
    assert np.all((lexicon.mention_rate >= 0) & (lexicon.mention_rate <= 1))


def test_a_value_that_says_an_attribute_twice_is_that_attribute() -> None:
    row = ("White/White", "White", "Yo-Yo", "2 x 2", "Bora Bora")
    products = [
        Product(str(i), f"{colour} thing", kind, ("Toys", kind), attributes={"Color": (colour,), "Size": (size,)})
        for i, (colour, kind, size) in enumerate([(row[0], row[2], row[3]), (row[1], row[4], row[3])] * 4)
    ]
    lexicon = mine(products, [], SMALL)
    assert lexicon.id_of(("white", "white")) < 0
    assert lexicon.attributes[_id(lexicon, "white")] == Attribute("colour", "white")
    assert lexicon.products[_id(lexicon, "white")] == 8
    for text in ("yo yo", "2 x 2", "bora bora"):
        _id(lexicon, text)


def test_a_log_with_products_that_the_catalogue_lacks_counts_only_their_queries() -> None:
    lexicon = mine(_rich(), [*LOG, Interaction("acme anvil", "gone")], SMALL)
    acme = _id(lexicon, "acme")
    assert lexicon.queries[acme] == 2
    assert lexicon.mention_rate[acme] == pytest.approx((1 + 20 * 0.2) / (5 + 20))


def _titles(*titles: str) -> list[Product]:
    return [Product(str(i), title) for i, title in enumerate(titles)]


_FILLER = [f"word{i} thing{i}" for i in range(40)]


@pytest.mark.parametrize(
    ("titles", "queries", "phrase", "kept"),
    [
        (["mighty mule opener"] * 5, [], "mighty mule", True),  # always together
        (["mighty mule opener"] * 4, [], "mighty mule", False),  # too rare without searchers
        (["red door"] * 2, ["red door", "a red door"], "red door", True),  # searchers type it
        (["red door"] * 2, ["red door"], "red door", False),
        (["door in red"] * 3 + ["door"] * 20 + ["red"] * 20, [], "door in red", False),  # chance
        (["chair 225 lb"] * 2, ["chair 225 lb", "my chair 225 lb"], "chair 225 lb", False),  # a thing and its size
        (["chair 225 lb"] * 2, ["chair 225 lb", "my chair 225 lb"], "chair 225", False),
        (["chair 225 lb"] * 2, [], "225 lb", True),
        (["iphone 12 case"] * 2, ["iphone 12", "iphone 12 case"], "iphone 12", True),
    ],
)
def test_phrases_need_searchers_or_cohesion(titles: list[str], queries: list[str], phrase: str, kept: bool) -> None:
    products = _titles(*titles, *_FILLER)
    lexicon = mine(products, [Interaction(q, "0") for q in queries])
    assert (lexicon.id_of(stems(phrase)) >= 0) == kept


def test_a_brand_and_its_neighbour_are_no_phrase() -> None:
    products = [Product(str(i), "Velanto Halden Boot", brand="Velanto") for i in range(6)]
    lexicon = mine(products + [p._replace(product_id=p.title) for p in _titles(*_FILLER)], [])
    assert lexicon.id_of(stems("velanto halden")) < 0
    assert lexicon.id_of(stems("halden boot")) >= 0


@pytest.mark.parametrize(
    "title",
    [
        "Zorb, Green, 24 in.",
        "(2 Pack) Acme Zorb",
        "Acme 24 in. x 30 in. Steel Zorb in Red",
        "Steel Zorb for Kids",
        "Steel Zorb with Handle 2 m Extra Wide",
        "Steel Zorb - Free Shipping",
        "Steel Zorb AB-1234",
    ],
)
def test_the_head_of_a_title_is_a_type(title: str) -> None:
    lexicon = mine(_titles(title), [])
    assert lexicon.attributes[_id(lexicon, "zorb")].slot == "type"


@pytest.mark.parametrize(("described", "slot"), [(10, "type"), (200, "modifier")])
def test_a_word_that_few_of_those_who_hold_it_are_about_is_no_type(described: int, slot: str) -> None:
    """Four titles end in it: of 14 products that hold it, or of 204."""
    titled = [Product(f"t{i}", f"Shelf {wood} Keeper") for i, wood in enumerate(("oak", "ash", "elm", "fir"))]
    others = [Product(f"d{i}", f"Oak Table {i}", description="A keeper.") for i in range(described)]
    attributes = mine([*titled, *others], [], SMALL).attributes
    assert [a.slot for a in attributes if a.value == "keeper"] == [slot]


def test_what_searchers_ask_for_at_the_end_of_queries_is_a_type_wherever_products_say_it() -> None:
    products = [Product(f"d{i}", f"Oak Table {i}", description="A keeper.") for i in range(200)]
    log = [Interaction(f"{wood} keeper", "d1") for wood in ("oak", "ash", "elm")]
    lexicon = mine(products, log, SMALL)
    assert Attribute("type", "keeper") in lexicon.attributes


def test_a_word_that_only_some_products_call_their_brand_keeps_its_slot() -> None:
    products = [Product(str(i), "oak table", brand="Oak" if i == 0 else "") for i in range(8)]
    assert mine(products, []).attributes[_id(mine(products, []), "oak")].slot == "material"


def test_a_shop_with_other_slots() -> None:
    lexicon = mine(_rich(), LOG, MiningSettings(slots=("brand", "other")))
    assert {a.slot for a in lexicon.attributes} == {"brand", "other"}
    assert lexicon.slot_ids.max() == 1


def test_the_most_useful_are_learnt_first_and_no_more_than_wished() -> None:
    full = mine(_rich(), LOG, SMALL)
    short = mine(_rich(), LOG, MiningSettings(min_products=2, max_learnt=2))
    assert short.n_learnt == 2
    assert short.attributes[:2] == full.attributes[:2]
    assert len(short) == len(full)


def test_fields_come_title_first_and_empty_ones_not_at_all() -> None:
    product = Product(
        "1", "Rake", "Acme", ("Home", "Garden", "Rakes"), "Rusts.", attributes={"a": ("x", ""), "b": ("y",)}
    )
    texts = field_texts(product)
    assert texts == [
        ("title", "Rake"),
        ("brand", "Acme"),
        ("category", "Garden . Rakes"),
        ("attribute", "x"),
        ("attribute", "y"),
        ("description", "Rusts."),
    ]
    assert list(dict.fromkeys(name for name, _ in texts)) == list(FIELDS)


def test_a_saved_lexicon_comes_back_the_same(tmp_path: Path) -> None:
    lexicon = mine([*_rich(), Product("7", "ランニング Crème")], LOG, SMALL)
    lexicon.save(tmp_path / "lexicon.jsonl")
    again = Lexicon.load(tmp_path / "lexicon.jsonl")
    assert again.attributes == lexicon.attributes
    assert again.forms == lexicon.forms
    assert (again.n_learnt, again.n_products) == (lexicon.n_learnt, lexicon.n_products)
    assert (again.analyzer, again.slots) == (lexicon.analyzer, lexicon.slots)
    np.testing.assert_array_equal(again.products, lexicon.products)
    np.testing.assert_array_equal(again.queries, lexicon.queries)
    np.testing.assert_allclose(again.mention_rate, lexicon.mention_rate, atol=1e-5)
    assert again.tagger.tag(stems("acme leaf rake")) == lexicon.tagger.tag(stems("acme leaf rake"))


@pytest.mark.parametrize(
    "content", ["", "no json", "[]", json.dumps({"n_learnt": 1}), '{"a": 1}\n{"slot": "x"}', "[" * 9999]
)
def test_what_is_no_lexicon_is_said_to_be_damaged(content: str, tmp_path: Path) -> None:
    path = tmp_path / "lexicon.jsonl"
    with pytest.raises(ModelError, match=r"lexicon\.jsonl.*Fix: train"):
        Lexicon.load(path)
    path.write_text(content)
    with pytest.raises(ModelError, match=r"lexicon\.jsonl.*Fix: train"):
        Lexicon.load(path)


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        (1, "n_learnt", 10_000),
        (1, "n_learnt", "many"),
        (1, "n_products", None),
        (1, "analyzer", {"language": "porter", "tables": {}}),
        (1, "analyzer", {"language": "klingon", "tables": {}}),
        (3, "slot", "flavour"),
        (3, "value", 7),
        (3, "forms", []),
        (3, "forms", [5]),
        (3, "products", -1),
        (3, "queries", float("nan")),
        (3, "mention_rate", "often"),
    ],
)
def test_a_damaged_line_of_a_lexicon_is_named(line: int, key: str, value: object, tmp_path: Path) -> None:
    path = tmp_path / "lexicon.jsonl"
    mine(_rich(), LOG, SMALL).save(path)
    rows = [json.loads(row) for row in path.read_text(encoding="utf-8").splitlines()]
    rows[line - 1][key] = value
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(ModelError, match=rf"lexicon\.jsonl: line {line}: .*damaged.*Fix: train"):
        Lexicon.load(path)


def test_a_learnt_attribute_takes_the_id_behind_the_others() -> None:
    lexicon = mine(_rich(), LOG, SMALL)
    old = lexicon.id_of(("guarante",))
    wider = lexicon.with_learnt(Attribute("marketing", "guaranteed"), ("guarante",), 0.3)
    assert wider.id_of(("guarante",)) == lexicon.n_learnt == wider.n_learnt - 1
    assert len(wider) == len(lexicon), "the lexical attribute of the same form became it"
    assert wider.mention_rate[lexicon.n_learnt] == pytest.approx(0.3)
    assert wider.attributes[lexicon.n_learnt + 1 : old + 1] == lexicon.attributes[lexicon.n_learnt : old]
    assert wider.analyzer is lexicon.analyzer


def test_attributes_of_scripts_without_blanks_are_named_without() -> None:
    lexicon = mine([Product(str(i), "赤いソファ", brand="東京家具") for i in range(3)], [], SMALL)
    assert lexicon.attributes[_id(lexicon, "東京家具")] == Attribute("brand", "東京家具")


def test_a_shop_reads_by_tables_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "units.json").write_text('{"litre": ["litre", "liter", "l"]}')
    (tmp_path / "slot_columns.json").write_text('{"material": ["weave"]}')
    products = [Product(str(i), "Krug 2 l", attributes={"Weave": ("twill",)}) for i in range(3)]
    lexicon = mine(products, [], MiningSettings(language="", tables=str(tmp_path)))
    assert lexicon.attributes[lexicon.id_of(("2", "litre"))] == Attribute("size", "2 litre")
    assert lexicon.attributes[lexicon.id_of(("twill",))].slot == "material"
    lexicon.save(tmp_path / "lexicon.jsonl")
    assert Lexicon.load(tmp_path / "lexicon.jsonl").analyzer == lexicon.analyzer, "complete without the shop's folder"


def test_an_extended_lexicon_keeps_its_ids_and_adds_only_new_words() -> None:
    lexicon = mine(_rich(), LOG, SMALL)
    longer = lexicon.extend({"zorb": 3, "acm": 9, "anvil": 1})
    assert longer.attributes[: len(lexicon)] == lexicon.attributes
    assert [longer.id_of(form) for forms in lexicon.forms for form in forms] == list(range(len(lexicon)))
    assert [a.value for a in longer.attributes[len(lexicon) :]] == ["anvil", "zorb"]
    assert longer.products[-2:].tolist() == [1, 3]
    assert longer.n_learnt == lexicon.n_learnt
    assert longer.id_of(("zorb",)) == len(lexicon) + 1
    assert lexicon.id_of(("zorb",)) == -1


def test_rarity_falls_with_products() -> None:
    lexicon = mine(_rich(), LOG, SMALL)
    assert lexicon.idf[_id(lexicon, "acme")] == pytest.approx(np.log(7 / 3.5))
    assert lexicon.idf[_id(lexicon, "ash")] == pytest.approx(0.1)  # all six: log(7 / 6.5) is less


def test_nothing_is_read_of_where_pictures_lie_and_how_many_are_left() -> None:
    attributes = {
        "Stock": ("11",),
        "image": ("https://pictures.example/oak.jpg", "oak.jpg"),
        "url": ("/oak",),
        "manual": ("http://manuals.example/oak.pdf", "printed"),
    }
    products = [Product(str(i), "Lamp", attributes=attributes) for i in range(30)]
    assert field_texts(products[0]) == [("title", "Lamp"), ("attribute", "printed")]
    assert joined_text(products[0]) == "Lamp printed"
    lexicon = mine(products, [], MiningSettings())
    words = {word for attribute in lexicon.attributes for word in attribute.value.split()}
    assert words <= {"lamp", "printed"}
    assert "lamp" in words
