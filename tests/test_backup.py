"""A copy of a shop that is served, changed, merged and written anew meanwhile."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import gram.backups
from gram.backups import backup
from gram.cli import main
from gram.code_edits import KIND
from gram.coder.folder import check_model
from gram.errors import GramError
from gram.folders import check_folder, new_folder
from gram.index.segment import Index, check_index
from gram.index.store import Click, Store, store_path
from gram.indexing import make_index
from gram.live import ATTRIBUTE
from gram.records import Product
from gram.serve.keys import make_key
from gram.shop import Shop

QUERIES = ("zumbrel sofa", "black sofa", "lamp 20 in", "wumbrel")


def change(shop: Shop) -> None:
    """Something of all that a shop keeps beside its segment."""
    old = str(shop.live.searcher.index.table.ids[0])
    shop.update([Product("new", "Zumbrel navy sofa", brand="Zumbrel", price=9.0), Product("x", "Zumbrel lamp")])
    shop.delete([old])
    slot, value = next(iter(shop.live.searcher.lexicon.attributes))
    shop.edit_code("new", slot, value, True)
    shop.add_attribute("brand", "wumbrel")
    shop.update([Product("w", "Wumbrel bed")])
    shop.put_rule("r", {"action": "pin", "query": "lamp", "products": ["new"]})
    shop.store.append_clicks([Click("sofa", "new"), Click("lamp", "x", "purchase")])
    make_key(shop.store, "page", "search")


def answers(shop: Shop) -> list[Any]:
    """What a shop answers to queries, with the scores, and all that its store keeps."""
    hits = [[(hit.product_id, hit.score) for hit in shop.search(query, limit=50).hits] for query in QUERIES]
    kept = [shop.store.all(kind) for kind in ("rule", "key", KIND, ATTRIBUTE)]
    assert all(hits)
    return [*hits, *kept, list(shop.store.clicks()), shop.store.last(), len(shop)]


def opened(index: Path) -> list[Any]:
    """The answers of a shop that is opened anew: one that goes on may differ in the last digit of a score."""
    with Shop.open(index, read_only=True) as shop:
        assert shop.live.searcher.model is not None
        assert shop.live.searcher.model.parent == index.parent
        return answers(shop)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_copy_answers_as_the_shop_does_wherever_it_is_moved(index_folder: Path, tmp_path: Path) -> None:
    with Shop.open(index_folder) as shop:
        change(shop)
        assert backup(index_folder, tmp_path / "copy") == tmp_path / "copy" / "index"
        expected = opened(index_folder)
    store = tmp_path / "copy" / "index.shop.sqlite"
    assert names(tmp_path / "copy") == ["index", "index.shop.sqlite", "model"]
    assert store.read_bytes()[18] == 1, "it needs no write-ahead log"
    for name in ("index", "model"):
        shutil.rmtree(tmp_path / name)
    moved = (tmp_path / "copy").rename(tmp_path / "moved")
    assert opened(moved / "index") == expected
    with Shop.open(moved / "index") as shop:
        assert shop.update([Product("later", "Zumbrel bed")]) == 1
        shop.live.merge()
    assert opened(moved / "index")[-1] == expected[-1] + 1


def test_an_index_that_nothing_changed_has_a_copy_without_a_store(index_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    gram.backup(index_folder, tmp_path / "copy")
    assert names(tmp_path / "copy") == ["index", "model"]
    assert names(tmp_path) == ["copy", "index", "model"]


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_a_copy_is_for_who_made_it(index_folder: Path, tmp_path: Path) -> None:
    """A store that all may read in a folder for one alone is for one alone."""
    with Shop.open(index_folder) as shop:
        change(shop)
    store_path(index_folder).chmod(0o644)
    index_folder.chmod(0o750)
    (index_folder / "dense.npy").chmod(0o640)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o2775)
    (tmp_path / "private").mkdir(0o700)
    for name, expected in {"copy": 0o700, "open": 0o2775, "private": 0o700}.items():
        copy = backup(index_folder, tmp_path / name)
        assert mode(tmp_path / name) == expected
        assert mode(store_path(copy)) == 0o600
        assert (mode(copy), mode(copy / "dense.npy")) == (0o750, 0o640), "as they were, to be put back"
        assert mode(copy / "meta.json") == mode(index_folder / "meta.json")


def test_nobody_else_may_read_what_is_half_copied(
    index_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "copy").mkdir(0o755)
    copy, modes = shutil.copyfileobj, set()

    def look(source: Any, target: Any, length: int) -> None:
        modes.add(mode(Path(target.name).parent))
        copy(source, target, length)

    monkeypatch.setattr(shutil, "copyfileobj", look)
    backup(index_folder, tmp_path / "copy")
    assert modes == {0o700}


def once(do: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Has something done when the segment and the model are open, and the store is not copied yet; the tries."""
    copy_store, tries = gram.backups._copy_store, []

    def copy(index: Path, path: Path) -> None:
        tries.append(path)
        if len(tries) == 1:
            do()
        copy_store(index, path)

    monkeypatch.setattr(gram.backups, "_copy_store", copy)
    monkeypatch.setattr(gram.backups, "PAUSE", 0)
    return tries


def test_a_merge_between_segment_and_store_leads_to_a_second_try(
    index_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The merge forgets in the store what the segment that was opened lacks."""
    with Shop.open(index_folder) as shop:
        change(shop)
        tries = once(shop.live.merge, monkeypatch)
        backup(index_folder, tmp_path / "copy")
        assert not shop.store.changes()
        assert opened(tmp_path / "copy" / "index") == opened(index_folder)
    assert len(tries) == 2


def test_a_folder_that_took_the_place_of_one_that_is_open_is_told_from_it(tmp_path: Path) -> None:
    """A file system gives the number of a folder that is gone to the next one; not while it is open."""
    folder = tmp_path / "folder"
    folder.mkdir()
    with ExitStack() as opened:
        one = gram.backups._Folder(folder, opened)
        assert one.stands()
        for _ in range(5):
            folder.rmdir()
            folder.mkdir()
            assert not one.stands()


def test_a_model_that_is_fitted_meanwhile_leads_to_a_second_try(
    index_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"

    def fit() -> None:
        with new_folder(model, marker="lexicon.jsonl") as draft:
            for file in model.iterdir():
                if file.name != "checksums.json":
                    shutil.copy(file, draft / file.name)
            (draft / "health.json").write_text('{"fitted": true}')

    tries = once(fit, monkeypatch)
    backup(index_folder, tmp_path / "copy")
    assert len(tries) == 2
    assert json.loads((tmp_path / "copy" / "model" / "health.json").read_text()) == {"fitted": True}


def test_a_segment_that_is_replaced_while_its_bytes_are_copied(
    index_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is open, and is copied as it was at the moment of the store."""
    with Shop.open(index_folder) as shop:
        change(shop)
        expected, copy = opened(index_folder), shutil.copyfileobj

        def merge_and_copy(*arguments: Any) -> None:
            monkeypatch.setattr(shutil, "copyfileobj", copy)
            shop.live.merge()
            copy(*arguments)

        monkeypatch.setattr(shutil, "copyfileobj", merge_and_copy)
        backup(index_folder, tmp_path / "copy")
        assert not shop.store.changes()
    with Store.open(tmp_path / "copy" / "index.shop.sqlite")._connection as connection:
        assert connection.execute("SELECT count(*) FROM change").fetchone()[0] == 4
    assert opened(tmp_path / "copy" / "index") == expected


def test_an_index_that_is_written_anew_all_the_time_is_told(
    index_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gram.backups, "PAUSE", 0)
    monkeypatch.setattr(gram.backups._Folder, "stands", lambda self: False)
    with pytest.raises(GramError, match=r"anew 20 times while it was opened\. Fix: wait"):
        backup(index_folder, tmp_path / "copy")
    assert names(tmp_path) == ["index", "model"]


def test_the_index_says_what_its_model_is_called_after_it_is_open(
    index_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read before may be of the one that stood there before."""
    shutil.copytree(tmp_path / "model", tmp_path / "other")
    read, reads = gram.backups.read_meta, []

    def read_and_replace(path: Path) -> dict[str, Any]:
        meta = read(path)
        reads.append(path)
        if len(reads) == 2:  # the first asks whether it is an index
            gram.backups._rename_model(index_folder, "other")
        return meta

    monkeypatch.setattr(gram.backups, "read_meta", read_and_replace)
    monkeypatch.setattr(gram.backups, "PAUSE", 0)
    copy = backup(index_folder, tmp_path / "copy")
    assert check_index(copy)["model"] == "other"
    assert names(tmp_path / "copy") == ["index", "other"]


@pytest.mark.parametrize("moved", ["index", "model"])
def test_a_folder_that_is_away_for_a_moment_leads_to_a_second_try(
    index_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: str
) -> None:
    """As between two renames, where a file system cannot exchange two folders."""
    folder, away, opening = tmp_path / moved, tmp_path / "away", gram.backups._Folder
    pauses = []

    def take_away(path: Path, opened: ExitStack) -> gram.backups._Folder:
        if path == folder and not pauses:
            folder.rename(away)
        return opening(path, opened)

    def wait(seconds: float) -> None:
        pauses.append(seconds)
        away.rename(folder)

    monkeypatch.setattr(gram.backups, "_Folder", take_away)
    monkeypatch.setattr(gram.backups.time, "sleep", wait)
    backup(index_folder, tmp_path / "copy")
    assert pauses == [gram.backups.PAUSE]
    assert names(tmp_path / "copy") == ["index", "model"]


@pytest.mark.parametrize(("gone", "told"), [("index", "no such file. So this is no index"), ("model", "is not there")])
def test_what_is_deleted_meanwhile_is_told_as_gone(
    index_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str, told: str
) -> None:
    gram.backups._rename_model(index_folder, "model")  # there is another one where it was built
    once(lambda: shutil.rmtree(tmp_path / gone), monkeypatch)
    with pytest.raises(GramError, match=told):
        backup(index_folder, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_what_was_answered_before_is_in_each_copy(index_folder: Path, tmp_path: Path) -> None:
    with Shop.open(index_folder) as shop:
        answered, stop = [0], threading.Event()

        def go_on() -> None:
            while not stop.is_set():
                number = answered[0] + 1
                shop.update([Product(f"{number}-a", "Zumbrel"), Product(f"{number}-b", "Zumbrel")])
                shop.store.append_clicks([Click("zumbrel", f"{number}-a")])
                answered[0] = number
                if number % 5 == 0:
                    shop.live.merge()

        writing = threading.Thread(target=go_on)
        writing.start()
        copies = []
        for number in range(6):
            copies.append((answered[0], backup(index_folder, tmp_path / f"copy{number}")))
        stop.set()
        writing.join()
    assert copies[-1][0] > 0
    for before, copy in copies:
        with Shop.open(copy) as shop:
            there = {p for p in range(1, answered[0] + 2) if shop.product(f"{p}-a")}
            assert there == {p for p in range(1, answered[0] + 2) if shop.product(f"{p}-b")}, "no change by half"
            assert there == set(range(1, len(there) + 1)), "and none without those before it"
            assert len(there) >= before
            assert len(list(shop.store.clicks())) in (len(there), len(there) - 1)


def test_a_model_of_another_name_is_found_by_the_copy(index_folder: Path, tmp_path: Path) -> None:
    """It is called as the index calls it."""
    (tmp_path / "model").rename(tmp_path / "renamed")
    backup(index_folder, tmp_path / "copy", tmp_path / "renamed")
    assert names(tmp_path / "copy") == ["index", "model"]


@pytest.mark.parametrize("model", ["models/Index", "models"])
def test_a_model_that_cannot_have_its_name_gets_another(
    index_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    """That of the index, or none, as of a model that was named by `.`."""
    (tmp_path / "models").mkdir()
    (tmp_path / "model").rename(tmp_path / "models" / "Index")
    monkeypatch.chdir(tmp_path / model)
    named = "." if model == "models/Index" else "Index"
    make_index(named, list(Index.open(index_folder).table)[:20], index_folder)
    backup(index_folder, tmp_path / "copy")
    assert names(tmp_path / "copy") == ["index", "index.model"]
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(tmp_path / "models")
    with Shop.open(tmp_path / "copy" / "index") as shop:
        assert shop.search("sofa").hits
        shop.live.merge()
    assert check_index(tmp_path / "copy" / "index")["model"] == "index.model"


@pytest.mark.parametrize(
    "odd",
    ["", "..", "a/..", "Index", "a/index.shop.sqlite", "Index.shop.sqlite-WAL", "index.shop.sqlite-shm",
     "index.shop.sqlite-journal", ".draft.index", ".lock.index", "a/.old.model", ".Draft.x"],
)  # fmt: skip
def test_a_name_that_something_else_has_there_is_no_models(odd: str) -> None:
    assert gram.backups._model_name({"model": odd}, "index") == "index.model"


@pytest.mark.parametrize("plain", ["model", "a/model", "index.shop", "index.model", ".draft", "index.shop.sqlite-wall"])
def test_any_other_name_stays_the_models(plain: str) -> None:
    assert gram.backups._model_name({"model": plain}, "index") == Path(plain).name


def test_an_index_that_holds_a_folder_may_get_another_model_name(index_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model").rename(tmp_path / ".old.model")
    (index_folder / "notes").mkdir()
    (index_folder / "notes" / "meta.json").write_text("mine")
    gram.backups._rename_model(index_folder, ".old.model")
    copy = backup(index_folder, tmp_path / "copy")
    assert names(tmp_path / "copy") == ["index", "index.model"]
    assert check_index(copy)["model"] == "index.model"
    assert (copy / "notes" / "meta.json").read_text() == "mine"


def spoil(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))


def spoil_store(index: Path) -> None:
    with Shop.open(index) as shop:
        shop.store.append_clicks(Click("sofa", f"p{number}") for number in range(2000))
    pages = bytearray(store_path(index).read_bytes())
    pages[-3000:-2000] = bytes(1000)
    store_path(index).write_bytes(pages)


def dangle(index: Path) -> None:
    store_path(index).symlink_to(index.with_name("none.sqlite"))


REFUSED: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "a folder that holds something": ("copy", "holds files already. Fix: empty it", lambda at: (at / "copy/x").mkdir()),
    "a file": ("copy/x", "is a file, and a folder", lambda at: (at / "copy/x").write_text("")),
    "in the index": ("index/copy", "lies in the folder of a model or an index. Fix: write", lambda at: None),
    "in the model": ("model/a/copy", "lies in the folder of a model or an index. Fix: write", lambda at: None),
    "the store": ("index.shop.sqlite", "is the store of a live shop. Fix: name", lambda at: None),
    "no index": ("none/copy", "is no index. Fix: gram index", lambda at: (at / "index/meta.json").unlink()),
    "a damaged index": ("copy", "index/dense.npy: is damaged", lambda at: spoil(at / "index/dense.npy")),
    "a part of an index": ("copy", "index/dense.npy: cannot", lambda at: (at / "index/dense.npy").unlink()),
    "a damaged model": ("copy", "model/trie.is_end.npy: is damaged", lambda at: spoil(at / "model/trie.is_end.npy")),
    "a link to no store": ("copy", "is a link to a store that is not there. Fix: put", lambda at: dangle(at / "index")),
    "a damaged store": ("copy", "sqlite: the store cannot be copied", lambda at: spoil_store(at / "index")),
}
"""Where the copy is to lie, what is told, and what is done before."""


@pytest.mark.parametrize(("target", "told", "before"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_copied_leaves_nothing(
    index_folder: Path, tmp_path: Path, target: str, told: str, before: Callable[[Path], object]
) -> None:
    (tmp_path / "copy").mkdir()
    before(tmp_path)
    there = sorted(tmp_path.rglob("*"))
    with pytest.raises(GramError, match="Fix: ") as refused:
        backup(index_folder, tmp_path / target)
    assert told in str(refused.value)
    assert ".draft." not in str(refused.value)
    assert [path for path in sorted(tmp_path.rglob("*")) if not path.name.endswith(("-wal", "-shm"))] == there


def test_the_folder_one_is_in_is_refused(index_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One would stay in the empty one that the copy took the place of."""
    (tmp_path / "copy").mkdir()
    monkeypatch.chdir(tmp_path / "copy")
    for folder in (".", "../copy", tmp_path / "copy"):
        with pytest.raises(GramError, match=r"is the folder you are in\. Fix: name another one"):
            backup(index_folder, folder)
    assert backup(index_folder, "monday") == Path("monday", "index")


@pytest.mark.parametrize("odd", ["{}\0", "{}\ud83c"])
def test_a_text_that_names_no_path_is_refused(index_folder: Path, tmp_path: Path, odd: str) -> None:
    named = [str(index_folder), str(tmp_path / "copy"), str(tmp_path / "model")]
    for at in range(3):
        paths = [odd.format(path) if number == at else path for number, path in enumerate(named)]
        with pytest.raises(GramError, match=r"holds what no name of a file may\. Fix: check the path") as refused:
            backup(*paths)
        assert str(refused.value).isascii()
        assert "\0" not in str(refused.value)


def test_a_name_that_is_no_text_is_copied(index_folder: Path, tmp_path: Path) -> None:
    """As `ls` shows it with a question mark."""
    odd = index_folder.rename(tmp_path / os.fsdecode(b"index\xff"))
    with Shop.open(odd) as shop:
        change(shop)
    assert opened(backup(odd, tmp_path / "copy")) == opened(odd)


def test_an_index_of_another_model_is_refused(index_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model" / "lexicon.jsonl").open("a").write("\n")
    (tmp_path / "model" / "checksums.json").write_text(
        json.dumps({"config.json": json.loads((tmp_path / "model" / "checksums.json").read_text())["config.json"]})
    )
    check_model(tmp_path / "model")
    with pytest.raises(GramError, match="was built with model"):
        backup(index_folder, tmp_path / "copy", tmp_path / "model")
    assert names(tmp_path) == ["index", "model"]


def test_a_full_disk_is_told_and_leaves_nothing(
    index_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    with pytest.raises(GramError, match=r"copy: No space left on device\. Fix: free some space"):
        backup(index_folder, tmp_path / "copy")
    monkeypatch.undo()
    with Shop.open(index_folder) as shop:
        change(shop)
        make = sqlite3.connect

        def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
            connection = make(*arguments, **options)
            if Path(str(arguments[0])).parent.name == ".draft.copy":
                connection.execute("PRAGMA max_page_count=2")
            return connection

        monkeypatch.setattr(sqlite3, "connect", connect)
        with pytest.raises(GramError, match=r"is full\). Fix: see that there is space"):
            backup(index_folder, tmp_path / "copy")
    assert names(tmp_path) == ["index", "index.shop.sqlite", "model"]


def test_what_a_killed_one_left_is_cleared(index_folder: Path, tmp_path: Path) -> None:
    (tmp_path / ".draft.copy").mkdir()
    (tmp_path / ".draft.copy" / "half").write_text("")
    backup(index_folder, tmp_path / "copy")
    assert names(tmp_path) == ["copy", "index", "model"]


def test_the_command_and_a_service_of_the_copy(index_folder: Path, tmp_path: Path) -> None:
    def run(*arguments: object, code: int = 0) -> str:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == code, result.output
        return result.output

    with Shop.open(index_folder) as shop:
        change(shop)
        assert f"copy: {tmp_path / 'copy' / 'index'}" in run("backup", index_folder, "-o", tmp_path / "copy")
    assert "holds files already" in run("backup", index_folder, "-o", tmp_path / "copy", code=2)
    for name in ("index", "model"):
        shutil.rmtree(tmp_path / name)
        assert "whole: " in run("check", tmp_path / "copy" / name)
        check_folder(tmp_path / "copy" / name, "")
    index = tmp_path / "copy" / "index"
    answer = json.loads(run("serve", index, "--get", "/search?q=lamp&limit=3"))
    assert (answer["hits"][0]["product_id"], answer["rules"]) == ("new", ["r"])
    assert "new  Zumbrel navy sofa" in run("search", index, "zumbrel", "-k", 2)
    assert run("keys", index, "list") == "page\tsearch\n"


def test_a_copy_that_is_put_back_is_taken_in_by_who_reads_and_by_no_writer(index_folder: Path, tmp_path: Path) -> None:
    """A writer that went on would write into a file that nobody opens again."""
    store = store_path(index_folder)
    with Shop.open(index_folder) as writer, Shop.open(index_folder, read_only=True) as reader:
        writer.update([Product("kept", "Zumbrel sofa")])
        backup(index_folder, tmp_path / "copy")
        writer.update([Product("later", "Zumbrel lamp")])
        assert reader.live.refresh()
        assert {"kept", "later"} <= {hit.product_id for hit in reader.search("zumbrel").hits}
        for name in (store.name, f"{store.name}-wal", f"{store.name}-shm"):
            store.with_name(name).rename(tmp_path / f"away.{name}")
        with pytest.raises(GramError, match=r"taken away or replaced while it is open\. Fix: stop every process"):
            writer.update([Product("lost", "Zumbrel bed")])
        assert not reader.live.refresh(), "what it has goes on"
        shutil.copy(tmp_path / "copy" / store.name, store)
        with pytest.raises(GramError, match="taken away or replaced"):
            writer.put_rule("r", {"action": "hide", "query": "lamp", "products": ["kept"]})
        assert reader.live.refresh()
        assert [hit.product_id for hit in reader.search("zumbrel").hits][:1] == ["kept"]
        assert reader.product("later") is None
        assert not reader.live.refresh()
