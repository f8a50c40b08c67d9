"""What fits: the rule by hand, and what found, facets, sorting and pages of a shop make of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from asking import ids
from click.testing import CliRunner
from starlette.testclient import TestClient

from gram import answer
from gram.cli import main
from gram.coder.base import QueryCodes, QueryTerms
from gram.errors import SettingError
from gram.ranking import candidates
from gram.ranking.candidates import Candidates, find_in_parts
from gram.ranking.features import NAMES, columns
from gram.ranking.fits import find_fitting, having_all
from gram.records import Product, code_text
from gram.serve.app import make_app
from gram.shop import Shop

LEXICON: Any = SimpleNamespace(forms=[[("red",)], [("sofa",)]])
LOUNGES = {"z900": 900.0, "z700": 700.0, "z800": 800.0}
JUNK = [f"peg{i}" for i in range(5)]


def rows(*features: dict[str, float]) -> np.ndarray:
    """(C, F) features by their names, 0 where none is named."""
    made = np.zeros((len(features), len(NAMES)), dtype=np.float32)
    for row, named in enumerate(features):
        for name, value in named.items():
            made[row, NAMES.index(name)] = value
    return made


def ask(words: str, codes: Sequence[int] = (), vectors: bool = True) -> Any:
    """A query of these words that holds these codes of the lexicon."""
    stems, none = words.split(), np.zeros((0, 0), dtype=bool)
    code = QueryCodes(np.array(codes, dtype=np.int64), np.zeros(0, np.float32), np.zeros(0, np.int32), none)
    return SimpleNamespace(terms=QueryTerms(stems, stems, []), codes=code, dense=np.full(2, float(vectors)))


def fitting(found: np.ndarray, query: Any, fit: float = 0.38, first: np.ndarray | None = None) -> list[bool]:
    """Beside ordinary products whose weighed sum is 2: 8 · .25 of maxsim."""
    ordinary = rows(*[{"maxsim": 0.25}] * 10) if query.dense.any() else rows({})
    beside = rows() if first is None else first
    candidates = Candidates(np.arange(len(found)), found, ordinary, beside)
    return find_fitting(candidates, query, LEXICON, fit).fits.tolist()


def test_what_stands_out_fits_by_hand() -> None:
    """Sums of 12, 6, 5.6 and 2 are 10, 4, 3.6 and 0 beyond the ordinary 2; .38 of 10 are 3.8, .5 are 5. The best stands
    out by 10 of the 26 − 2 = 24 that it could: more than .34."""
    found = rows({"maxsim": 1.5}, {"maxsim": 0.75}, {"maxsim": 0.7}, {"maxsim": 0.25})
    assert fitting(found, ask("red sofa")) == [True, True, False, False]
    assert fitting(found, ask("red sofa"), fit=0.5) == [True, False, False, False]
    assert fitting(found, ask("red sofa"), fit=0) == [True] * 4
    assert fitting(rows(), ask("red sofa")) == []


def test_what_has_what_is_left_out_does_not_fit() -> None:
    found = rows(
        {"maxsim": 1.5, "left_out": 1.0, "full_coverage": 1.0}, {"maxsim": 1.5}, {"maxsim": 1.4, "left_out": 0.5}
    )
    assert fitting(found, ask("red sofa")) == [False, True, False]


def test_what_is_only_for_what_is_asked_has_not_all_of_it() -> None:
    found = rows({"maxsim": 1.5}, {"full_coverage": 1.0, "only_for": 1.0}, {"full_coverage": 1.0, "only_for": 0.5})
    assert fitting(found, ask("red sofa", [0, 1])) == [True, False, True]


def test_nothing_fits_where_the_best_hardly_stands_out() -> None:
    """10 is 8 beyond the ordinary 2, and 8 of 24 is less than .34."""
    found = rows({"maxsim": 1.25}, {"maxsim": 1.0})
    assert fitting(found, ask("zebra submarine")) == [False, False]
    assert fitting(found, ask("zebra submarine"), fit=0.01) == [False, False]


def test_nothing_fits_a_query_of_stop_words_alone() -> None:
    """However near it is: the sum of 12 that fits "red sofa" above."""
    query = ask("red sofa")
    query.terms = QueryTerms(["in", "the"], [], [])
    assert fitting(rows({"maxsim": 1.5}, {"maxsim": 0.75}), query) == [False, False]
    assert fitting(rows({"maxsim": 1.5}), query, fit=0) == [True]


def test_what_has_all_that_is_asked_fits() -> None:
    """Every word, or every code where the codes say all words: "red sofa" has no word but its codes'."""
    found = rows({"maxsim": 1.25}, {"full_coverage": 1.0}, {"code_share": 1.0}, {"code_share": 0.9})
    assert fitting(found, ask("red sofa", [0, 1])) == [False, True, True, False]
    assert fitting(found, ask("red zebra", [0])) == [False, True, False, False], "no code says zebra"
    assert fitting(found, ask("", [])) == [False] * 4, "no word is no code"


def test_the_best_of_the_whole_shop_is_what_others_are_beside() -> None:
    """Under a filter the best is 10 beyond the ordinary, outside it one is 22: .38 of 22 are 8.36."""
    found = rows({"maxsim": 1.5}, {"maxsim": 0.75})
    assert fitting(found, ask("red sofa"), first=rows({"maxsim": 3.0})) == [True, False]
    assert fitting(found, ask("red sofa"), fit=0.5, first=rows({"maxsim": 3.0})) == [False, False]


def test_rows_that_hold_every_word_or_every_code() -> None:
    """Of six: 0 holds both words, 1 one of them, 2 and 3 both codes by other words, 4 both words but is gone."""
    words, codes = {"red": [0, 1, 4], "sofa": [0, 4, 5]}, {0: [2, 3, 1], 1: [3, 2]}
    index = SimpleNamespace(
        n_products=6,
        bm25=SimpleNamespace(holding=lambda stem: np.array(words.get(stem, []), dtype=np.int32)),
        lexical=SimpleNamespace(n_keys=2, of=lambda key: (np.array(codes[key]), np.ones(len(codes[key])))),
        titles=SimpleNamespace(read=lambda rows: rows, match=lambda *asked: np.outer(asked[3] == only_for, np.ones(4))),
    )
    only_for = -1
    part: Any = candidates.Part(index, np.array([True, True, True, True, False, True]))  # type: ignore[arg-type]
    assert having_all(part, ask("red sofa", [0, 1]), LEXICON).tolist() == [0, 2, 3]
    assert having_all(part, ask("red sofa", []), LEXICON).tolist() == [0]
    assert having_all(part, ask("red sofa", [0]), LEXICON).tolist() == [0], "the code says not all"
    assert having_all(part.but(np.array([0])), ask("red sofa", [0, 1]), LEXICON).tolist() == [2, 3]
    assert having_all(part, ask("", []), LEXICON).tolist() == []
    only_for, words["for"], query = 3, [0, 3], ask("red sofa", [0, 1])
    query.terms = query.terms._replace(purposes={"for"})
    assert having_all(part, query, LEXICON).tolist() == [0, 2], "a cover for red sofas"
    by_codes, by_words = columns(("codes",)), columns(("words",))
    assert having_all(part, query, LEXICON, by_codes).tolist() == [2, 3], "titles are not read"
    assert having_all(part, query, LEXICON, by_words).tolist() == [0]
    assert having_all(part, ask("red sofa", []), LEXICON, by_codes).tolist() == []


def test_by_some_groups_alone_less_can_be_reached() -> None:
    """2 of the 3.3 that codes can bring beside sums without a bound, and of the 26 of all."""
    found = Candidates(np.arange(2), rows({"prf_codes": 1.0}, {"prf_codes": 0.2}), rows(), rows())
    query = ask("red sofa")
    assert find_fitting(found, query, LEXICON, 0.38).fits.tolist() == [False, False]
    assert find_fitting(found, query, LEXICON, 0.38, columns(("codes",))).fits.tolist() == [True, False]
    unwanted = Candidates(np.arange(2), rows({"left_out": 1.0}, {}), rows(), rows())
    assert find_fitting(unwanted, query, LEXICON, 0).fits.tolist() == [True, True], "every candidate"


def test_without_vectors_less_can_be_reached() -> None:
    """4 of the 10 that words and codes can bring are more than .34, and 3 less."""
    assert fitting(rows({"bm25": 1.0}, {"bm25": 0.3}), ask("red sofa", vectors=False)) == [True, False]
    assert fitting(rows({"bm25": 0.75}), ask("red sofa", vectors=False)) == [False]


@pytest.fixture(scope="module")
def shop(small_shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The small shop with three lounges, and five things that nobody asks for and that cost nearly nothing."""
    folder = tmp_path_factory.mktemp("fits")
    shutil.copytree(small_shop / "index", folder / "index")
    opened = Shop.open(folder / "index", small_shop / "model")
    lounges = [Product(name, "Zumbrel lounge", brand="Zumbrel", price=price) for name, price in LOUNGES.items()]
    opened.update([*lounges, *(Product(name, "Plain peg", brand="Peg", price=0.01) for name in JUNK)])
    yield opened
    opened.close()


def test_a_sort_brings_nothing_to_the_front_that_does_not_fit(shop: Shop) -> None:
    assert ids(shop, "zumbrel lounge", sort="price") == ["z700", "z800", "z900"]
    assert ids(shop, "zumbrel lounge", sort="-price") == ["z900", "z800", "z700"]
    assert sorted(ids(shop, "zumbrel lounge", sort="price", fit=0)[:5]) == JUNK, "as it was: all candidates"
    assert ids(shop, "zumbrel lounge", sort="price", offset=3) == []


def test_found_and_facets_are_of_what_fits(shop: Shop) -> None:
    result = shop.search("zumbrel lounge", facets=("brand",))
    assert result.found == 3
    assert result.facets["brand"]["values"] == {"Zumbrel": 3}
    assert len(result.hits) == 10
    everything = shop.search("zumbrel lounge", fit=0)
    assert everything.found == len(shop)
    assert all(hit.fits for hit in everything.hits)


def test_without_a_sort_the_nearest_come_behind_what_fits(shop: Shop) -> None:
    """The ranking is what it is without any fit; pages go on beyond `found`."""
    hits = shop.search("zumbrel lounge", limit=100).hits
    assert [hit.fits for hit in hits] == [True] * 3 + [False] * 97
    assert {hit.product_id for hit in hits[:3]} == set(LOUNGES)
    assert [hit.product_id for hit in hits] == ids(shop, "zumbrel lounge", limit=100, fit=0)
    assert ids(shop, "zumbrel lounge", limit=2, offset=3) == [hit.product_id for hit in hits[3:5]]


def test_nothing_fits_what_the_shop_has_nothing_like(shop: Shop) -> None:
    result = shop.search("qwxzv plorf", facets=("brand",))
    assert (result.found, result.facets["brand"]["values"], result.refinements) == (0, {}, [])
    assert len(result.hits) == 10
    assert not any(hit.fits for hit in result.hits)
    assert ids(shop, "qwxzv plorf", sort="price") == []


def test_what_a_filter_leaves_does_not_fit_for_being_left(shop: Shop) -> None:
    result = shop.search("zumbrel lounge", filter="price < 1")
    assert (result.found, len(result.hits)) == (0, 5)
    assert shop.search("zumbrel lounge", filter="price > 750").found == 2


def test_a_filter_changes_no_score(shop: Shop) -> None:
    """What is like the best ones is so of the shop's best, so that a filter leaves what it lets through as it was."""
    for query in ("black sofa", "womens running shoes", "zumbrel lounge"):
        whole = {hit.product_id: (hit.score, hit.fits) for hit in shop.search(query, limit=1000).hits}
        dear = shop.search(query, limit=1000, filter="price > 40").hits
        assert 5 < len(dear) < len(whole)
        for hit in dear:
            score, fits = whole[hit.product_id]
            assert (hit.score, hit.fits) == (pytest.approx(score, rel=1e-5), fits)


def test_a_refinement_finds_as_many_as_it_says(shop: Shop) -> None:
    offered = [(q, r) for q in ("sofa", "dress", "lamp", "shoes") for r in shop.search(q).refinements]
    assert len(offered) > 5
    for query, refinement in offered:
        assert shop.search(query, filter=refinement.filter).found == refinement.products


@pytest.fixture
def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some 20 candidates, as if the shop were a large one."""
    monkeypatch.setattr(candidates, "NEAREST", 5)
    monkeypatch.setattr(candidates, "FROM_FEEDBACK", 5)
    monkeypatch.setattr(candidates, "BESIDE", 20)
    monkeypatch.setattr(answer, "find_in_parts", partial(find_in_parts, from_postings=12))


@pytest.mark.usefixtures("few_candidates")
def test_pages_follow_on_each_other_beyond_the_candidates(shop: Shop) -> None:
    for query in ("black sofa", "zumbrel lounge"):
        whole = shop.search(query, limit=200, fit=0.4)
        ids_shown = [hit.product_id for hit in whole.hits]
        assert len(set(ids_shown)) == len(ids_shown) > 100
        pages = [shop.search(query, limit=7, offset=offset, fit=0.4) for offset in range(0, 70, 7)]
        assert [hit.product_id for page in pages for hit in page.hits] == ids_shown[:70]
        assert {page.found for page in pages} == {whole.found}
        scores = [hit.score for hit in whole.hits]
        assert scores == sorted(scores, reverse=True)
        assert [hit.fits for hit in whole.hits] == [True] * whole.found + [False] * (len(ids_shown) - whole.found)


@pytest.mark.usefixtures("few_candidates")
def test_all_that_hold_every_word_fit_however_many_they_are(shop: Shop) -> None:
    """Forty products of one name among some twenty candidates: counted, sorted and told apart all the same."""
    many = {f"q{i}": Product(f"q{i}", "Quibbet tray", price=1.0 + i, brand=f"Brand {i % 4}") for i in range(40)}
    shop.update(many.values())
    try:
        result = shop.search("quibbet tray", facets=("brand",), limit=60)
        assert (result.found, sum(result.facets["brand"]["values"].values())) == (40, 40)
        assert {hit.product_id for hit in result.hits[:40]} == set(many)
        assert [hit.fits for hit in result.hits] == [True] * 40 + [False] * 20
        assert ids(shop, "quibbet tray", sort="price", limit=60) == list(many)
        assert ids(shop, "quibbet tray", sort="price", limit=60, filter="price > 30") == list(many)[30:]
        assert shop.search("quibbet tray", distinct="brand").found == 4
        shop.put_rule("pin", {"action": "pin", "query": "quibbet tray", "products": ["q39"]})
        assert shop.search("quibbet tray", limit=5).found == 40, "counted once, though it was none of the candidates"
        pinned = shop.search("quibbet tray", limit=60)
        assert (pinned.found, pinned.hits[0].product_id, len({h.product_id for h in pinned.hits})) == (40, "q39", 60)
    finally:
        shop.remove_rule("pin")
        shop.delete(many)


@pytest.mark.usefixtures("few_candidates")
@pytest.mark.parametrize("query", ["black sofa", "zumbrel lounge"])
def test_what_is_only_near_beyond_the_candidates_stands_for_no_value(shop: Shop, query: str) -> None:
    """Pages of a `distinct` end with the candidates, some twenty of more than a hundred products. A field that no
    product has makes no two alike, so that nothing else is left out."""
    whole, told_apart = ids(shop, query, limit=200), ids(shop, query, limit=200, distinct="no such field")
    assert told_apart == whole[: len(told_apart)]
    assert shop.search(query).found <= len(told_apart) < 40 < 100 < len(whole)


def test_rules_move_what_fits_and_what_does_not_each_among_themselves(shop: Shop) -> None:
    """A peg that is boosted comes first of what is near, not before a lounge, and stands for no lounge's brand; a
    lounge that is buried comes last of the three."""
    shop.update([Product("peg9", "Plain peg", brand="Zumbrel", price=0.01)])
    shop.put_rule("boost", {"action": "boost", "query": "zumbrel lounge", "products": ["peg9"], "weight": 10})
    shop.put_rule("bury", {"action": "bury", "query": "zumbrel lounge", "products": ["z700"]})
    try:
        result = shop.search("zumbrel lounge", limit=100, fit=0.7)
        assert [hit.fits for hit in result.hits] == [True] * 3 + [False] * 97
        assert [hit.product_id for hit in result.hits[2:4]] == ["z700", "peg9"]
        scores = [hit.score for hit in result.hits]
        assert scores == sorted(scores, reverse=True)
        result = shop.search("zumbrel lounge", distinct="brand", fit=0.7)
        assert (result.found, result.hits[0].product_id in LOUNGES) == (1, True)
    finally:
        shop.remove_rule("boost")
        shop.remove_rule("bury")
        shop.delete(["peg9"])


def test_a_filter_alone_means_all_that_match(shop: Shop) -> None:
    result = shop.search("", filter="price < 1", sort="price")
    assert (result.found, result.codes) == (5, [])
    assert all(hit.fits for hit in result.hits)


def test_a_pinned_product_fits(shop: Shop) -> None:
    rule = {"action": "pin", "query": "zumbrel lounge", "products": ["peg1", "peg1"]}
    shop.put_rule("pin", rule)
    try:
        result = shop.search("zumbrel lounge")
        assert (result.found, result.hits[0].product_id, result.hits[0].fits) == (4, "peg1", True)
        assert ids(shop, "zumbrel lounge", sort="price")[0] == "peg1"
    finally:
        shop.remove_rule("pin")


@pytest.mark.parametrize("fit", [-0.1, 1.1, True, "0.5", float("nan")])
def test_a_fit_out_of_range_is_refused(shop: Shop, fit: Any) -> None:
    with pytest.raises(SettingError, match="Fix: give a number from 0"):
        shop.search("zumbrel lounge", fit=fit)


def test_over_http(shop: Shop) -> None:
    shop.update([Product("part", "Zumbrel lounge cover", price=5.0, attributes={"fits": ("Civic",)})])
    with TestClient(make_app(shop), "http://127.0.0.1") as client:
        got = client.get("/search", params={"q": "zumbrel lounge", "sort": "price"}).json()
        assert (got["hits"][0]["product_id"], got["hits"][0]["fits"]) == ("part", True)
        assert got["hits"][0]["attributes"] == {"fits": "Civic"}, "an attribute of this name keeps its place"
        assert got["found"] == 4
        assert client.get("/search", params={"q": "zumbrel lounge", "fit": "0"}).json()["found"] == len(shop)
        assert client.post("/search", json={"q": "zumbrel lounge", "fit": None}).json()["found"] == 4
        nothing = client.get("/search", params={"q": "qwxzv plorf"}).json()
        assert (nothing["found"], nothing["hits"][0]["fits"]) == (0, False)
        assert client.get("/stats").json()["without_hits"] == [["qwxzv plorf", 1]]
        for wrong in ("2", "-1", "some"):
            assert client.get("/search", params={"q": "sofa", "fit": wrong}).status_code == 400
    shop.delete(["part"])


def test_the_command_says_that_nothing_fits(small_shop: Path, tmp_path: Path) -> None:
    shutil.copytree(small_shop / "index", tmp_path / "index")
    command = ["search", str(tmp_path / "index"), "qwxzv plorf", "--model", str(small_shop / "model"), "-k", "2"]
    said = CliRunner().invoke(main, [*command, "--facets", "brand"]).output.splitlines()
    assert said[0] == "nothing fits; the nearest:"
    assert len(said) == 4
    assert not CliRunner().invoke(main, [*command, "--fit", "0"]).output.startswith("nothing")


def test_what_is_left_out_is_left_out_of_what_fits(shop: Shop) -> None:
    titles = {"q1": "Zorbel chair with casters", "q2": "Zorbel chair", "q3": "Zorbel chair without casters"}
    shop.update(Product(name, title) for name, title in titles.items())
    result = shop.search("zorbel chair without casters", facets=("brand",))
    fits = {hit.product_id: hit.fits for hit in result.hits}
    assert (fits["q1"], fits["q3"]) == (False, True)
    shop.delete(titles)


def test_what_is_left_out_stands_behind_the_first_that_fit(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where its score puts it among those behind them, for what its title says may be meant otherwise."""
    titles = {"q1": "Zorbel chair with casters", "q2": "Zorbel chair", "q3": "Zorbel chair without casters"}
    shop.update(Product(name, title) for name, title in titles.items())
    ask = partial(shop.search, "zorbel chair without casters")
    assert [(hit.product_id, hit.fits) for hit in ask(limit=3).hits] == [("q3", True), ("q2", True), ("q1", False)]
    monkeypatch.setattr(answer, "FIRST", 1)
    hits = ask(limit=60, facets=("brand",)).hits
    assert [(hit.product_id, hit.fits) for hit in hits[:3]] == [("q3", True), ("q1", False), ("q2", True)]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    pages = [hit.product_id for offset in range(0, 60, 7) for hit in ask(limit=7, offset=offset).hits]
    assert pages[:60] == [hit.product_id for hit in hits]
    assert "q1" not in {hit.product_id for hit in ask(limit=60, sort="brand").hits}
    shop.update(Product(name, title, brand="Zorbel") for name, title in titles.items())
    shop.delete(["q3"])
    apart = {hit.product_id: hit.fits for hit in ask(limit=60, distinct="brand").hits}
    assert (apart.get("q2"), apart.get("q1")) == (True, None), "one that fits stands for its value"
    scores = [hit.score for hit in ask(limit=60, distinct="brand").hits]
    assert scores == sorted(scores, reverse=True)
    shop.delete(titles)


def test_what_is_meant_by_what_is_left_out_is_told_by_all_segments(shop: Shop) -> None:
    """A title of one segment says mesh liner, so that in none mesh alone is left out; without that one it is."""
    titles = {"m1": "Zorbel shorts with mesh liner", "m2": "Zorbel mesh shorts", "m3": "Zorbel shorts"}
    for product_id, title in titles.items():
        shop.update([Product(product_id, title)])

    def fitting(query: str) -> set[str]:
        return {hit.product_id for hit in shop.search(query).hits if hit.fits} & titles.keys()

    assert fitting("zorbel shorts without mesh liner") == {"m2", "m3"}
    shop.update([Product("m1", "Zorbel shorts, of mesh, with a liner")])
    assert fitting("zorbel shorts without mesh liner") == {"m3"}
    shop.delete(titles)


def test_what_is_of_a_colour_that_is_left_out_does_not_fit_wherever_it_says_so(shop: Shop) -> None:
    products = {
        "b1": Product("b1", "Zorbel recliner", attributes={"colour": ("black",)}),
        "b2": Product("b2", "Zorbel recliner", attributes={"colour": ("grey",)}),
        "b3": Product("b3", "Zorbel recliner", description="Comes with black legs."),
        "b4": Product("b4", "Zorbel recliner, black legs"),
    }
    shop.update(products.values())

    def fitting(query: str) -> set[str]:
        return {hit.product_id for hit in shop.search(query, limit=300).hits if hit.fits} & products.keys()

    assert fitting("zorbel recliner") == products.keys()
    assert fitting("zorbel recliner not black") == {"b2"}
    assert "b1" in fitting("zorbel recliner without black legs"), "that it is black is another thing"
    assert [hit.product_id for hit in shop.search("zorbel recliner not black", limit=1).hits] == ["b2"]
    shop.delete(products)


def test_what_is_left_out_is_no_reason(shop: Shop) -> None:
    """Its code counts as any other of the query's, and is told as what the query leaves out; no rule goes by it."""
    shop.update([Product("q4", "Zorbel black sofa")])
    shop.put_rule("r", {"action": "boost", "code": "colour: black", "filter": "price > 0"})
    for query, source, rules in (("sofa not black", "left_out", []), ("black sofa not black metal", "lexical", ["r"])):
        result = shop.search(f"zorbel {query}", explain=True, limit=300)
        (hit,) = (hit for hit in result.hits if hit.product_id == "q4")
        told = {code_text(shared.code): shared.query_source for shared in hit.codes}
        assert (told["colour: black"], told["type: sofa"]) == (source, "lexical"), query
        assert dict(code[:2] for code in result.codes)["colour: black"] == source
        assert result.rules == rules
    shop.remove_rule("r")
    shop.delete(["q4"])
