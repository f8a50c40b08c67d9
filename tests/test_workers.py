"""Several processes behind one address: what one is told the others know, and none is missed when it dies."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from asking import PATIENCE
from starlette.testclient import TestClient

from gram.data.shop.generate import generate
from gram.errors import SettingError
from gram.indexing import make_index
from gram.records import Product
from gram.serve.app import make_app
from gram.serve.run import Serving
from gram.serve.service import ServeSettings
from gram.serve.statistics import EVERY, UNTOLD, Statistics, hear, tell
from gram.serve.workers import serve_by_many
from gram.shop import Shop

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
PRODUCTS = 150  # of the small shop
SITE = "https://shop.example"
COMMAND = [sys.executable, "-m", "gram.cli", "serve", "--allow-origin", SITE, "--workers", "2"]


def free_port() -> int:
    """Below those that systems give to whoever asks for any: none takes it before a service that is begun does."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


def await_(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def answers(http: httpx.Client, path: str = "/ready") -> bool:
    try:
        return http.get(path).status_code == 200
    except httpx.TransportError:
        return False


def children(pid: int) -> list[int]:
    """Of the processes that answer for another one."""
    pids = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [int(child) for child in pids if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def resident(pid: int) -> int:
    """Bytes of memory that a process has resident."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


class Served:
    """An index served by two processes."""

    def __init__(self, index: Path) -> None:
        self.lock = index.with_name(f".lock.{index.name}.shop.sqlite")
        self.index = index
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen([*COMMAND, str(index), "--port", str(port), "--drain", "3"])
        self.await_both()

    def await_both(self) -> None:
        """Until both answer: a connection that waits for the other one to begin would be closed."""
        await_(lambda: self.lock.exists() and len(self.pids()) == 2 and self.writer() in self.pids())
        for pid in self.pids():
            with self.connect(pid):
                pass

    def pids(self) -> list[int]:
        """Of the processes that answer."""
        return children(self.process.pid)

    def writer(self) -> int:
        return int(self.lock.read_text(encoding="ascii") or 0)

    def reader(self) -> int:
        return next(pid for pid in self.pids() if pid != self.writer())

    @contextmanager
    def alone(self, pid: int) -> Iterator[None]:
        """The others stand still, so that whoever connects is answered by this one."""
        others = [other for other in self.pids() if other != pid]
        for other in others:
            os.kill(other, signal.SIGSTOP)
        try:
            yield
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)

    @contextmanager
    def connect(self, pid: int) -> Iterator[httpx.Client]:
        """A client whose one connection is with this process."""
        limits = httpx.Limits(max_connections=1, keepalive_expiry=PATIENCE)
        with httpx.Client(base_url=self.address, timeout=PATIENCE, limits=limits) as http:
            with self.alone(pid):
                await_(lambda: answers(http))
            yield http


@pytest.fixture(scope="module")
def served(small_shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("workers")
    for name in ("index", "model"):
        shutil.copytree(small_shop / name, folder / name)
    served = Served(folder / "index")
    yield served
    served.process.terminate()
    served.process.wait(PATIENCE)


def test_what_one_was_told_the_other_knows(served: Served) -> None:
    """Changes sent through each of two connections, with either process, are found through the other one at once."""
    with served.connect(served.writer()) as one, served.connect(served.reader()) as other:
        for number in range(200):
            told, asked = (one, other) if number % 2 else (other, one)
            product = {"title": f"Quorvex{number} lamp", "price": 5000 + number}
            assert told.put(f"/products/w{number % 9}", json=product).status_code in (200, 201)
            for search in ({"q": f"quorvex{number}", "limit": 1}, {"filter": f"price = {5000 + number}"}):
                hits = asked.get("/search", params=search).json()["hits"]
                assert [hit["product_id"] for hit in hits] == [f"w{number % 9}"], (number, search)
        assert other.put("/rules/r", json={"action": "redirect", "query": "stores", "target": "/s"}).status_code == 200
        assert one.get("/search?q=stores").json()["redirect"] == "/s"
        assert other.post("/products", content=b'{"product_id": "w9", "title": "Quorvexia"}\n').json()["accepted"] == 1
        assert one.delete("/products/w9").json() == {"deleted": "w9"}
        refused = other.delete("/products/w9")
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "unknown_product")
        answered = 'gram_requests_total{route="/search",status="200"} 401.0'  # 200 times two, and the rule's
        for http in (one, other):
            metrics = http.get("/metrics").text
            assert answered in metrics
            assert re.findall("^gram_products .*", metrics, re.M) == [f"gram_products {PRODUCTS + 9}.0"]
            (memory,) = re.findall("^process_resident_memory_bytes (.*)", metrics, re.M)
            assert float(memory) == pytest.approx(sum(map(resident, served.pids())), rel=0.1)  # of both
        for http in (one, other):
            await_(lambda http=http: http.get("/stats").json()["searches"] == 401)
        told = other.get("/stats").json()
        assert (told["timed"], ["stores", 1] in told["top"] + told["without_hits"]) == (401, True)


def test_a_length_that_is_none_of_the_body_is_not_passed_on(served: Served) -> None:
    """A DELETE's body goes no further, and one in chunks has no length, whatever is said."""
    with served.connect(served.reader()) as other:
        assert other.request("DELETE", "/products/nothing", content=b"{}").status_code == 404
        assert other.request("GET", "/stats", content=b"{}").status_code == 200
        both = {"Transfer-Encoding": "chunked", "Content-Length": "5"}
        assert other.put("/products/w0", headers=both, content=b'{"title": "Quorvex"}').status_code in (200, 201)


def test_a_page_of_an_allowed_origin_may_ask_either(served: Served) -> None:
    click = {"query": "sofa", "product_id": "a"}
    for pid in served.pids():
        with served.connect(pid) as http:
            answer = http.post("/clicks", json=click, headers={"Origin": SITE})
            assert (answer.status_code, answer.headers.get_list("access-control-allow-origin")) == (201, [SITE])
            assert http.put("/products/a", json={"title": "x"}, headers={"Origin": SITE}).status_code == 403


def test_one_that_is_killed_is_replaced(served: Served) -> None:
    with httpx.Client(base_url=served.address, timeout=PATIENCE) as http:
        http.put("/products/before", json={"title": "Quorvex before"})
    for gone in (served.reader(), served.writer()):
        there = served.pids()
        os.kill(gone, signal.SIGKILL)
        await_(lambda there=there: len(set(served.pids()) - set(there)) == 1)
    served.await_both()
    for pid in (served.writer(), served.reader()):
        with served.connect(pid) as http:
            assert http.get("/products/before").status_code == 200
            assert http.put("/products/after", json={"title": "Quorvex after"}).status_code in (200, 201)


def test_a_signal_reaches_all(served: Served) -> None:
    pids = served.pids()
    with served.connect(served.writer()) as one, served.connect(served.reader()) as other:
        products = [*generate(products=150, interactions=600, queries=120, seed=1).products, Product("anew", "Anew")]
        make_index(served.index.with_name("model"), products, served.index, replace=True)
        served.process.send_signal(signal.SIGHUP)
        for http in (one, other):
            await_(lambda http=http: http.get("/products/anew").status_code == 200)
        assert served.pids() == pids
        served.process.terminate()
        for http in (one, other):
            await_(lambda http=http: http.get("/ready").json()["status"] == "stopping")
            assert http.get("/search?q=sofa").json()["hits"]
    assert served.process.wait(PATIENCE) == 0


def test_searches_wait_for_who_hears_of_them_and_are_counted_once(tmp_path: Path) -> None:
    """Those of a process whose writer is away, up to a bound, and of one that comes in its place."""
    address, stopping, telling = tmp_path / "searches", threading.Event(), Statistics()
    first, second = Statistics(), Statistics()
    for number in range(UNTOLD + 5):
        telling.note_search(f"q{number}", number % 2, 1.0)
    address.touch()  # of one that died

    def begin(target: Callable[..., None], statistics: Statistics) -> threading.Thread:
        thread = threading.Thread(target=target, args=(statistics, address, stopping), daemon=True)
        thread.start()
        return thread

    def made() -> int:
        with suppress(FileNotFoundError):  # one is taken away before another is made
            return address.stat().st_ctime_ns
        return 0

    threads = [begin(tell, telling)]
    try:
        time.sleep(2 * EVERY)
        assert len(telling.untold) == UNTOLD, "they could not be told"
        for heard in (first, second):
            before = made()
            threads.append(begin(hear, heard))
            await_(lambda before=before: made() not in (0, before))
            if heard is second:
                telling.note_search("again", 0, 1.0)
            await_(lambda heard=heard: heard.searches)
    finally:
        stopping.set()
    for thread in threads:
        thread.join()
    assert (first.searches, first.queries["q5"], first.queries["q4"]) == (UNTOLD, 1, 0)
    assert len(first.without_hits) == UNTOLD // 2
    assert second.queries == {"again": 1}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_hangup_while_it_begins_is_no_end(index_folder: Path, workers: str) -> None:
    """Sent from when the index is being opened, which takes some tenths of a second, until it answers."""
    port, lock = free_port(), index_folder.with_name(".lock.index.shop.sqlite")
    begun = subprocess.Popen([*COMMAND[:-1], workers, str(index_folder), "--port", str(port), "--drain", "0"])
    await_(lock.exists)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as http:

        def told() -> bool:
            begun.send_signal(signal.SIGHUP)
            assert begun.poll() is None
            return answers(http)

        pids = children(begun.pid)
        await_(told)
        assert children(begun.pid) == pids
    begun.terminate()
    assert begun.wait(PATIENCE) == 0


def test_who_reads_only_is_never_behind(small_shop: Path, tmp_path: Path) -> None:
    shutil.copytree(small_shop / "index", tmp_path / "index")
    writing = Shop.open(tmp_path / "index", small_shop / "model")
    reading = Shop.open(tmp_path / "index", small_shop / "model", read_only=True)
    client = TestClient(make_app(reading), "http://127.0.0.1")
    for number in range(5):
        writing.update([Product("q", f"Quorvex{number}")])
        assert client.get("/products/q").json()["title"] == f"Quorvex{number}"
    writing.delete(["q"])
    assert client.get("/products/q").status_code == 404
    reading.close()
    writing.close()


def test_a_change_whose_writer_is_away_is_told_so(small_shop: Path, tmp_path: Path) -> None:
    shutil.copytree(small_shop / "index", tmp_path / "index")
    shop = Shop.open(tmp_path / "index", small_shop / "model", read_only=True)
    client = TestClient(make_app(shop, ServeSettings(writer="http://127.0.0.1:1")), "http://127.0.0.1")
    answer = client.put("/products/a", json={"title": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "writer_away")
    assert client.get("/search?q=sofa").json()["hits"]
    shop.close()


def test_what_cannot_be_served_by_many_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="takes changes, which --read-only forbids"):
        serve_by_many(Serving(tmp_path, read_only=True), 2)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SettingError, match="choose another"):
        serve_by_many(Serving(tmp_path, port=taken.getsockname()[1]), 2)
    command = [*COMMAND, str(tmp_path / "none"), "--port", str(free_port())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 2
    assert "Fix: " in done.stderr


def test_a_port_that_is_taken_is_told_with_one_that_is_free(index_folder: Path) -> None:
    command = [sys.executable, "-m", "gram.cli", "serve", str(index_folder), "--port"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run([*command, str(port)], capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 2
    assert f"port {port} of 127.0.0.1: Address already in use. Fix: end what listens there, or" in done.stderr
    free = re.search("--port ([0-9]+) is free", done.stderr)
    assert free is not None
    with socket.create_server(("127.0.0.1", int(free[1]))):
        pass


def test_a_folder_of_somebody_elses_metrics_is_left_alone(index_folder: Path, tmp_path: Path) -> None:
    """prometheus_client looks for one when it is imported, so this takes a process of its own."""
    command = [*COMMAND, str(index_folder), "--get", "/metrics"]
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for folder in (tmp_path / "nowhere", theirs):
        variables = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True, timeout=PATIENCE)
        assert "gram_products " in done.stdout
    assert not any(theirs.iterdir())
