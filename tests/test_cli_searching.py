"""`gram search`: one query is answered as the service answers it, and a run ranks as the service does."""

from __future__ import annotations

import re
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from gram.cli import main
from gram.data.catalogue import write_products
from gram.errors import SettingError
from gram.index.token_vectors import TokenVectors
from gram.ranking.features import FEATURES
from gram.records import Product
from gram.shop import Shop

BOOTS = [
    Product("cheap", "Zumbrel boots", price=20.0, brand="Zumbrel"),
    Product("dear", "Zumbrel boots", price=90.0, brand="Zumbrel"),
]
QUERIES = {"q1": "bed", "q2": "red lamp", "q3": "zumbrel boots under $50", "q4": "zumbrel boots"}


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.output


@pytest.fixture
def boots(index_folder: Path, tmp_path: Path) -> Path:
    """The small shop's index with two products more, written anew: nothing of it changed live."""
    with closing(Shop.open(index_folder, read_only=True, watching=False)) as shop:
        products = [*shop.live.searcher.index.table, *BOOTS]
    write_products(tmp_path / "more.jsonl", products)
    run("index", tmp_path / "model", tmp_path / "more.jsonl", "-o", index_folder)
    return index_folder


@pytest.fixture
def queries(tmp_path: Path) -> Path:
    lines = ["query_id\tquery", *(f"{query_id}\t{query}" for query_id, query in QUERIES.items())]
    (tmp_path / "queries.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / "queries.tsv"


def ranked(queries: Path, index: Path, *options: object) -> dict[str, list[str]]:
    """Query id → product ids of a run, whose scores must fall."""
    written = queries.with_name("run.trec")
    run("search", index, "--queries", queries, "--run", written, *options)
    rows = [line.split() for line in written.read_text(encoding="utf-8").splitlines()]
    for one, other in pairwise(rows):
        assert one[0] != other[0] or float(one[4]) >= float(other[4])
    return {query_id: [row[2] for row in rows if row[0] == query_id] for query_id in QUERIES}


def test_a_price_in_a_query_is_a_filter(boots: Path) -> None:
    said = run("search", boots, QUERIES["q3"], "-k", 2).splitlines()
    assert said[0] == "read as: zumbrel boots (price 0 to 50)"
    assert "cheap  Zumbrel boots" in said[1]
    assert "dear" not in "".join(said)
    assert "dear  Zumbrel boots" in run("search", boots, QUERIES["q4"], "-k", 2)


def test_hits_are_shown_with_what_they_are_sorted_by_and_the_price_that_is_asked(boots: Path) -> None:
    listed = run("search", boots, "--filter", "brand = zumbrel", "--sort", "-price").splitlines()[:2]
    asked = [run("search", boots, QUERIES["q3"], "-k", 1), run("search", boots, "zumbrel", "--filter", "price < 50")]
    assert [line.split("boots")[1] for line in listed] == ["  (price 90)", "  (price 20)"]
    assert all("cheap  Zumbrel boots  (price 20)\n" in said for said in asked)
    assert "(price" not in run("search", boots, QUERIES["q4"], "--filter", "brand = zumbrel")
    valued = run("search", boots, "--filter", "price > 0", "--sort", "-value", "-k", 1)
    assert re.search(r"  \(value [0-9.]+, price [0-9.]+\)\n", valued)
    branded = run("search", boots, "--filter", "brand = zumbrel", "--sort", "brand", "-k", 1)
    assert branded.splitlines()[0].endswith("  (brand Zumbrel)")


def test_what_does_not_fit_stands_behind_a_line(boots: Path) -> None:
    said = run("search", boots, QUERIES["q4"], "-k", 4, "--fit", 0.9, "--facets", "brand").splitlines()
    marks = [said.index(line) for line in ("near, but not quite what was asked:", "2 products fit", "brand: Zumbrel 2")]
    assert marks == [2, 5, 6]
    assert [line.split()[0] for line in said[:2] + said[3:5]] == ["1", "2", "3", "4"]
    assert {line.split()[2] for line in said[:2]} == {"cheap", "dear"}
    nothing = run("search", boots, "qwxzv plorf", "--sort", "price")
    assert nothing == "nothing fits: without --sort the nearest are shown\n"
    assert run("search", boots, "!?", "--sort", "price") == "nothing found: the query has no word\n"


def test_without_a_query_products_are_listed(boots: Path) -> None:
    said = run("search", boots, "--filter", "brand = zumbrel", "--sort", "-price", "--explain").splitlines()
    assert [line.split()[2] for line in said[:2]] == ["dear", "cheap"]
    assert said[2:] == ["2 products fit"]
    assert run("search", boots, "--filter", "brand = zumbrel AND price < 50").splitlines()[1:] == ["1 product fits"]
    assert run("search", boots, "--facets", "price", "-k", 1).splitlines()[-1].startswith("price: ")
    for more in ((), ("--sort", "price")):
        assert run("search", boots, "--filter", "price < 0", *more) == "nothing found\n"


def test_a_brand_that_is_a_number_hides_no_others(index_folder: Path, tmp_path: Path) -> None:
    write_products(tmp_path / "new.jsonl", [BOOTS[0], Product("n", "Zumbrel hat", price=3.0, brand="5665")])
    run("update", index_folder, tmp_path / "new.jsonl")
    said = run("search", index_folder, "zumbrel", "--fit", 0.9, "--facets", "brand", "--filter", "price > 0")
    assert re.search(r"brand: .*5665 1.*Zumbrel 1", said)


@pytest.mark.parametrize("more", [(), ("--value", 2)])
def test_a_run_ranks_as_the_service_does(boots: Path, queries: Path, more: tuple[object, ...]) -> None:
    found = ranked(queries, boots, "-k", 50, *more)
    with closing(Shop.open(boots, read_only=True, watching=False)) as shop:
        options = {"limit": 50, "value": more[1] if more else None}
        for query_id, query in QUERIES.items():  # one by one, not together
            assert found[query_id] == [hit.product_id for hit in shop.search(query, **options).hits]
    assert "dear" in found["q4"]
    assert "dear" not in found["q3"]
    assert not list(boots.parent.glob("*sqlite*")), "who searches leaves nothing behind"


def test_a_run_follows_rules_and_changes(boots: Path, queries: Path) -> None:
    with closing(Shop.open(boots)) as shop:
        shop.put_rule("pin", {"action": "pin", "query": "bed", "products": ["dear"]})
    assert ranked(queries, boots)["q1"][0] == "dear"
    assert run("search", boots, "bed", "-k", 1).split()[2] == "dear"
    run("delete", boots, "dear")
    assert "dear" not in ranked(queries, boots)["q4"]
    assert "dear" not in ranked(queries, boots, "--only", "words")["q4"]


def test_some_groups_alone_answer_as_a_shop_does(boots: Path, queries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With changes, rules and filters, and without reading a vector."""
    run("delete", boots, "dear")
    for groups in ("codes", "words", "codes,words"):
        assert "dear" not in ranked(queries, boots, "--only", groups)["q4"]
        with closing(Shop.open(boots, only=groups.split(","))) as shop:
            shop.put_rule("pin", {"action": "pin", "query": "bed", "products": ["cheap"]})
            assert shop.search("bed", limit=1).hits[0].product_id == "cheap"
            with monkeypatch.context() as patched:
                patched.setattr(TokenVectors, "maxsim", lambda *_: pytest.fail("a token was read"))
                (segment,) = shop.live.snapshot.segments
                patched.setattr(type(segment.index.sketch), "nearest", lambda *_: pytest.fail("a vector was read"))
                nothing = SimpleNamespace(shape=segment.index.dense.shape)
                patched.setitem(segment.index.__dict__, "dense", nothing)
                if "words" not in groups:
                    patched.setattr(type(segment.index.titles), "read", lambda *_: pytest.fail("a title was read"))
                hits = shop.search("bed", filter="price < 50", explain=True, limit=40).hits
            assert hits
            assert {hit.fits for hit in hits} >= {True}
            named = {name for hit in hits for name in hit.features} - {"base"}
            assert named <= {f.name for f in FEATURES if f.group in groups.split(",")}
            shop.live.merge()
            assert [hit.product_id for hit in shop.search("bed", filter="price < 50", limit=40).hits] == [
                hit.product_id for hit in hits
            ]
            shop.remove_rule("pin")


def test_what_nobody_has_is_warned_of_beside_the_answer(boots: Path, queries: Path) -> None:
    """On stderr, and for a whole run once."""

    def warned(*asked: object) -> list[str]:
        said = CliRunner().invoke(main, ["search", str(boots), *map(str, asked)])
        assert (said.exit_code, "warning" in said.stdout) == (0, False)
        return [line for line in said.stderr.splitlines() if line.startswith("warning")]

    code = "warning: the lexicon has no code colour: sofa. Fix: write type: sofa"
    field = "warning: no product has a field 'brnd'. Fix: did you mean 'brand'?"
    filtered = ("--filter", 'NOT code = "colour: sofa"')
    assert warned("bed", *filtered, "--facets", "brnd") == [field, code]
    assert warned("--queries", queries, "--run", queries.with_name("run.trec"), *filtered) == [code]


def test_a_run_with_a_fit_holds_what_fits(boots: Path, queries: Path) -> None:
    assert set(ranked(queries, boots, "--fit", 0.9)["q4"]) == {"cheap", "dear"}
    assert len(ranked(queries, boots)["q4"]) == 10


def test_a_run_does_not_take_the_place_of_its_queries(boots: Path, queries: Path, tmp_path: Path) -> None:
    before = queries.read_bytes()
    (tmp_path / "link").symlink_to(queries)
    for named in (queries, tmp_path / "link"):
        result = CliRunner().invoke(main, ["search", str(boots), "--queries", str(queries), "--run", str(named)])
        assert (result.exit_code, "is what the queries are in" in result.output) == (2, True)
    assert queries.read_bytes() == before


def test_a_price_alone_lists_what_costs_that(boots: Path) -> None:
    said = run("search", boots, "under $1,000", "-k", 1000).splitlines()
    assert said[0] == "read as: (price 0 to 1000)"
    assert said[1:] == run("search", boots, "--filter", "price <= 1000", "-k", 1000).splitlines()


def test_groups_are_named_in_any_way_that_says_them(boots: Path, queries: Path) -> None:
    """Twice, in any order, with the value, which is the shop's own, or feature by feature: the same score."""
    codes = ",".join(f.name for f in FEATURES if f.group == "codes")
    found = ranked(queries, boots, "--only", "codes")
    for names in ("codes,codes", "codes,value", "codes,code_share", codes):
        assert ranked(queries, boots, "--only", names) == found
    assert ranked(queries, boots, "--only", "words,codes") == ranked(queries, boots, "--only", "codes,words")
    for names in ("value", "left_out", "compound"):
        said = run("search", boots, "bed", "--only", names, code=2)
        assert f"nothing is found by {names} alone. Fix: add some of codes" in said
    for names in ("", ","):
        assert "--only names nothing" in run("search", boots, "bed", "--only", names, code=2)
    for given in ("codes,words", 5, True):
        with pytest.raises(SettingError, match="features to search by are given in a list"):
            Shop.open(boots, only=given)  # type: ignore[arg-type]
    with closing(Shop.open(boots, only=(name for name in ["codes"]))) as shop:  # type: ignore[arg-type]
        assert 0 < shop.search("bed").found < len(shop)
