"""What no one should send a service, named and drawn."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from asking import PATIENCE, error_of
from starlette.testclient import TestClient
from test_workers import answers, await_, free_port

from gram.records import Product
from gram.serve.app import HEADERS
from gram.shop import Shop

FUZZER = Path(__file__).parents[1] / "scripts" / "fuzz_test.py"

HOSTILE: list[tuple[str, str, dict[str, Any], int]] = [
    ("GET", "/search", {"params": {"q": "x" * 3000}}, 400),
    ("GET", "/search", {"params": {"q": "x", "limit": "-1"}}, 400),
    ("GET", "/search", {"params": {"q": "x", "limit": "1.5"}}, 400),
    ("GET", "/search", {"params": {"q": "x", "limit": "99999"}}, 400),
    ("GET", "/search", {"params": {"q": "x", "filter": "price <"}}, 400),
    ("GET", "/search", {"params": {"q": "x", "filter": "(" * 3000}}, 400),
    ("GET", "/search", {"params": {"q": "x", "sort": "\0"}}, 400),
    ("GET", "/search", {"params": {"q": "\0\ud7ff", "value": "nan"}}, 400),
    ("GET", "/search", {"params": {"q": "x", "unknown": "1"}}, 400),
    ("GET", "/search", {"params": {"q": "x", "sort": "-nofield"}}, 400),
    ("GET", "/search", {"params": {"q": "x", "sort": "-price"}}, 200),
    ("POST", "/search", {"content": b"\xff\xfe"}, 400),
    ("POST", "/search", {"content": b"[" * 100_000}, 400),
    ("POST", "/search", {"content": b'{"q": ' + b'"x"' + b"}" + b" " * 2_000_000}, 413),
    ("POST", "/search", {"json": {"q": 5}}, 400),
    ("POST", "/search", {"json": {"q": "x", "limit": 5.0, "offset": "1"}}, 200),
    ("POST", "/search", {"json": {"q": "x", "limit": 5.5}}, 400),
    ("POST", "/search", {"json": {"q": "x", "limit": int("9" * 4300), "offset": 1}}, 400),
    ("PUT", "/rules/x", {"json": {"action": "redirect", "query": "x", "target": "/", "from": 20261127}}, 400),
    ("PUT", "/products/a", {"json": {"title": "x", "attributes": False}}, 400),
    ("PUT", "/products/a", {"json": {"title": "x", "price": -1}}, 400),
    ("PUT", "/products/a", {"json": {"title": "x", "size": {"a": 1}}}, 400),
    ("PUT", "/products/a%0A", {"json": {"title": "x"}}, 400),
    ("PUT", "/rules/a%0A", {"json": {"action": "redirect", "query": "x", "target": "/"}}, 400),
    ("PUT", "/rules/a%2Fb", {"json": {"action": "redirect", "query": "x", "target": "/"}}, 404),
    ("POST", "/search", {"json": {"q": "x", "facets": {"a": 1}}}, 400),
    ("POST", "/search", {"json": ["q"]}, 400),
    ("PUT", "/products/a", {"json": {"title": ""}}, 400),
    ("PUT", "/products/a", {"json": {"title": "x", "price": "cheap"}}, 400),
    ("PUT", "/products/a", {"json": {"product_id": "b", "title": "x"}}, 400),
    ("PUT", "/products/a%00b", {"json": {"title": "x"}}, 400),
    ("PUT", "/products/a", {"content": b'{"title": "x", "attributes": ' + b"[" * 5000 + b"]" * 5000 + b"}"}, 400),
    ("PATCH", "/products/a", {"json": {}}, 400),
    ("POST", "/products", {"content": b"[" + b" " * 51_000_000}, 413),
    ("POST", "/products", {"content": b"[1, 2"}, 400),
    ("PUT", "/products/a%20", {"json": {"title": "x"}}, 400),
    ("PUT", "/products/a%2Fcodes", {"json": {"title": "x"}}, 405),
    ("DELETE", "/products/a/codes", {}, 405),
    ("GET", "/products/a/codes/type/sofa", {}, 405),
    ("GET", f"/page/{'a' * 5000}.js", {}, 404),
    ("GET", "/search", {"params": {"q": "x"}, "headers": {"Host": "[::1]evil.com"}}, 403),
    ("GET", "/search", {"params": {"q": "x"}, "headers": {"Host": "[::1]:8000"}}, 200),
    ("GET", "/search", {"params": {"q": "x", "y" * 5000: "1"}}, 400),
    ("PUT", f"/products/{'a' * 5000}/codes/colour/{'b' * 5000}", {}, 400),
    ("POST", "/rules/try", {"json": {"q": "x", "rules": [5]}}, 400),
    ("POST", "/rules/try", {"json": {"q": "x"}}, 400),
    ("POST", "/clicks", {"json": [[1]]}, 400),
    ("POST", "/clicks", {"json": [{"query": "x", "product_id": "a"}] * 1001}, 413),
    ("POST", "/search", {"content": b'{"q": "x", "value": 1' + b"0" * 400 + b"}"}, 400),
    ("GET", "/nowhere", {}, 404),
    ("DELETE", "/search", {}, 405),
    ("GET", "/products/..%2f..%2fetc", {}, 404),
    ("PUT", f"/products/{'a' * 501}", {"json": {"title": "x"}}, 400),
    ("GET", "/", {"headers": {"Range": "bytes=a-b"}}, 200),
    ("GET", "/page/app.js", {"headers": {"Range": "bytes=99999999-"}}, 200),
    ("GET", "/page/app.js", {"headers": {"Range": "bytes=0-0," * 999}}, 200),
]


@pytest.mark.parametrize(("method", "path", "sent", "status"), HOSTILE, ids=[str(i) for i in range(len(HOSTILE))])
def test_what_no_one_should_send(client: TestClient, method: str, path: str, sent: dict[str, Any], status: int) -> None:
    response = client.request(method, path, **sent)
    assert response.status_code == status, response.text
    if status >= 400:
        error_of(response, status)
        assert len(response.text) < 1000


@pytest.mark.parametrize(
    ("method", "address", "status", "told"),
    [
        ("GET", "/nothing", 404, "not_found"), ("GET", "/search/", 404, "not_found"),
        ("POST", "/clicks/", 404, "not_found"), ("GET", "//health", 404, "not_found"), ("GET", "//", 404, "not_found"),
        ("PUT", "/rules/a/b", 404, "not_found"), ("PUT", "/attributes/brand", 404, "not_found"),
        ("GET", "/page/", 404, "not_found"), ("GET", "/Search", 404, "not_found"), ("GET", "/reload", 405, "POST"),
        ("DELETE", "/search", 405, "GET, HEAD, POST"), ("FOO", "/search", 405, "GET, HEAD, POST"),
        ("OPTIONS", "/rules", 405, "GET, HEAD"), ("POST", "/products/a", 405, "DELETE, GET, HEAD, PATCH, PUT"),
        ("PUT", "/products/a/codes", 405, "GET, HEAD"), ("GET", "/products/a/codes/type/sofa", 405, "DELETE, PUT"),
    ],
)  # fmt: skip
def test_an_address_or_a_method_that_is_none_is_told_so(
    client: TestClient, method: str, address: str, status: int, told: str
) -> None:
    """In our form, and never by a redirect: its address would be of whatever host the request names."""
    answer = client.request(method, f"http://127.0.0.1{address}", follow_redirects=False)
    assert answer.status_code == status
    error = answer.json()["error"]
    if status == 404:
        assert error["code"] == told
        assert "leave out a slash" in error["fix"]
    else:
        assert (error["code"], answer.headers["allow"]) == ("method_not_allowed", told)
        assert error["message"].endswith(f"takes {told} alone")
    if method == "GET":
        head = client.head(f"http://127.0.0.1{address}", follow_redirects=False)
        assert (head.status_code, head.headers["content-length"]) == (status, answer.headers["content-length"])


def test_drawn_requests_break_nothing(client: TestClient) -> None:
    rng = np.random.default_rng(0)
    pieces = [
        "sofa",
        "price",
        "=",
        "<",
        '"',
        "(",
        ")",
        "NOT",
        "AND",
        "\0",
        "日本",
        "🙂",
        "-",
        "IN",
        "[",
        "]",
        "1e9",
        "'",
        "%",
    ]
    for _ in range(300):
        text = " ".join(rng.choice(pieces, rng.integers(0, 8)))
        asked = dict.fromkeys(rng.choice(["q", "filter", "sort", "facets", "distinct"], 2, replace=False), text)
        assert client.get("/search", params=asked).status_code in (200, 400), asked
        assert client.get("/suggest", params={"q": text}).status_code == 200


def test_drawn_products_are_answered_as_the_document_says(client: TestClient) -> None:
    """Bodies of what fuzzing from the document found, and the like: a status that it names, fields of its types."""
    rng, paths = np.random.default_rng(1), client.get("/openapi.json").json()["paths"]["/products/{product_id}"]
    names = ["title", "Title", "name", "brand", "Price", "price", "value", "category", "colour", "attributes", ""]
    values: list[Any] = [
        "sofa",
        "",
        "\x9a",
        "\ud9ae",
        0,
        9.5,
        -1,
        True,
        None,
        [],
        ["a", "b"],
        ["a", ["b"]],
        "5",
        "\n.5\x0c",
    ]
    values += [{}, {"price": "cheap"}, {"brand": ["a", "b"], "colour": None}, {"size": {"a": 1}}, 1e300, 10**30]
    answered = set()
    for number in range(400):
        drawn = rng.choice(len(names), rng.integers(1, 5), replace=False)
        body = {names[i]: values[rng.integers(len(values))] for i in drawn}
        method = "PUT" if number % 2 else "PATCH"
        response = client.request(method, f"/products/drawn{number // 8}", content=json.dumps(body))
        assert str(response.status_code) in paths[method.lower()]["responses"], (body, response.text)
        answered.add(response.status_code)
        if response.status_code < 300:
            shown = response.json()
            assert client.get(f"/products/drawn{number // 8}").json() == shown
            assert isinstance(shown["title"], str)
            assert isinstance(shown.get("price", 0.0), float | int), body
            assert isinstance(shown.get("brand", ""), str), body
    assert answered == {200, 201, 400, 404}
    client.app.state.service.shop.delete([f"drawn{number}" for number in range(50)])  # type: ignore[attr-defined]


def test_the_fuzzer_finds_nothing(index_folder: Path, tmp_path: Path) -> None:
    """`scripts/fuzz_test.py` for some hundred requests, against a service of its own."""
    queries, port = tmp_path / "queries.tsv", free_port()
    queries.write_text("query_id\tquery\n1\tblack sofa\n2\tlamp\n3\twaterproof boots under $50\n", encoding="utf-8")
    serving = [sys.executable, "-m", "gram.cli", "serve", str(index_folder), "--port", str(port)]
    with subprocess.Popen(serving, stderr=subprocess.DEVNULL) as service:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
                await_(lambda: answers(http))
            done = run_fuzzer(f"http://127.0.0.1:{port}", queries, 400)
        finally:
            service.terminate()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 faults" in done.stdout
    assert re.search("^400 requests, ", done.stdout, re.M)


def test_the_fuzzer_tells_what_is_wrong(tmp_path: Path) -> None:
    class Wrong(BaseHTTPRequestHandler):
        """Answers a search by half of some JSON, 501 to what is no GET, and nothing to the rest."""

        def do_GET(self) -> None:
            if self.path.startswith(("/search", "/health")):
                self.send_response(200)
                for name, value in {**HEADERS, "Content-Type": "application/json", "Content-Length": "1"}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(b"{")

        def log_message(self, *_: Any) -> None:
            pass

    (tmp_path / "queries.tsv").write_text("query_id\tquery\n1\tblack sofa\n", encoding="utf-8")
    with ThreadingHTTPServer(("127.0.0.1", 0), Wrong) as server:
        threading.Thread(target=server.serve_forever).start()
        done = run_fuzzer(f"http://127.0.0.1:{server.server_port}", tmp_path / "queries.tsv", 150)
        server.shutdown()
    assert done.returncode == 1
    for fault in ("no JSON: Input data was truncated", "status 501", "closed without an answer"):
        assert f"fault: {fault}: --only " in done.stdout


def test_the_fuzzer_changes_no_shop_of_another_machine(tmp_path: Path) -> None:
    (tmp_path / "queries.tsv").write_text("query_id\tquery\n1\tblack sofa\n", encoding="utf-8")
    for address in ("http://shop.example:8000", "127.0.0.1:8000"):
        done = run_fuzzer(address, tmp_path / "queries.tsv", 1)
        assert (done.returncode, "on this machine" in done.stderr) == (2, True), address


def test_the_fuzzer_merges_and_makes_keys_beside_its_requests(
    index_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FUZZER.parent))
    with closing(Shop.open(index_folder, watching=False)) as shop:
        shop.update([Product("new", "Zumbrelin sofa")])
    change_beside = runpy.run_path(str(FUZZER))["change_beside"]
    change_beside(index_folder, keyed=True)
    with closing(Shop.open(index_folder, read_only=True)) as shop:
        assert (len(shop.live.snapshot.segments), shop.product("new") is None) == (1, False)
        assert shop.store.all("key") == {}
    with pytest.raises(RuntimeError, match="gram merge"):
        change_beside(index_folder.with_name("away"), keyed=False)


def run_fuzzer(address: str, queries: Path, requests: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FUZZER), address, str(queries), "--requests", str(requests), "--seed", "1"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
