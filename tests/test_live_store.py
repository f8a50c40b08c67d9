"""The store of a live index: changes and entries that are durable and numbered."""

from __future__ import annotations

import multiprocessing
import sqlite3
import threading
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from click.testing import CliRunner

from gram.cli import main
from gram.errors import IndexFolderError
from gram.index import store as stores
from gram.index.store import SCHEMA, Change, Store, store_path
from gram.records import Product
from gram.shop import Shop


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


def open_first(folder: Path, read_only: bool, barrier: Barrier) -> None:
    for number in range(40):
        path = folder / f"{number}.sqlite"
        barrier.wait(60)
        while read_only and not path.exists():
            pass
        store = Store.open(path, read_only)
        assert (store.last(), store.all("rule"), store.last_click()) == (0, {}, 0)
        store.close()


def test_a_store_is_made_whole_whoever_opens_it_meanwhile(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(3)
    processes = [spawn.Process(target=open_first, args=(tmp_path, reads, barrier)) for reads in (False, False, True)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
    assert [process.exitcode for process in processes] == [0, 0, 0]


def test_a_reader_waits_for_tables_and_says_what_it_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.sqlite"
    begun = sqlite3.connect(path, check_same_thread=False)
    begun.execute("PRAGMA journal_mode=WAL")
    begun.execute(SCHEMA.split(";")[0])
    later = threading.Timer(0.2, begun.executescript, [SCHEMA])
    later.start()
    Store.open(path, read_only=True).close()
    later.join()
    begun.execute("DROP TABLE click")
    monkeypatch.setattr(stores, "WAIT", 0.1)
    with pytest.raises(IndexFolderError, match=r"the store has no tables yet\. Fix: open it again once"):
        Store.open(path, read_only=True)
    begun.close()


def test_a_store_that_may_not_be_opened_is_not_to_be_moved_away(tmp_path: Path) -> None:
    """Nothing is wrong with it."""
    (tmp_path / "x.shop.sqlite").mkdir()
    with pytest.raises(IndexFolderError, match=r"unable to open database file\)\. Fix: see that this process may"):
        Store.open(tmp_path / "x.shop.sqlite")


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        (sqlite3.OperationalError("disk I/O error"), "free some space on its disk"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "see that this process may"),
        (sqlite3.DatabaseError("database disk image is malformed"), "restore it from a copy, or move it away"),
    ],
)
def test_what_keeps_a_store_from_being_opened_has_its_own_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: sqlite3.Error, fix: str
) -> None:
    def refuse(_: sqlite3.Connection) -> bool:
        raise said

    monkeypatch.setattr(stores, "_make", refuse)
    with pytest.raises(IndexFolderError, match=rf"cannot be used \({said}\)\. Fix: {fix}"):
        Store.open(tmp_path / "x.sqlite")


def test_a_store_that_has_no_space_to_be_made_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = stores._make

    def make_small(connection: sqlite3.Connection) -> bool:
        connection.execute("PRAGMA max_page_count=2")
        return make(connection)

    monkeypatch.setattr(stores, "_make", make_small)
    with pytest.raises(IndexFolderError, match=r"disk is full\)\. Fix: free some space on its disk"):
        Store.open(tmp_path / "x.sqlite")


def test_a_full_disk_is_told_and_takes_nothing(tmp_path: Path) -> None:
    """SQLite rolls back by itself then, and says so where one asks it to."""
    store = Store.open(tmp_path / "x.sqlite")
    store.write([Change("a", "1")])
    store._connection.execute("PRAGMA max_page_count=12")
    with pytest.raises(sqlite3.OperationalError, match="database or disk is full"):
        store.write([Change("b", "2"), Change("c", "3", bytes(100_000))])
    store._connection.execute("PRAGMA max_page_count=1000")
    assert store.write([Change("d", "4")]) == 2, "none of the others came"
    assert [change.product_id for change in store.changes()] == ["a", "d"]
    store.close()


def test_what_cannot_be_committed_is_taken_back(tmp_path: Path) -> None:
    """The next one would find itself inside it."""
    store = Store.open(tmp_path / "x.sqlite")
    store._connection.executescript(
        "PRAGMA foreign_keys=ON; CREATE TABLE late (n REFERENCES change DEFERRABLE INITIALLY DEFERRED);"
        "CREATE TRIGGER t AFTER INSERT ON click BEGIN INSERT INTO late VALUES (7); END;"
    )
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        store.append_clicks([stores.Click("sofa", "a")])
    assert store.write([Change("a", "1")]) == 1
    assert store.last_click() == 0
    store.close()


def test_a_copy_has_what_is_committed_and_nothing_else(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "x.sqlite")
    store.write([Change("a", "1"), Change("b", "2")], ("rule", "r", {"x": 1}))
    store.forget(2)
    other = sqlite3.connect(tmp_path / "x.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO change (product_id) VALUES ('half')")
    store.copy(tmp_path / "copy.sqlite")
    other.execute("ROLLBACK")
    other.close()
    assert sorted(path.name for path in tmp_path.glob("copy*")) == ["copy.sqlite"]
    copy = Store.open(tmp_path / "copy.sqlite")
    assert (copy.changes(), copy.last(), copy.all("rule")) == ([], 2, {"r": {"x": 1}}), "numbers go on"
    copy.close()
    store.close()


def test_changes_are_numbered_behind_what_the_segment_holds(index_folder: Path) -> None:
    """A store that is new, or put back from a copy, counts from below: the segment would pass over its changes, and
    the next merge forget them."""
    store = store_path(index_folder)
    with Shop.open(index_folder) as shop:
        shop.update([Product(f"a{i}", "Zumbrel sofa") for i in range(5)])
        shop.live.merge()
    for file in store.parent.glob(f"{store.name}*"):
        file.unlink()
    with Shop.open(index_folder) as shop:
        shop.update([Product("new", "Zumbrel lamp")])
        shop.delete(["a0"])
    with Shop.open(index_folder) as shop:
        assert shop.product("new") is not None
        assert shop.product("a0") is None
        shop.live.merge()
        assert shop.product("new") is not None
    with Shop.open(index_folder) as shop:
        assert shop.product("new") is not None
        assert shop.product("a0") is None


def test_a_store_that_is_damaged_within_is_told(index_folder: Path) -> None:
    store = store_path(index_folder)
    with Shop.open(index_folder) as shop:
        shop.update([Product(f"a{i}", "Zumbrel sofa") for i in range(40)])
        connection = shop.store._connection
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        root, size = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'change'").fetchone()[0], 4096
    with store.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(bytes(range(256)) * (size // 256))
    with pytest.raises(IndexFolderError, match=r"Fix: (stop every process|restore it)"):
        Shop.open(index_folder)
    told = CliRunner().invoke(main, ["check", str(index_folder)])
    assert told.exit_code == 2
    assert "store" in told.output
    assert "Traceback" not in told.output
