"""What searchers may type, written by a language model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

import gram.coder.causal.endpoint
import gram.coder.causal.queries
from gram.cli import main
from gram.coder.causal.endpoint import Endpoint
from gram.coder.causal.queries import write_queries
from gram.data.dataset import Dataset
from gram.data.log import read_log
from gram.errors import DataError, SettingError
from gram.records import Product


class _Answers(BaseHTTPRequestHandler):
    """An OpenAI-compatible endpoint: says what a product is in other words, and something that is not so."""

    requests: ClassVar[list[dict[str, Any]]] = []
    failing: ClassVar[list[int]] = []  # statuses to answer first
    words: ClassVar[str | None] = None  # to answer, whatever is asked

    def do_GET(self) -> None:
        self.requests.append({"path": self.path})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
        if self.failing:
            self.send_error(self.failing.pop(0))
            return
        title = body["messages"][0]["content"].rpartition("product: ")[2].split(" ; ")[0].split(",")[0]
        words = f'1. "{title}"\n2. zorblax quux\n3. {" ".join(title.split()[-2:])}'
        words = words if self.words is None else self.words
        answer = json.dumps({"choices": [{"message": {"content": words}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram.coder.causal.endpoint, "WAIT", 0.0)


@pytest.fixture
def endpoint() -> Iterator[str]:
    _Answers.requests, _Answers.failing, _Answers.words = [], [], None
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


class TestQueries:
    def test_a_shop_without_a_log_is_trained_on_what_a_language_model_wrote(
        self, causal_data: Dataset, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SHOP_KEY", "secret")
        causal_data.write(tmp_path)
        products, log = str(tmp_path / "products.jsonl.gz"), str(tmp_path / "log.new.tsv")
        asked = ["queries", products, "-o", log, "--endpoint", endpoint, "--model", "m", "--key-variable", "SHOP_KEY"]
        done = CliRunner().invoke(main, [*asked, "--limit", "40"])
        assert done.exit_code == 0, done.output
        assert {request["path"] for request in _Answers.requests} == {"/v1/chat/completions"}
        assert {request["key"] for request in _Answers.requests} == {"Bearer secret"}
        kept = read_log(log, {p.product_id for p in causal_data.products})
        assert len({i.product_id for i in kept}) > 30
        assert not any("zorblax" in i.query for i in kept)
        n = len(_Answers.requests)
        assert CliRunner().invoke(main, [*asked, "--limit", "40"]).exit_code == 0
        assert len(_Answers.requests) == n  # nothing is asked again
        done = CliRunner().invoke(
            main,
            [
                "train",
                products,
                log,
                "-o",
                str(tmp_path / "m"),
                "--coder",
                "scratch",
                "--steps",
                "4",
                "--no-co-training",
            ],
        )
        assert done.exit_code == 0, done.output

    def test_a_log_of_somebody_else_is_not_replaced(self, causal_data: Dataset, endpoint: str, tmp_path: Path) -> None:
        causal_data.write(tmp_path)
        log = tmp_path / "log.tsv"
        before = log.read_bytes()
        asked = ["queries", str(tmp_path / "products.jsonl.gz"), "-o", str(log), "--endpoint", endpoint, "--model", "m"]
        done = CliRunner().invoke(main, [*asked, "--limit", "3"])
        assert done.exit_code == 2
        assert (
            "log.tsv: is there, and was not written by this command. Fix: name another, or replace it with --replace"
            in done.output
        )
        assert log.read_bytes() == before
        assert not _Answers.requests
        assert CliRunner().invoke(main, [*asked, "--limit", "3", "--replace"]).exit_code == 0
        assert log.read_bytes() != before
        assert CliRunner().invoke(main, [*asked, "--limit", "4"]).exit_code == 0  # its own log
        log.write_bytes(before)
        assert CliRunner().invoke(main, [*asked, "--limit", "4"]).exit_code == 2

    def test_no_query_finds_its_product(self, causal_data: Dataset, endpoint: str, tmp_path: Path) -> None:
        causal_data.write(tmp_path)
        _Answers.words = "zorblax quux"
        log = tmp_path / "new.tsv"
        asked = ["queries", str(tmp_path / "products.jsonl.gz"), "-o", str(log), "--endpoint", endpoint, "--model", "m"]
        done = CliRunner().invoke(main, [*asked, "--limit", "3"])
        assert done.exit_code == 2
        assert "none of the 3 queries" in done.output
        assert not log.exists()

    def test_answers_without_a_query_are_an_error_and_are_not_kept(self, endpoint: str, tmp_path: Path) -> None:
        journal = tmp_path / "journal"
        for words in ("", "<think>what would one say of a red sofa?", "!!!\n---"):
            _Answers.words = words
            with pytest.raises(DataError, match="no answer of the model 'm' holds a query"):
                write_queries([Product("1", "Red Sofa")], Endpoint(endpoint, "m"), journal)
        _Answers.words = "<think>\nhm\n</think>\nred couch"
        assert write_queries([Product("1", "Red Sofa")], Endpoint(endpoint, "m"), journal) == [("1", ["red couch"])]

    def test_another_model_number_or_text_is_asked_anew(self, endpoint: str, tmp_path: Path) -> None:
        sofa = Product("1", "Red Sofa")
        for product, model, n in ((sofa, "m", 3), (sofa, "n", 3), (sofa, "n", 2), (Product("1", "Oak Desk"), "n", 2)):
            for _ in range(2):
                write_queries([product], Endpoint(endpoint, model), tmp_path / "journal", n)
        assert len(_Answers.requests) == 4

    def test_a_journal_that_a_kill_cut_off(self, endpoint: str, tmp_path: Path) -> None:
        journal, products = tmp_path / "journal", [Product("1", "Red Sofa"), Product("2", "Oak Desk")]
        found = write_queries(products[:1], Endpoint(endpoint, "m"), journal)
        with journal.open("ab") as out:
            out.write(b"\xff" + b"[" * 100_000 + b'\n{"key": "x", "queries": "y"}\n{"key": "ab')
        found += write_queries(products[1:], Endpoint(endpoint, "m"), journal)
        assert write_queries(products, Endpoint(endpoint, "m"), journal) == found
        assert len(_Answers.requests) == 2

    def test_the_journal_is_read_under_its_lock(
        self, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What another process wrote before it gave the lock back is not asked for again."""
        journal, sofa = tmp_path / "journal", Product("1", "Red Sofa")
        write_queries([sofa], Endpoint(endpoint, "m"), journal)
        written, lock = journal.read_bytes(), gram.coder.causal.queries.lock_folder
        journal.unlink()

        @contextmanager
        def late(path: Path) -> Iterator[None]:
            with lock(path):
                journal.write_bytes(written)
                yield

        monkeypatch.setattr(gram.coder.causal.queries, "lock_folder", late)
        write_queries([sofa], Endpoint(endpoint, "m"), journal)
        assert len(_Answers.requests) == 1

    def test_who_stops_waits_for_no_other_answer(self, tmp_path: Path) -> None:
        class Slow(Endpoint):
            def ask(self, prompt: str) -> str:
                if "Sofa" in prompt:
                    raise KeyboardInterrupt
                time.sleep(20)
                return ""

        begin = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            write_queries(
                [Product("1", "Oak Desk"), Product("2", "Sofa")], Slow("http://localhost", "m"), tmp_path / "j"
            )
        assert time.monotonic() - begin < 10


class TestEndpoint:
    def test_an_endpoint_that_stumbles_is_asked_again(self, endpoint: str) -> None:
        _Answers.failing = [500, 429]
        assert "sofa" in Endpoint(endpoint, "m").ask("product: red sofa")
        assert len(_Answers.requests) == 3

    def test_an_endpoint_that_refuses(self, endpoint: str, tmp_path: Path) -> None:
        _Answers.failing = [401] * 50
        journal = tmp_path / "journal"
        with pytest.raises(DataError, match=r"answered 401.*OPENAI_API_KEY"):
            write_queries([Product("1", "Red Sofa")], Endpoint(endpoint, "m"), journal)
        _Answers.failing = []
        assert write_queries([Product("1", "Red Sofa")], Endpoint(endpoint, "m"), journal)

    @pytest.mark.parametrize(
        "url",
        [
            "file:///etc/passwd", "http://", "https:///v1", "http://[::1/v1", "http://host:port/v1", "http://ho st/v1",
            "http://hö.de/v1", "http://me:secret@host/v1", "http://host/v1?key=1", "http://host/v1\r\nX: y", "",
        ],
    )  # fmt: skip
    def test_no_address(self, url: str) -> None:
        with pytest.raises(SettingError, match="the endpoint's address"):
            Endpoint(url, "m")

    @pytest.mark.parametrize(
        "raw",
        [
            b"nonsense\r\n\r\n",  # BadStatusLine
            b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",  # IncompleteRead
            b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n",  # more headers than http.client reads
            b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000,
            b"HTTP/1.1 200 OK\r\n\r\n\xff",
            b'HTTP/1.1 200 OK\r\n\r\n{"choices": []}',
            b'HTTP/1.1 200 OK\r\n\r\n{"choices": [{"message": {"content": ["x"]}}]}',
        ],
    )
    def test_what_is_no_answer(self, raw: bytes) -> None:
        with pytest.raises(DataError, match="Fix: see that the address"):
            Endpoint(serve_bytes([raw]), "m").ask("product: sofa")

    def test_an_answer_of_any_length_is_not_read(self) -> None:
        whole = b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (1 << 20) + b'{"choices": [{"message": {"content": "x"}}]}'
        with pytest.raises(DataError, match="more than 1048576 bytes"):
            Endpoint(serve_bytes([whole]), "m").ask("product: sofa")

    def test_no_other_host_is_told(self, endpoint: str) -> None:
        moved = f"HTTP/1.1 302 Found\r\nLocation: {endpoint}/chat/completions\r\n\r\n".encode()
        with pytest.raises(DataError, match="answered 302"):
            Endpoint(serve_bytes([moved]), "m").ask("product: sofa")
        assert not _Answers.requests

    @pytest.mark.parametrize("begin", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: ", b""])
    def test_an_answer_that_drips_is_given_up(self, begin: bytes) -> None:
        address = serve_bytes([begin, *[b" "] * 200])
        started = time.monotonic()
        with pytest.raises(DataError, match="gave no answer"):
            Endpoint(address, "m", timeout=0.3).ask("product: sofa")
        assert time.monotonic() - started < 40  # of 4 × 200 × 0.1 s

    def test_half_a_character_is_left_out(self) -> None:
        raw = rb'{"choices": [{"message": {"content": "so\ud800fa \ud83d\ude00"}}]}'
        assert Endpoint(serve_bytes([b"HTTP/1.1 200 OK\r\n\r\n" + raw]), "m").ask("x") == "sofa 😀"

    def test_a_key_that_is_none(self, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SHOP_KEY", "sec\nret")
        with pytest.raises(SettingError, match="the key in SHOP_KEY") as caught:
            Endpoint(endpoint, "m", "SHOP_KEY").ask("x")
        assert "sec" not in str(caught.value)


def serve_bytes(pieces: list[bytes]) -> str:
    """The address of a server that answers every request with these pieces, a tenth of a second apart."""
    server = socket.create_server(("127.0.0.1", 0))

    def answer(client: socket.socket) -> None:
        with client, suppress(OSError):
            client.recv(65536)
            for i, piece in enumerate(pieces):
                time.sleep(0.1 * (i > 0))
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass

    def accept() -> None:
        while True:
            client, _ = server.accept()
            threading.Thread(target=answer, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return f"http://127.0.0.1:{server.getsockname()[1]}/v1"
