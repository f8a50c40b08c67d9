"""The store of a live index: changes and entries that are durable and numbered."""

from __future__ import annotations

from pathlib import Path

import pytest

from gram.errors import IndexFolderError
from gram.index.store import Change, Store


def test_a_store_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.shop.sqlite").write_bytes(b"no database at all, but long enough to look like one " * 20)
    with pytest.raises(IndexFolderError, match="the store cannot be used"):
        Store.open(tmp_path / "x.shop.sqlite")


def test_changes_replace_each_other(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "x.sqlite")
    assert store.last() == 0
    assert store.write([Change("a", "1"), Change("b", "2"), Change("a", "3")]) == 3
    assert [(c.product_id, c.product) for c in store.changes()] == [("b", "2"), ("a", "3")]
    store.forget(2)
    assert [c.product_id for c in store.changes(after=2)] == ["a"]
    store.forget(3)
    assert store.write([Change("c")]) == 4, "numbers are never used again"
    store.close()


def test_commits_are_synced_one_by_one(tmp_path: Path) -> None:
    """FULL, for with NORMAL a power cut takes what was answered: scripts/crash_test.py --power-cuts shows it."""
    store = Store.open(tmp_path / "x.sqlite")
    settings = [store._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")]
    store.close()
    assert settings == [2, "wal"]


def test_the_version_changes_when_another_one_commits(tmp_path: Path) -> None:
    writing = Store.open(tmp_path / "x.sqlite")
    reading = Store.open(tmp_path / "x.sqlite", read_only=True)
    first = reading.version()
    assert reading.version() == first
    writing.put("rule", "r", {})
    assert reading.version() != first
    assert Store.open(":memory:").version() == 0
    reading.close()
    writing.close()
