"""An index that is written anew under a live shop: it is taken in whole, and loses nothing unasked."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from asking import ids

from gram.data.catalogue import read_products
from gram.errors import DataError
from gram.indexing import make_index
from gram.records import Product
from gram.shop import Shop


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


def test_two_indexes_of_one_number_are_told_apart(index_folder: Path) -> None:
    """A file system gives a folder's number to the next one but one: two merges between two looks."""
    shop, stat = Shop.open(index_folder, read_only=True), index_folder.stat()
    os.utime(index_folder, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert index_folder.stat().st_ino == stat.st_ino
    assert shop.live.refresh()
    assert not shop.live.refresh()
    shop.close()


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
    assert f"take {index_folder / 'products.jsonl'} into the catalogue" in str(refusal.value)
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
