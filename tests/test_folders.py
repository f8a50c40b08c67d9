"""Folders and files appear whole or not at all, also when the writer is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import gram.folders
from gram.errors import DataError
from gram.folders import new_file, new_folder, read_json, write_json


def write(path: Path, version: int, then: Callable[[], object] = lambda: None) -> None:
    """Writes a folder of two halves; `then` is called last, while the new folder is not yet in place."""
    with new_folder(path) as folder:
        (folder / "data").mkdir()
        (folder / "data" / "numbers.txt").write_text(str(version))
        write_json(folder / "meta.json", {"version": version})
        then()


def fail() -> None:
    raise RuntimeError("disk full")


def version(path: Path) -> int:
    """The version of a whole folder; a folder of two halves fails here."""
    meta: int = read_json(path / "meta.json")["version"]
    assert (path / "data" / "numbers.txt").read_text() == str(meta)
    return meta


def names(path: Path) -> list[str]:
    return sorted(child.name for child in path.iterdir())


@pytest.fixture(params=["exchange", "two renames"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "two renames":
        monkeypatch.setattr(gram.folders, "_exchange", lambda first, second: False)


@pytest.mark.usefixtures("_way")
def test_new_folder_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "index", 1)
    assert version(tmp_path / "deep" / "index") == 1
    write(tmp_path / "deep" / "index", 2)
    assert version(tmp_path / "deep" / "index") == 2
    assert names(tmp_path / "deep") == ["index"]


def test_an_open_reader_keeps_the_old_folder(tmp_path: Path) -> None:
    write(tmp_path / "index", 1)
    with (tmp_path / "index" / "data" / "numbers.txt").open() as reader:
        write(tmp_path / "index", 2)
        assert reader.read() == "1"


@pytest.mark.usefixtures("_way")
def test_an_error_leaves_the_old_folder(tmp_path: Path) -> None:
    write(tmp_path / "index", 1)
    with pytest.raises(RuntimeError, match="disk full"):
        write(tmp_path / "index", 2, then=fail)
    assert version(tmp_path / "index") == 1
    assert names(tmp_path) == ["index"]


def test_a_failed_second_rename_puts_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "index", 1)
    rename, calls = Path.rename, []

    def fail_second(source: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise OSError("no space")
        return rename(source, target)

    monkeypatch.setattr(gram.folders, "_exchange", lambda first, second: False)
    monkeypatch.setattr(Path, "rename", fail_second)
    with pytest.raises(OSError, match="no space"):
        write(tmp_path / "index", 2)
    assert version(tmp_path / "index") == 1
    assert names(tmp_path) == ["index"]


def test_a_folder_of_a_stranger_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match=r"no meta\.json.*Fix: empty it"), new_folder(tmp_path):
        pytest.fail("the block ran")
    assert names(tmp_path) == ["thesis.txt"]
    with pytest.raises(DataError, match="is a file"), new_folder(tmp_path / "thesis.txt"):
        pytest.fail("the block ran")


def test_a_strangers_files_that_come_during_the_work_are_kept(tmp_path: Path) -> None:
    def stranger_comes() -> None:
        (tmp_path / "index").mkdir()
        (tmp_path / "index" / "thesis.txt").write_text("years of work")

    with pytest.raises(DataError, match="not ours"):
        write(tmp_path / "index", 1, then=stranger_comes)
    assert names(tmp_path / "index") == ["thesis.txt"]


@pytest.mark.usefixtures("_way")
def test_an_empty_folder_is_replaced_and_another_marker_counts(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with new_folder(tmp_path / "model", marker="config.json") as folder:
        write_json(folder / "config.json", {})
    with pytest.raises(DataError, match=r"meta\.json"), new_folder(tmp_path / "model"):
        pytest.fail("the block ran")
    assert names(tmp_path / "model") == ["config.json"]


def test_a_new_folder_without_its_marker_is_not_finished(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no meta\.json"), new_folder(tmp_path / "index"):
        pass
    assert names(tmp_path) == []


def test_a_link_stays_a_link_to_the_replaced_folder(tmp_path: Path) -> None:
    write(tmp_path / "monday", 1)
    (tmp_path / "current").symlink_to(tmp_path / "monday")
    write(tmp_path / "current", 2)
    assert (tmp_path / "current").is_symlink()
    assert version(tmp_path / "monday") == 2


KILLED_WHILE_WRITING = """
import sys, time
from gram.folders import new_folder, new_file
if sys.argv[2] == "folder":
    with new_folder(sys.argv[1]) as folder:
        (folder / "meta.json").write_text('{"vers')
        print("half", flush=True)
        time.sleep(60)
else:
    with new_file(sys.argv[1]) as written:
        written.write_text("half")
        print("half", flush=True)
        time.sleep(60)
"""


def kill_half_way(path: Path, kind: str) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED_WHILE_WRITING, str(path), kind], stdout=subprocess.PIPE, text=True
    )
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "half\n"
        writer.send_signal(signal.SIGKILL)


def test_a_killed_writer_leaves_the_old_folder_and_the_next_cleans_up(tmp_path: Path) -> None:
    write(tmp_path / "index", 1)
    kill_half_way(tmp_path / "index", "folder")
    assert version(tmp_path / "index") == 1
    assert len(names(tmp_path)) == 2
    mine = f".index.tmp-{os.getpid()}-{gram.folders._host()}-00000000"
    (tmp_path / mine).mkdir()  # of a live process: stays
    write(tmp_path / "index", 2)
    assert names(tmp_path) == [mine, "index"]


def test_a_killed_writer_leaves_the_old_file_and_the_next_cleans_up(tmp_path: Path) -> None:
    (tmp_path / "run.trec").write_text("old")
    kill_half_way(tmp_path / "run.trec", "file")
    assert (tmp_path / "run.trec").read_text() == "old"
    assert len(names(tmp_path)) == 2
    with new_file(tmp_path / "run.trec") as written:
        written.write_text("new")
    assert names(tmp_path) == ["run.trec"]


KILLED_BETWEEN_RENAMES = """
import os, sys
from pathlib import Path
import gram.folders as folders
rename, left = Path.rename, [int(sys.argv[2])]
def dying(source, target):
    if left[0] == 0:
        os._exit(9)
    left[0] -= 1
    return rename(source, target)
Path.rename = dying
folders._exchange = lambda first, second: False
with folders.new_folder(sys.argv[1]) as folder:
    (folder / "data").mkdir()
    (folder / "data" / "numbers.txt").write_text("2")
    folders.write_json(folder / "meta.json", {"version": 2})
    left[0] = int(sys.argv[2])
"""


@pytest.mark.parametrize("renames", [0, 1])
@pytest.mark.parametrize("next_one", ["reads", "writes"])
def test_a_writer_killed_at_either_rename_leaves_the_old_folder_whole(
    tmp_path: Path, renames: int, next_one: str
) -> None:
    write(tmp_path / "index", 1)
    command = [sys.executable, "-c", KILLED_BETWEEN_RENAMES, str(tmp_path / "index"), str(renames)]
    assert subprocess.run(command, check=False).returncode == 9
    if next_one == "writes":
        with pytest.raises(RuntimeError):
            write(tmp_path / "index", 3, then=fail)
        assert names(tmp_path) == ["index"]
    assert version(tmp_path / "index") == 1


def write_file(path: Path, text: str, then: Callable[[], object] = lambda: None) -> None:
    with new_file(path) as written:
        assert written.name.endswith(".csv.gz")
        written.write_text(text)
        then()


def test_new_file_replaces_whole_and_keeps_the_ending(tmp_path: Path) -> None:
    write_file(tmp_path / "new" / "run.csv.gz", "0")
    write_file(tmp_path / "new" / "run.csv.gz", "1")
    with pytest.raises(RuntimeError):
        write_file(tmp_path / "new" / "run.csv.gz", "2", then=fail)
    assert (tmp_path / "new" / "run.csv.gz").read_text() == "1"
    assert names(tmp_path / "new") == ["run.csv.gz"]
    with pytest.raises(DataError, match="name a file inside"), new_file(tmp_path):
        pytest.fail("the block ran")


def test_new_file_writes_to_a_device_directly() -> None:
    with new_file("/dev/null") as written:
        assert written == Path("/dev/null")


def test_json_comes_back_and_faults_are_named(tmp_path: Path) -> None:
    path = tmp_path / "meta.json"
    write_json(path, {"marque": "Nestlé", "weights": [1, 0.5, None]})
    assert read_json(path) == {"marque": "Nestlé", "weights": [1, 0.5, None]}
    assert "Nestlé" in path.read_text(encoding="utf-8")
    for unwritable in ({"x": float("nan")}, {"x": object()}):
        with pytest.raises(DataError, match=r"meta\.json: cannot be written as JSON.*Fix"):
            write_json(path, unwritable)
    assert read_json(path)["weights"] == [1, 0.5, None]
    path.write_text('{"a": 1,\n oops}')
    with pytest.raises(DataError, match=r"line 2, column 2"):
        read_json(path)
    path.write_bytes(b'"\xff"')
    with pytest.raises(DataError, match="not UTF-8"):
        read_json(path)
    with pytest.raises(DataError, match="no such file"):
        read_json(tmp_path / "absent" / "meta.json")
    with pytest.raises(DataError, match="not a file"):
        read_json(tmp_path)
