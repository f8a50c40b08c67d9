"""A live index: what is answered is there, after a restart and a kill as well; segments give what one gives."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gram.folders
from gram.coder.base import QueryRepresentation
from gram.coder.packing import read_back
from gram.data.catalogue import read_products
from gram.errors import DataError, IndexFolderError, SettingError
from gram.index.filters import DEEPEST
from gram.index.segment import Index
from gram.index.state import state_of
from gram.index.store import store_path
from gram.indexing import make_index
from gram.records import Product
from gram.remembered import Remembered
from gram.search import Searcher
from gram.serve.run import _take_in
from gram.shop import Shop


def ids(shop: Shop, query: str, **options: object) -> list[str]:
    return [hit.product_id for hit in shop.search(query, **options).hits]


def test_a_fresh_index_answers_as_its_searcher_does(index_folder: Path) -> None:
    shop = Shop.open(index_folder)
    searcher = shop.live.searcher
    for query in ("black sofa", "womens running shoes", "lamp 20 in"):
        hits = searcher.search(query, k=20)
        assert [(h.product_id, h.score) for h in shop.search(query, limit=20).hits] == [
            (h.product_id, h.score) for h in hits
        ]
    shop.close()


def test_what_is_answered_is_visible_and_stays(index_folder: Path) -> None:
    shop = Shop.open(index_folder)
    n = len(shop)
    assert shop.update([Product("new", "Zumbrel navy sofa", brand="Zumbrel", price=9.0)]) == 1
    assert ids(shop, "zumbrel")[0] == "new"
    shop.update([Product("new", "Zumbrel green lamp", price=11.0)])
    assert shop.product("new").title == "Zumbrel green lamp"  # type: ignore[union-attr]
    assert ids(shop, "zumbrel", filter="price = 11") == ["new"]
    old = str(shop.live.searcher.index.table.ids[0])
    assert shop.delete([old, "unknown"]) == 1
    shop.patch("new", {"price": 12.5, "stock": ("7",)})
    assert len(shop) == n
    shop.close()
    again = Shop.open(index_folder)
    assert len(again) == n
    assert again.product(old) is None
    assert (again.product("new").price, again.product("new").attributes) == (12.5, {"stock": ("7",)})  # type: ignore[union-attr]
    assert ids(again, "zumbrel")[0] == "new"
    again.close()


def test_a_patch_of_price_codes_nothing(index_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop.open(index_folder)
    product_id = str(shop.live.searcher.index.table.ids[3])
    title = shop.product(product_id).title  # type: ignore[union-attr]
    before = {h.product_id: h.score for h in shop.search(title, limit=20).hits}
    coder = type(shop.live.searcher.coder)
    monkeypatch.setattr(coder, "represent_tokenized", lambda *_, **__: pytest.fail("something was coded"))
    shop.patch(product_id, {"price": 3.0})
    monkeypatch.undo()
    after = {h.product_id: h.score for h in shop.search(title, limit=20).hits}
    assert shop.search("", filter="price = 3").hits[0].product_id == product_id
    assert after == pytest.approx(before, abs=1e-3)
    shop.close()


def test_values_are_ranked_among_those_of_the_whole_shop(small_shop: Path, tmp_path: Path) -> None:
    """A live change of something else leaves a product in its place, for whoever reads it and in however many parts."""
    old = Shop.open(small_shop / "index", small_shop / "model", read_only=True)
    table = old.live.searcher.index.table
    products = [table[row]._replace(value=float(row)) for row in range(40)]
    old.close()
    make_index(small_shop / "model", products, tmp_path / "index")
    shop = Shop.open(tmp_path / "index", small_shop / "model")
    by_value = [p.product_id for p in reversed(products)]
    assert ids(shop, "", facets=("brand",), limit=40) == by_value
    for product_id in (by_value[0], by_value[20], by_value[39], by_value[7]):
        shop.patch(product_id, {"stock": ("1",)})
        assert ids(shop, "", facets=("brand",), limit=40) == by_value
    shop.patch(by_value[39], {"value": 31.5})
    moved = [*by_value[:8], by_value[39], *by_value[8:39]]
    assert ids(shop, "", facets=("brand",), limit=40) == moved
    shop.close()
    shop = Shop.open(tmp_path / "index", small_shop / "model")
    assert ids(shop, "", facets=("brand",), limit=40) == moved, "read in one part"
    shop.live.merge()
    assert ids(shop, "", facets=("brand",), limit=40) == moved
    shop.close()


def test_several_segments_give_what_one_gives(index_folder: Path, small_shop: Path, tmp_path: Path) -> None:
    """Every third product goes and comes back in segments of memory; a merge makes the same index as one written
    anew."""
    shop = Shop.open(index_folder)
    table = shop.live.searcher.index.table
    some = [table[row] for row in range(0, len(table), 3)]
    for begin in range(0, len(some), 7):
        shop.update(some[begin : begin + 7])
    assert len(shop.live.snapshot.segments) > 2
    queries = ["black sofa", "womens running shoes", "navy dress", "lamp 20 in", "hydrating shampoo"]
    one = Shop.open(shutil.copytree(small_shop / "index", tmp_path / "one"), small_shop / "model")
    for query in queries:
        split, whole = ids(shop, query, limit=100), ids(one, query, limit=100)
        assert len(set(split) & set(whole)) >= 0.9 * len(whole)
        assert split[0] == whole[0]
    shop.live.merge()
    assert len(shop.live.snapshot.segments) == 1
    assert shop.store.changes() == []
    for query in queries:
        merged = {h.product_id: h.score for h in shop.search(query, limit=100).hits}
        assert merged == pytest.approx({h.product_id: h.score for h in one.search(query, limit=100).hits}, abs=1e-4)
    shop.close()
    one.close()


def test_all_that_match_a_filter_are_found(index_folder: Path) -> None:
    shop = Shop.open(index_folder)
    shop.update(Product(f"r{i}", f"Plain thing {i}", attributes={"rare": ("yes",)}) for i in range(5))
    assert sorted(ids(shop, "black sofa", filter="rare = yes", limit=100)) == [f"r{i}" for i in range(5)]
    everything = shop.search("", filter="EXISTS price", sort="-price", limit=300)
    prices = [shop.product(h.product_id).price for h in everything.hits]  # type: ignore[union-attr]
    assert prices == sorted(prices, reverse=True)  # type: ignore[type-var]
    assert everything.found == len(prices)
    shop.close()


def test_a_price_in_the_query_is_a_range(index_folder: Path) -> None:
    shop = Shop.open(index_folder)
    result = shop.search("sofa under $600", limit=100)
    prices = [shop.product(h.product_id).price for h in result.hits]  # type: ignore[union-attr]
    assert prices
    assert max(p for p in prices if p is not None) <= 600
    assert result.read_as == "sofa (price 0 to 600)"
    assert shop.search("sofa under 600").read_as == "sofa under 600", "a bare number may be a size"
    shop.close()


def test_rules_steer(index_folder: Path) -> None:
    shop = Shop.open(index_folder)
    first, second, third = ids(shop, "black sofa")[:3]
    shop.put_rule("pin", {"action": "pin", "query": "black sofas", "products": [third]})
    shop.put_rule("hide", {"action": "hide", "query": "black sofa", "products": [first]})
    result = shop.search("black sofa")
    assert [h.product_id for h in result.hits[:2]] == [third, second]
    assert sorted(result.rules) == ["hide", "pin"]
    shop.put_rule("bury", {"action": "bury", "query": "black sofa", "products": [second]})
    result = shop.search("black sofa", limit=1000)
    assert result.hits[result.found - 1].product_id == second, "last of what fits"
    shop.close()
    again = Shop.open(index_folder)
    assert ids(again, "black sofa")[0] == third
    assert again.remove_rule("pin")
    assert sorted(again.search("black sofa").rules) == ["bury", "hide"]
    again.close()


def test_a_word_is_known_as_long_as_a_product_has_it(index_folder: Path) -> None:
    """A service whose products change for months would else keep each word that one of them ever had."""
    shop = Shop.open(index_folder)
    assert shop.search("bedrroom").read_as == "bedroom"
    shop.update([Product("new", "Bedrroom")])
    assert shop.search("bedrroom").read_as == "bedrroom"
    shop.update([Product("other", "Bedrroom")])
    shop.delete(["new"])
    assert shop.search("bedrroom").read_as == "bedrroom"
    shop.delete(["other"])
    assert shop.search("bedrroom").read_as == "bedroom"
    shop.update([Product("new", "Bedrroom"), Product("beside", "Lamp")])
    shop.update([Product("new", "Lamp")])
    assert shop.search("bedrroom").read_as == "bedroom", "another product of the same segment lives on"
    shop.close()


def test_a_hiding_filter_as_deep_as_a_filter_may_be_hides(index_folder: Path) -> None:
    """It is not written into another one, which could then not be read: every search that met it would fail."""
    shop = Shop.open(index_folder)
    first = ids(shop, "black sofa")[0]
    shop.put_rule("hide", {"action": "hide", "query": "black sofa", "filter": "NOT " * (DEEPEST - 1) + "stock > 3"})
    assert ids(shop, "black sofa") == [], "an odd number of NOTs: no product has a stock"
    shop.put_rule("hide", {"action": "hide", "query": "black sofa", "filter": "NOT " * (DEEPEST - 2) + "stock > 3"})
    assert ids(shop, "black sofa")[0] == first
    shop.close()


def test_rules_that_were_put_are_not_taken_in_again(index_folder: Path) -> None:
    shop = Shop.open(index_folder)
    for rule_id in ("b", "c", "a", "b"):
        shop.put_rule(rule_id, {"action": "hide", "query": "sofa", "products": ["x"]})
        answer = shop.search("black sofa")
        assert not shop.refresh()
        assert shop.search("black sofa") is answer
    shop.close()


def test_a_rule_that_comes_while_others_are_taken_in_stays(index_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop.open(index_folder)
    hide = {"action": "hide", "query": "sofa", "products": ["a"]}

    def meanwhile() -> bool:
        shop.put_rule("h", hide)
        return False

    monkeypatch.setattr(shop.live, "refresh", meanwhile)
    shop.refresh()
    assert [rule.rule_id for rule in shop.rules()] == ["h"]
    shop.close()


def test_answers_are_remembered_until_a_rule_begins_or_ends(index_folder: Path) -> None:
    shop = Shop.open(index_folder)
    first = ids(shop, "black sofa")[0]
    now = datetime.now(timezone.utc)
    hide = {"action": "hide", "query": "black sofa", "products": [first]}
    shop.put_rule("soon", hide | {"from": (now + timedelta(seconds=0.6)).isoformat()})
    shop.put_rule("draft", hide | {"until": now.isoformat(), "draft": True})
    before = shop.search("black sofa")
    assert shop.search("black sofa") is before
    assert before.hits[0].product_id == first
    time.sleep(0.7)
    after = shop.search("black sofa")
    assert shop.search("black sofa") is after
    assert first not in [hit.product_id for hit in after.hits]
    shop.close()


def test_a_query_is_coded_once_whatever_page_of_it_is_asked_for(
    index_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, coded = Shop.open(index_folder), []
    represent = Searcher._represent

    def counting(searcher: Searcher, read: Sequence[str], compound: bool) -> list[QueryRepresentation]:
        coded.extend(read)
        return represent(searcher, read, compound)

    monkeypatch.setattr(Searcher, "_represent", counting)
    first = shop.search("black sofra")
    shop.search("black  sofra ", offset=10)
    shop.search("black sofa", value=0.1, facets=("brand",))
    shop.update([Product("other", "Green lamp")])
    assert [hit.product_id for hit in shop.search("black sofra").hits] == [hit.product_id for hit in first.hits]
    assert coded == ["black sofa"]
    shop.update([Product("new", "Sofra")])  # what was a typo is a word since
    assert "new" in ids(shop, "black sofra")
    assert coded == ["black sofa", "black sofra"]
    shop.search("8'6  1/2\" table")  # blanks may tell numbers apart
    shop.search("8'6 1/2\" table")
    assert len(coded) == 4
    del coded[2:]
    shop.add_attribute("style", "zumbrelesque")
    shop.search("black sofra")
    assert coded == ["black sofa", "black sofra", "black sofra"], "the coder may write other attributes since"
    shop.close()


def test_what_is_remembered_takes_no_more_memory_than_it_may(index_folder: Path) -> None:
    shop = Shop.open(index_folder, read_only=True)
    remembered = shop._remembered = Remembered(2_000, most_bytes=4_000_000)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for offset in range(20):
        shop.search("black sofa", limit=100, offset=offset, explain=True, facets=("brand", "price"))
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 3 < len(remembered._values) < 20
    assert 2_000_000 < taken < 5_000_000
    shop.close()


def test_two_may_not_write_but_many_may_read(index_folder: Path) -> None:
    shop = Shop.open(index_folder)
    with pytest.raises(DataError, match="is writing it"):
        Shop.open(index_folder)
    reader = Shop.open(index_folder, read_only=True)
    with pytest.raises(SettingError, match="reading only"):
        reader.update([Product("x", "y")])
    shop.update([Product("new", "Zumbrel sofa")])
    assert reader.product("new") is None
    before = reader.live.snapshot.segments[0]
    assert reader.live.refresh()
    assert reader.live.snapshot.segments[0].fields is before.fields, "what is on disk is not read again"
    assert ids(reader, "zumbrel")[0] == "new"
    shop.put_rule("hide", {"action": "hide", "query": "zumbrel", "products": ["new"]})
    assert reader.refresh()
    assert "new" not in ids(reader, "zumbrel")
    shop.delete(["new"])
    assert reader.refresh()
    assert reader.product("new") is None
    assert len(reader) == len(shop)
    assert not reader.refresh()
    reader.close()
    shop.close()


def test_what_comes_while_another_process_merges_is_not_lost(index_folder: Path) -> None:
    """`gram merge` reads what there is, and more is written before it counts how far it got."""
    shop = Shop.open(index_folder)
    shop.update([Product("before", "Zumbrel sofa")])
    merging = Shop.open(index_folder, read_only=True)
    shop.update([Product("meanwhile", "Zumbrel lamp")])
    merging.live.merge()
    assert shop.refresh()
    assert {"before", "meanwhile"} <= set(ids(shop, "zumbrel"))
    merging.close()
    shop.close()


def test_an_index_written_anew_takes_the_place_of_what_changed(index_folder: Path) -> None:
    shop = Shop.open(index_folder)
    shop.update([Product("new", "Zumbrel sofa")])
    products = list(shop.live.searcher.index.table)
    make_index(index_folder.parent / "model", products[:100], index_folder, replace=True)
    assert shop.live.refresh()
    assert len(shop) == 100
    assert shop.product("new") is None
    shop.close()


def test_an_index_written_anew_that_is_damaged_is_not_taken_in(index_folder: Path) -> None:
    with closing(Shop.open(index_folder)) as shop:
        products = list(shop.live.searcher.index.table)
        make_index(index_folder.parent / "model", products[:100], index_folder, replace=True)
        damaged = index_folder / "dense.npy"
        whole = damaged.read_bytes()
        damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(IndexFolderError, match=r"dense\.npy"):
            shop.live.refresh()
        assert len(shop) == len(products)
        damaged.write_bytes(whole)
        assert shop.live.refresh()
        assert len(shop) == 100


def test_a_damaged_index_is_read_once_until_its_files_change(
    index_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read = Counter[str]()
    checksum = gram.folders._checksum

    def count(path: Path) -> dict[str, Any]:
        read[path.name] += 1
        return checksum(path)

    monkeypatch.setattr(gram.folders, "_checksum", count)
    with closing(Shop.open(index_folder)) as shop, closing(Shop.open(index_folder, read_only=True)) as reader:
        products = list(shop.live.searcher.index.table)
        make_index(index_folder.parent / "model", products[:100], index_folder, replace=True)
        damaged, copy = index_folder / "dense.npy", index_folder / "copy.npy"
        copy.write_bytes(damaged.read_bytes())
        damaged.write_bytes(bytes(9))
        read.clear()
        told = ""
        for _ in range(5):
            told = _take_in(reader.refresh, told)
        assert read["dense.npy"] == 1
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        shop.update([Product("new", "Zumbrel sofa")])
        assert reader.refresh(), "changes are taken in as before"
        assert reader.product("new") is not None
        with pytest.raises(IndexFolderError, match=r"dense\.npy"):
            reader.reload()
        damaged.write_bytes(bytes(8))
        with pytest.raises(IndexFolderError, match=r"dense\.npy"):
            reader.refresh()
        copy.replace(damaged)
        assert shop.refresh()
        assert reader.refresh()
        assert len(shop) == len(reader) == 101


def test_a_reload_looks_again_at_what_was_refused(index_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a disk answered nothing for a while: no file has changed since."""

    def fail(*_: object, **__: object) -> None:
        raise IndexFolderError("the disk is away")

    with closing(Shop.open(index_folder)) as shop:
        products = list(shop.live.searcher.index.table)
        make_index(index_folder.parent / "model", products[:100], index_folder, replace=True)
        with monkeypatch.context() as patch:
            patch.setattr(Index, "open", fail)
            with pytest.raises(IndexFolderError, match="the disk is away"):
                shop.refresh()
        assert not shop.refresh(), "nobody looks again unasked"
        assert shop.reload()
        assert len(shop) == 100


def test_a_state_is_of_the_index_and_its_model(index_folder: Path) -> None:
    """Also where only the time tells that a file is another one."""
    found = {state_of(index_folder)}
    for file in (index_folder / "dense.npy", index_folder.with_name("model") / "config.json"):
        time.sleep(0.01)
        shutil.copy2(file, index_folder.with_name("copy"))
        index_folder.with_name("copy").replace(file)
        found.add(state_of(index_folder))
    assert len(found) == 3
    assert state_of(index_folder) in found


def test_changes_that_a_catalogue_lacks_are_not_dropped_unasked(
    index_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop.open(index_folder)
    products, model = list(shop.live.searcher.index.table), index_folder.parent / "model"
    first, second = products[:2]
    new = Product("new", "Zumbrel sofa", attributes={"stock": ("7",)})
    shop.update([new, second._replace(title="Zumbrel lamp")])
    shop.patch(first.product_id, {"price": first.price})  # as it was
    shop.delete([products[2].product_id])
    with pytest.raises(DataError) as refusal:
        make_index(model, products, index_folder)
    lost = f"products 2 that came or changed (new, {second.product_id}), 1 that went ({products[2].product_id})"
    assert f"changed live, and the catalogue lacks of it: {lost}. Fix: gram merge {index_folder}" in str(refusal.value)
    assert not shop.live.refresh(), "it stays"
    held = [first, second._replace(title="Zumbrel lamp"), *products[3:], new]
    make_index(model, held, index_folder)
    make_index(model, products, index_folder)  # the first one was the catalogue's own, which may change
    assert not caplog.records
    assert shop.live.refresh()
    shop.update([new])
    make_index(model, products, index_folder, replace=True)
    assert "dropped of what changed live: products 1 that came or changed (new); rules" in caplog.text
    shop.close()


def test_changes_that_were_merged_are_not_dropped_unasked(index_folder: Path) -> None:
    shop = Shop.open(index_folder)
    products, model = list(shop.live.searcher.index.table), index_folder.parent / "model"
    shop.live.merge()
    make_index(model, products[1:], index_folder)  # nothing had changed
    shop.live.refresh()
    shop.update([Product("new", "Zumbrel sofa")])
    shop.delete([products[1].product_id])
    shop.live.merge()
    shop.live.merge()
    others = [*products[2:9], *(product._replace(price=1.5) for product in products[9:])]  # the catalogue's own changes
    make_index(model, [*others, Product("new", "Zumbrel sofa")], index_folder.parent / "other")
    with pytest.raises(DataError, match=r"products 1 that came or changed \(new\)\."):
        make_index(model, others, index_folder)
    with pytest.raises(DataError, match=rf"1 that went \({products[1].product_id}\)"):
        make_index(model, [*others, products[1], Product("new", "Zumbrel sofa")], index_folder)
    make_index(model, read_products(index_folder / "products.jsonl"), index_folder)  # as the error says
    assert shop.live.refresh()
    assert shop.product("new") is not None
    make_index(model, products, index_folder)
    (index_folder / "meta.json").write_text("{")
    make_index(model, products, index_folder)  # which mends it
    shop.close()


def test_words_that_only_a_new_index_has_change_no_code(index_folder: Path, tmp_path: Path) -> None:
    """Words that the lexicon lacks are numbered index by index: what was coded by one is read by the next."""
    products = [*Shop.open(index_folder, read_only=True).live.searcher.index.table, Product("m", "Mumbrel thing")]
    make_index(index_folder.parent / "model", products, index_folder)
    shop = Shop.open(index_folder)
    make_index(index_folder.parent / "model", [*products, Product("a", "Aumbrel thing")], tmp_path / "other")
    shop.update([Product("late", "Mumbrel lamp")])
    shutil.rmtree(index_folder)
    (tmp_path / "other").rename(index_folder)

    def check(shop: Shop) -> None:
        codes = {p: {str(one.code) for one in shop.codes(p).codes} for p in ("a", "m", "late")}  # type: ignore[union-attr]
        assert "modifier: aumbrel" in codes["a"] - codes["m"] - codes["late"]
        assert "modifier: mumbrel" in codes["m"] & codes["late"]
        assert sorted(ids(shop, "", filter='code = "modifier: mumbrel"')) == ["late", "m"]

    assert shop.refresh()
    check(shop)
    shop.close()
    shop = Shop.open(index_folder)
    check(shop)
    shop.close()


def test_a_model_trained_anew_is_taken_with_its_index(index_folder: Path, tmp_path: Path) -> None:
    """The weights of the other model are the same but for one number, so that its hash is another."""
    from safetensors.numpy import load_file, save_file

    from gram.coder.folder import model_hash
    from gram.folders import new_folder

    shop = Shop.open(index_folder)
    products = list(shop.live.searcher.index.table)
    model, before = index_folder.parent / "model", model_hash(index_folder.parent / "model")
    with new_folder(model, marker="lexicon.jsonl") as draft:
        for file in model.iterdir():
            if file.name not in ("checksums.json", "model.safetensors"):
                shutil.copy(file, draft / file.name)
        weights = load_file(model / "model.safetensors")
        weights["network.length_slope"] = np.array(weights["network.length_slope"] + 0.5, dtype=np.float32)
        save_file(weights, draft / "model.safetensors")
    assert model_hash(model) != before
    make_index(model, products, index_folder)
    assert shop.live.refresh()
    fresh = Shop.open(shutil.copytree(index_folder, tmp_path / "copy"), model, read_only=True)
    assert [(h.product_id, h.score) for h in shop.search("lamp").hits] == [
        (h.product_id, h.score) for h in fresh.search("lamp").hits
    ]
    fresh.close()
    shop.close()


def test_killed_at_any_moment_nothing_answered_is_lost(index_folder: Path) -> None:
    script = Path(__file__).parents[1] / "scripts" / "crash_test.py"
    command = [sys.executable, str(script), str(index_folder), "--kills", "4", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["times"] == 4
    assert report["lost"] == report["half"] == 0
    assert report["answered"] > 0


def test_packed_representations_come_back(index_folder: Path) -> None:
    from gram.coder.base import PRODUCT_CODING, Side
    from gram.coder.packing import join, pack, unpack

    shop = Shop.open(index_folder, read_only=True)
    index, coder = shop.live.searcher.index, shop.live.searcher.coder
    products = [index.table[row] for row in (4, 9, 0)]
    made = coder.represent(products, Side.PRODUCT, PRODUCT_CODING)
    width, token_width = made.dense.shape[1], made.token_vectors.vectors.shape[1]
    back = unpack([pack(made, row) for row in range(3)], width, token_width)
    apart = join([unpack([pack(made, row)], width, token_width) for row in range(3)])
    stored = read_back(index, np.array([4, 9, 0]))
    for name in ("lexical", "expansion", "compound"):
        for row in range(3):
            wanted = dict(zip(*map(np.ndarray.tolist, getattr(made, name).of(row)), strict=True))
            for other in (back, apart, stored):
                found = dict(zip(*map(np.ndarray.tolist, getattr(other, name).of(row)), strict=True))
                assert found == pytest.approx(wanted, abs=1e-4)
    assert np.allclose(back.dense, made.dense)
    assert np.array_equal(back.token_vectors.vectors, made.token_vectors.vectors)
    assert store_path(index_folder).name == "index.shop.sqlite"
    shop.close()


def test_one_text_is_no_list(small_shop: Path, tmp_path: Path) -> None:
    shutil.copytree(small_shop / "index", tmp_path / "index")
    shop = Shop.open(tmp_path / "index", small_shop / "model")
    with pytest.raises(SettingError, match="list"):
        shop.delete("12")
    with pytest.raises(SettingError, match="list"):
        shop.search("sofa", facets="brand")
    assert shop.search("sofa", facets=["brand"]).facets["brand"]
    shop.close()
