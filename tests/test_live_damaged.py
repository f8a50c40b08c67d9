"""An index that is damaged under a live shop: it is refused once, and taken in when it is whole."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import gram.folders
from gram.errors import IndexFolderError
from gram.index.segment import Index
from gram.index.state import state_of
from gram.indexing import make_index
from gram.records import Product
from gram.serve.run import _take_in
from gram.shop import Shop


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
