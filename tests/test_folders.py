"""Folders and files appear whole or not at all, also when the writer is killed."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import gram.folders
from gram.apart import check_apart
from gram.errors import DataError, IndexFolderError, ModelError
from gram.folders import (
    check_folder,
    check_offsets,
    check_replaceable,
    load_array,
    new_file,
    new_folder,
    read_json,
    write_json,
)
from gram.locks import lock_folder


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
    write(tmp_path / "shops" / "index", 1)
    assert version(tmp_path / "shops" / "index") == 1
    write(tmp_path / "shops" / "index", 2)
    assert version(tmp_path / "shops" / "index") == 2
    assert names(tmp_path / "shops") == ["index"]


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
    assert names(tmp_path / "model") == ["checksums.json", "config.json"]


@pytest.mark.usefixtures("_way")
def test_a_new_folder_is_for_whom_the_old_one_was_for(tmp_path: Path) -> None:
    for name, mode in (("new", None), ("empty", 0o750), ("full", 0o2770)):
        if name == "full":
            write(tmp_path / name, 1)
        elif mode:
            (tmp_path / name).mkdir()
        if mode:
            (tmp_path / name).chmod(mode)
        if mode and os.geteuid() == 0:
            os.chown(tmp_path / name, 1234, 2345)
        was = (tmp_path / name).stat() if mode else tmp_path.stat()
        with new_folder(tmp_path / name, mode=0o700) as folder:
            assert stat.S_IMODE(folder.stat().st_mode) == (mode or 0o700), "before anything is in it"
            write_json(folder / "meta.json", {})
        found = (tmp_path / name).stat()
        assert stat.S_IMODE(found.st_mode) == (mode or 0o700)
        assert (found.st_uid, found.st_gid) == (was.st_uid, was.st_gid)


def test_a_mount_point_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be moved away, and what is beside it lies on another disk."""
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path / "disk")
    with (
        pytest.raises(DataError, match=r"is a mount point.*Fix: name a folder inside it"),
        new_folder(tmp_path / "disk"),
    ):
        pytest.fail("the block ran")
    write(tmp_path / "disk" / "index", 1)
    assert names(tmp_path / "disk") == ["index"]


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
    with new_file(sys.argv[1]) as draft:
        draft.write_text("half")
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
    assert names(tmp_path) == [".draft.index", ".lock.index", "index"]
    write(tmp_path / "index", 2)
    assert version(tmp_path / "index") == 2
    assert names(tmp_path) == ["index"]


def test_a_killed_writer_leaves_the_old_file_and_the_next_cleans_up(tmp_path: Path) -> None:
    (tmp_path / "run.trec").write_text("old")
    kill_half_way(tmp_path / "run.trec", "file")
    assert (tmp_path / "run.trec").read_text() == "old"
    assert names(tmp_path) == [".draft.run.trec", ".lock.run.trec", "run.trec"]
    with new_file(tmp_path / "run.trec") as draft:
        draft.write_text("new")
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


def count_calls(then: Callable[[int], object]) -> Callable[..., None]:
    """A profiler that hands on how many functions were called, Python's and the system's, each time one is."""
    calls = 0

    def count(_: object, event: str, __: object) -> None:
        nonlocal calls
        if event in ("call", "c_call"):
            calls += 1
            then(calls)

    return count


def write_and_be_killed(path: Path, number: int, at: int) -> None:
    writer = os.fork()
    if not writer:
        sys.setprofile(count_calls(lambda calls: calls == at and os.kill(os.getpid(), signal.SIGKILL)))
        write(path, number)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(writer, 0)[1]) == -signal.SIGKILL


@pytest.mark.usefixtures("_way")
def test_38_kills_spread_over_a_write_leave_the_old_or_the_new_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gram.folders, "_sync", lambda path: None)  # a kill is no power cut
    path = tmp_path / "index"
    write(path, 0)
    seen: list[int] = []
    sys.setprofile(count_calls(seen.append))
    write(path, 0)
    sys.setprofile(None)
    found = []
    for at in np.linspace(1, len(seen) - 5, 38).astype(int).tolist():
        write_and_be_killed(path, 1, at)
        found.append(version(path))
        check_folder(path, "build it again")
        write(path, 0)
        assert names(tmp_path) == ["index"]
    assert found == sorted(found)  # the old one, and from some moment on the new one
    assert set(found) == {0, 1}


def test_all_is_synced_before_it_takes_its_place_and_the_place_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut after the move, or after the return, must leave."""
    path, steps = tmp_path / "index", []
    sync, move_in = gram.folders._sync, gram.folders._move_in
    write(path, 0)

    def note_move(draft: Path, final: Path) -> None:
        move_in(draft, final)
        steps.append("moved in")

    monkeypatch.setattr(gram.folders, "_move_in", note_move)
    monkeypatch.setattr(gram.folders, "_sync", lambda path: (sync(path), steps.append(str(path.relative_to(tmp_path)))))
    write(path, 1)
    before, after = set(steps[: steps.index("moved in")]), steps[steps.index("moved in") + 1 :]
    there = {file.relative_to(path) for file in path.rglob("*")}
    assert {f".draft.index/{file}" for file in there} | {".draft.index"} <= before
    assert after == ["."]


def write_file(path: Path, text: str, then: Callable[[], object] = lambda: None) -> None:
    with new_file(path) as draft:
        assert draft.name.endswith(".csv.gz")
        draft.write_text(text)
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


STORES = [f"index.shop.sqlite{file}" for file in ("", "-wal", "-shm", "-journal")]


def test_a_file_of_a_whole_folder_or_a_store_is_not_written_by_itself(tmp_path: Path) -> None:
    with new_folder(tmp_path / "index") as folder:
        write_json(folder / "meta.json", {"version": 1})
    (tmp_path / "link").symlink_to("index")
    for name in ("index/meta.json", "index/new.trec", "index/deep/new.trec", "link/new.trec", *STORES):
        with pytest.raises(DataError, match=r"write it elsewhere|name another file"), new_file(tmp_path / name):
            pytest.fail("the block ran")
    assert names(tmp_path / "index") == ["checksums.json", "meta.json"]
    check_folder(tmp_path / "index", "")


def test_a_draft_or_an_index_without_its_checksums_is_known_before_the_work(index_folder: Path) -> None:
    (index_folder / "checksums.json").unlink()
    (index_folder.with_name("model") / "checksums.json").unlink()
    for name in ("index/run.trec", "model/deep/run.trec"):
        with pytest.raises(DataError, match="lies in the folder of a model or an index"):
            check_apart(index_folder.parent / name)

    def refuse() -> None:
        draft = index_folder.with_name(".draft.new")
        with pytest.raises(DataError, match="lies in what becomes new, and goes with it"):
            check_apart(draft / "data" / "run.trec")

    write(index_folder.with_name("new"), 1, then=refuse)
    (index_folder.parent / ".draft.blog").mkdir()
    assert check_apart(index_folder.parent / ".draft.blog" / "run.trec").name == "run.trec"


@pytest.mark.parametrize("name", ["my.shop.sqlite.jsonl", "shop.sqlite", "my.shop.sqlite-walk.trec"])
def test_a_name_that_holds_a_stores_is_no_store(tmp_path: Path, name: str) -> None:
    with new_file(tmp_path / name) as draft:
        draft.write_text("a")
    assert names(tmp_path) == [name]


def test_what_a_dead_writer_left_is_in_nobodys_way(tmp_path: Path) -> None:
    """Of a folder under the name of a file, and the other way round."""
    (tmp_path / ".draft.run.csv.gz").mkdir()
    (tmp_path / ".draft.index").write_text("half")
    write_file(tmp_path / "run.csv.gz", "0")
    write(tmp_path / "index", 1)
    assert names(tmp_path) == ["index", "run.csv.gz"]


def test_another_tools_checksums_keep_no_file_away(tmp_path: Path) -> None:
    (tmp_path / "checksums.json").write_text('{"a.csv": "9f86d081884c7d65"}', encoding="utf-8")
    write_file(tmp_path / "run.csv.gz", "0")
    assert (tmp_path / "run.csv.gz").read_text() == "0"


def test_new_file_writes_to_a_device_directly() -> None:
    with new_file("/dev/null") as draft:
        assert draft == Path("/dev/null")


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


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 100_000, "JSON"),
        ("9" * 5_000, "JSON"),
        ('{"a": ' * 50_000, "JSON"),
    ],
)
def test_json_made_to_break_a_reader_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "meta.json").write_text(text)
    with pytest.raises(DataError, match=rf"meta\.json: is not {problem}.*Fix: "):
        read_json(tmp_path / "meta.json")


def test_json_that_the_system_will_not_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (loop, loop / "meta.json"):
        with pytest.raises(DataError, match=r"loop.*Fix: remove the link"):
            read_json(path)

    def deny(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_text", deny)
    with pytest.raises(DataError, match=r"meta\.json: Permission denied\. Fix: get the permission"):
        read_json(tmp_path / "meta.json")


def test_checksums_are_those_of_the_files(tmp_path: Path) -> None:
    with new_folder(tmp_path / "index") as folder:
        (folder / "parts").mkdir()
        (folder / "parts" / "check").write_bytes(b"123456789")
        (folder / "meta.json").write_bytes(b"")
    assert read_json(tmp_path / "index" / "checksums.json") == {
        "meta.json": {"bytes": 0, "crc32": "00000000"},
        "parts/check": {"bytes": 9, "crc32": "cbf43926"},  # the check value of CRC-32
    }
    check_folder(tmp_path / "index", "")
    (tmp_path / "index" / "notes.txt").write_text("what comes later is nobody's business")
    check_folder(tmp_path / "index", "")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data/numbers.txt", b"2", r"numbers\.txt: is damaged: bytes 1 and crc32 1ad5be0d, where"),
        ("data/numbers.txt", b"\0", r"numbers\.txt: is damaged"),
        ("data/numbers.txt", b"", r"numbers\.txt: is damaged: bytes 0 "),
        ("data/numbers.txt", b"11", r"numbers\.txt: is damaged: bytes 2 "),
        ("data/numbers.txt", None, r"numbers\.txt: cannot be read \(No such file"),
        ("meta.json", b"{}", r"meta\.json: is damaged"),
        ("checksums.json", None, r"checksums\.json: there is no such file"),
        ("checksums.json", b"{", r"checksums\.json: is not JSON"),
        ("checksums.json", b"[]", r"checksums\.json: holds no checksums"),
        ("checksums.json", b'{"meta.json": 7}', r"meta\.json: is damaged"),
    ],
)
def test_damage_is_named_with_its_fix(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    write(tmp_path / "index", 1)
    (tmp_path / "index" / name).unlink()
    if content is not None:
        (tmp_path / "index" / name).write_bytes(content)
    with pytest.raises(ModelError, match=message + r".* Fix: train again$"):
        check_folder(tmp_path / "index", "train again", ModelError)


def offsets(*values: float, dtype: str = "int64") -> np.ndarray:
    return np.array(values, dtype=dtype)


@pytest.mark.parametrize(
    ("start", "problem"),
    [
        (offsets(0, 2, 2, 5), ""),
        (offsets(0, 2, 2, 4), "runs from 0 to 4, not from 0 to 5"),
        (offsets(1, 2, 2, 5), "runs from 1 to 5"),
        (offsets(0, 2**35, 2, 5), "falls at offset 2"),
        (offsets(0, -1, 2, 5), "falls at offset 1"),
        (offsets(0, 5, dtype="int32"), r"holds int32 \(2,\)"),
        (offsets(0, 5, dtype="float64"), "holds float64"),
        (offsets(), r"holds int64 \(0,\)"),
        (offsets(0, 5)[None], r"holds int64 \(1, 2\)"),
    ],
)
def test_offsets_are_checked_before_they_are_believed(start: np.ndarray, problem: str) -> None:
    if not problem:
        check_offsets(start, 5, "titles.start.npy", "")
        return
    with pytest.raises(IndexFolderError, match=rf"titles\.start\.npy: {problem}.*Fix: build the index again"):
        check_offsets(start, 5, "titles.start.npy", "build the index again")


@pytest.mark.parametrize("array", [np.arange(6.0), np.zeros((0, 3)), np.int64(7)])
@pytest.mark.parametrize("mmap", [True, False])
def test_an_array_is_read_or_refused_whatever_its_header_says(tmp_path: Path, array: np.ndarray, mmap: bool) -> None:
    path = tmp_path / "a.npy"
    np.save(path, array)
    whole = path.read_bytes()
    assert np.array_equal(load_array(tmp_path, "a.npy", mmap), array)
    rng, problems = np.random.default_rng(0), []
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[rng.integers(128)] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load_array(tmp_path, "a.npy", mmap)
        except IndexFolderError as error:
            problems.append(str(error))
    assert len(problems) > 15
    assert all("a.npy: no usable array" in problem for problem in problems)


HOLDS_THE_LOCK = """
import sys, time
from gram.locks import lock_folder
with lock_folder(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDS_THE_LOCK, str(tmp_path / "model.work")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        message = rf"model\.work: process {holder.pid} is writing it\. Fix: wait"
        with pytest.raises(DataError, match=message), lock_folder(tmp_path / "model.work"):
            pytest.fail("it is locked")
        with lock_folder(tmp_path / "other.work"):
            pass
        holder.kill()
    refused = pytest.raises(DataError, match=f"process {os.getpid()} ")
    with lock_folder(tmp_path / "model.work"), refused, lock_folder(tmp_path / "model.work"):
        pytest.fail("it is locked")
    assert names(tmp_path) == []


def test_writers_of_one_folder_wait_for_each_other(tmp_path: Path) -> None:
    inside, most = [0], [0]

    def look() -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.002)
        inside[0] -= 1

    def write_often(thread: int) -> None:
        for i in range(5):
            write(tmp_path / "index", 10 * thread + i, then=look)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write_often, range(8)))
    assert most == [1]
    assert version(tmp_path / "index") % 10 == 4
    assert names(tmp_path) == ["index"]


def test_a_place_that_can_be_written_to_is_left_as_it_was(tmp_path: Path) -> None:
    check_replaceable(tmp_path / "new" / "shop" / "index")
    assert names(tmp_path) == []
    write(tmp_path / "index", 1)
    check_replaceable(tmp_path / "index")
    assert names(tmp_path) == ["index"]


@pytest.mark.parametrize(
    ("number", "fix"),
    [(errno.EACCES, "get the permission"), (errno.ENOSPC, "free some"), (errno.EROFS, "name a place")],
)
def test_a_place_that_cannot_be_written_to_is_told_first(
    tmp_path: Path, number: int, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(DataError, match=rf"index: {os.strerror(number)}\. Fix: {fix}"):
        check_replaceable(tmp_path / "index")
    assert names(tmp_path) == []


def test_a_place_inside_a_file_or_a_loop_of_links_is_told_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError, match="Not a directory"):
        check_replaceable(tmp_path / "file" / "index")
    with pytest.raises(DataError, match="leads back to itself"):
        check_replaceable(tmp_path / "loop")


FILLS_THE_DISK = """
import resource, sys
import numpy as np
from gram.folders import new_folder
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with new_folder(sys.argv[1]) as folder:
        if sys.argv[2] == "numpy":
            np.save(folder / "meta.json", np.zeros(9000))
        else:
            (folder / "meta.json").write_bytes(bytes(9000))
except OSError as error:
    print(error.filename)
"""


@pytest.mark.parametrize("writer", ["numpy", "python"])
def test_a_full_disk_names_the_folder_and_leaves_the_old_one(tmp_path: Path, writer: str) -> None:
    write(tmp_path / "index", 1)
    command = [sys.executable, "-c", FILLS_THE_DISK, str(tmp_path / "index"), writer]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert said.strip() == str(tmp_path / "index")
    assert version(tmp_path / "index") == 1
    assert names(tmp_path) == ["index"]


def test_what_a_library_keeps_to_itself_others_may_read_as_the_rest(tmp_path: Path) -> None:
    with new_folder(tmp_path / "model") as folder:
        write_json(folder / "meta.json", {})
        (folder / "weights").write_bytes(b"1")
        (folder / "weights").chmod(0o600)
    model = tmp_path / "model"
    assert (model / "weights").stat().st_mode == (model / "meta.json").stat().st_mode
