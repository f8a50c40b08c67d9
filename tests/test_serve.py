"""The service: its contract endpoint by endpoint, its keys, its limits and its end."""

from __future__ import annotations

import asyncio
import json
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
import uvicorn
from starlette.testclient import TestClient

from gram.errors import SettingError
from gram.index.store import Store
from gram.serve.app import make_app
from gram.serve.keys import make_key
from gram.serve.run import Server, _take_in, _watch, is_loopback
from gram.serve.service import ServeSettings
from gram.serve.statistics import TIMED, Statistics
from gram.shop import Shop


def error_of(response: Any, status: int) -> dict[str, str]:
    assert response.status_code == status, response.text
    error: dict[str, str] = response.json()["error"]
    assert set(error) == {"code", "message", "fix"}
    return error


def test_search_by_get_and_by_post_is_the_same(client: TestClient) -> None:
    asked = {"q": "black sofa", "limit": 3, "facets": "brand,price", "explain": "true"}
    got = client.get("/search", params=asked).json()
    posted = client.post("/search", json=asked | {"explain": True, "facets": ["brand", "price"]}).json()
    for answer in (got, posted):
        assert answer.pop("took_ms") >= 0
    assert got == posted
    assert len(got["hits"]) == 3
    hit = got["hits"][0]
    assert {"product_id", "title", "score", "codes", "features"} <= set(hit)
    assert sum(hit["features"].values()) == pytest.approx(hit["score"], abs=1e-3)
    assert set(hit["codes"][0]) == {"code", "share", "query", "product"}
    assert sum(got["facets"]["brand"].values()) <= got["found"]
    assert got["ranges"]["price"][0].keys() == {"from", "to", "count"}
    assert got["query"]["read_as"] == "black sofa"


def test_refinements_lead_to_as_many_products_as_they_say(client: TestClient) -> None:
    answer = client.get("/search", params={"q": "sofa"}).json()
    assert answer["refinements"]
    for refinement in answer["refinements"]:
        refined = client.get("/search", params={"q": "sofa", "filter": refinement["filter"], "limit": 1000}).json()
        assert refined["found"] >= refinement["products"] > 0


def test_an_answer_tells_the_heaviest_expansions_of_a_query(shop: Shop) -> None:
    query = shop.live.snapshot.searcher.represent(["black sofa"], compound=False)[0]
    assert len(query.expansion.key) > 8
    told = [weight for _, source, weight in shop.search("black sofa").codes if source == "expansion"]
    assert told == [round(weight, 4) for weight in sorted(query.expansion.weight.tolist(), reverse=True)[:8]]


def test_a_refinement_counts_what_its_filter_lets_through_of_the_found(client: TestClient) -> None:
    def ids(**asked: str | int) -> list[str]:
        answer = client.get("/search", params={"limit": 1000, **asked}).json()
        return [hit["product_id"] for hit in answer["hits"]][: answer["found"]]

    found, refinements = set(ids(q="sofa")), client.get("/search", params={"q": "sofa"}).json()["refinements"]
    assert refinements
    for refinement in refinements:
        assert refinement["products"] == len(found.intersection(ids(filter=refinement["filter"])))


def test_read_after_write(client: TestClient) -> None:
    for number in range(30):
        product = {"title": f"Zumbrel{number} navy sofa", "price": number, "stock": "3"}
        assert client.put(f"/products/z{number % 7}", json=product).status_code in (200, 201)
        hits = client.get("/search", params={"q": f"zumbrel{number}", "limit": 1}).json()["hits"]
        assert hits[0]["product_id"] == f"z{number % 7}"
        found = client.get("/search", params={"filter": f"price = {number} AND stock = 3"}).json()["hits"]
        assert f"z{number % 7}" in [hit["product_id"] for hit in found]
    assert client.patch("/products/z1", json={"price": 999, "stock": None}).json()["price"] == 999
    assert "stock" not in client.get("/products/z1").json()
    assert client.get("/search", params={"filter": "price = 999"}).json()["found"] == 1
    assert client.delete("/products/z1").json() == {"deleted": "z1"}
    error_of(client.get("/products/z1"), 404)
    error_of(client.delete("/products/z1"), 404)
    error_of(client.patch("/products/z1", json={"price": 1}), 404)


def test_codes_of_a_product_are_given_and_taken(client: TestClient) -> None:
    assert client.put("/products/code%2F1", json={"title": "Zumbrelia sofa"}).status_code == 201
    assert client.put("/products/code%2F1/codes/colour/black").json() == {"given": "colour: black"}
    assert client.delete("/products/code%2F1/codes/type/sofas").json() == {"taken": "type: sofa"}
    answer = client.get("/products/code%2F1/codes").json()
    assert {"colour: black": "given"}.items() <= {one["code"]: one["source"] for one in answer["codes"]}.items()
    assert answer["taken"] == ["type: sofa"]
    assert client.delete("/products/code%2F1/codes/type/sofa?neutral=true").json() == {"neutral": "type: sofa"}
    assert client.get("/products/code%2F1/codes").json()["taken"] == []
    found = client.get("/search", params={"q": "black", "explain": "1", "limit": 1000}).json()["hits"]
    codes = next(hit for hit in found if hit["product_id"] == "code/1")["codes"]
    assert ("colour: black", "given") in {(code["code"], code["product"]) for code in codes}
    error_of(client.put("/products/unknown/codes/colour/black"), 404)
    error_of(client.get("/products/unknown/codes"), 404)
    assert "no code colour: qqq" in error_of(client.put("/products/code%2F1/codes/colour/qqq"), 400)["message"]
    assert client.delete("/products/code%2F1").json() == {"deleted": "code/1"}


def test_an_attribute_is_added_while_it_serves(client: TestClient) -> None:
    client.put("/products/va", json={"title": "Novabrand Vantor sofa"})
    added = client.put("/attributes/brand/Novabrand%20vantor")
    assert added.status_code == 201
    assert (added.json()["attribute"], added.json()["new"]) == ("brand: novabrand vantor", True)
    assert added.json()["coded_anew"] > 1, "those near it as well"
    found = client.get("/search", params={"filter": 'code = "brand: novabrand vantor"', "limit": 1000}).json()["hits"]
    assert "va" in [hit["product_id"] for hit in found]
    suggested = TestClient(make_app(client.app.state.service.shop), "http://127.0.0.1")  # type: ignore[attr-defined]
    assert "novabrand vantor" in [s["text"] for s in suggested.get("/suggest?q=vant").json()["suggestions"]]
    again = client.put("/attributes/brand/novabrand%20vantor")
    assert (again.status_code, again.json()["new"]) == (200, False)
    assert "type: sofa already" in error_of(client.put("/attributes/colour/sofa"), 400)["message"]
    assert "no slot 'flavour'" in error_of(client.put("/attributes/flavour/mint"), 400)["message"]
    client.delete("/products/va")


def test_every_route_is_in_the_openapi_document(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for route in client.app.routes:  # type: ignore[attr-defined]
        path = route.path.replace(":path", "")
        if path not in ("/", "/page/{name}", "/openapi.json"):
            assert {method.lower() for method in route.methods - {"HEAD"}} == paths[path].keys(), path


def test_many_products_and_what_is_wrong_with_some(client: TestClient, shop: Shop) -> None:
    lines = [json.dumps({"product_id": f"m{i}", "title": f"Many thing {i}"}) for i in range(450)]
    lines[3], lines[9], lines[20] = "{broken", json.dumps({"product_id": "", "title": "x"}), '["no", "object"]'
    answer = client.post("/products", content="\n".join(lines)).json()
    assert (answer["accepted"], answer["rejected_count"]) == (447, 3)
    assert [row["line"] for row in answer["rejected"]] == [4, 10, 21]
    assert "no product_id" in answer["rejected"][1]["error"]
    assert shop.product("m449") is not None
    again = client.post("/products", json=[{"product_id": "m0", "title": "Other"}, {"title": "no id"}]).json()
    assert (again["accepted"], again["rejected"][0]["line"]) == (1, 2)
    assert shop.product("m0").title == "Other"  # type: ignore[union-attr]


def test_a_line_that_is_too_long_is_rejected_like_others(client: TestClient, shop: Shop) -> None:
    lines = [json.dumps({"product_id": key, "title": "Long thing"}) for key in ("l1", "l2", "l3/codes")]
    lines.insert(1, json.dumps({"product_id": "long", "title": "x" * 2_500_000}))

    def parts() -> Iterator[bytes]:
        text = "\n".join(lines).encode()
        yield from (text[at : at + 100_000] for at in range(0, len(text), 100_000))

    answer = client.post("/products", content=parts()).json()
    assert (answer["accepted"], [row["line"] for row in answer["rejected"]]) == (2, [2, 4])
    assert "more than 1,000,000 bytes" in answer["rejected"][0]["error"]
    assert "address of a product's codes" in answer["rejected"][1]["error"]
    assert shop.product("l2") is not None
    shop.delete(["l1", "l2"])


def test_rules_are_kept_tried_and_taken_out(client: TestClient) -> None:
    first = client.get("/search", params={"q": "lamp"}).json()["hits"][0]["product_id"]
    hide = {"action": "hide", "query": "lamps", "products": [first]}
    tried = client.post("/rules/try", json={"q": "lamp", "rules": [{"id": "h", **hide}]}).json()
    assert tried["before"]["hits"][0]["product_id"] == first
    assert tried["after"]["hits"][0]["product_id"] != first
    assert tried["after"]["rules"] == ["h"]
    assert client.get("/search", params={"q": "lamp"}).json()["hits"][0]["product_id"] == first, "not published"
    assert client.put("/rules/h", json=hide).json() == hide | {"warnings": []}
    assert client.get("/rules").json() == {"rules": {"h": hide}}
    assert client.get("/rules/h").json() == hide
    assert client.get("/search", params={"q": "lamp"}).json()["hits"][0]["product_id"] != first
    client.put("/rules/r", json={"action": "redirect", "query": "stores", "target": "/stores"})
    assert client.get("/search", params={"q": "stores"}).json()["redirect"] == "/stores"
    assert client.delete("/rules/h").json() == {"deleted": "h"}
    client.delete("/rules/r")
    error_of(client.get("/rules/h"), 404)


@pytest.mark.parametrize(
    "rule",
    [
        {"action": "pin", "query": "x"}, {"action": "bury", "code": "type: sofa"}, {"action": "filter", "query": "x"},
        {"action": "redirect", "query": "x"}, {"action": "synonym", "query": "x"},
    ],
)  # fmt: skip
def test_a_rule_with_what_the_fix_adds_is_kept(client: TestClient, rule: dict[str, str]) -> None:
    fix = error_of(client.put("/rules/x", json=rule), 400)["fix"]
    for example in fix.removeprefix("add them as in ").split(" or "):
        assert client.put("/rules/x", json=rule | json.loads(f"{{{example}}}")).status_code == 200
    client.delete("/rules/x")


def test_a_limit_as_the_fix_says_is_answered(client: TestClient) -> None:
    for asked, told in (
        ({"limit": "20000"}, "10000"),
        ({"limit": "9" * 30}, "10000"),
        ({"limit": 20, "offset": 9990}, "10"),
    ):
        fix = error_of(client.get("/search", params=asked), 400)["fix"]
        limit = re.findall("[0-9]+", fix)[-1]
        assert limit == told
        assert client.get("/search", params=asked | {"limit": limit}).status_code == 200
    fix = error_of(client.get("/search", params={"offset": 10_000}), 400)["fix"]
    assert fix == "send an offset below 10000; a filter brings others within reach"


def test_a_product_without_a_title_is_told_to_have_one(client: TestClient) -> None:
    fixes = [
        client.post("/products", json=[{"product_id": "x"}]).json()["rejected"][0]["error"].partition("Fix: ")[2],
        error_of(client.put("/products/x", json={"brand": "Aldo"}), 400)["fix"],
    ]
    assert fixes == ["name the column that holds it 'title', or add one."] * 2
    assert "Fix: send a JSON object" in client.post("/products", content=b"x").json()["rejected"][0]["error"]


def test_clicks_become_a_log(client: TestClient) -> None:
    for product_id in ("ca", "cb"):
        client.put(f"/products/{product_id}", json={"title": "Clicked lamp"})
    answer = client.post("/clicks", json={"query": "velvet\tsofa", "product_id": "ca"})
    assert answer.json() == {"accepted": 1, "rejected": 0}
    known = {"query": "zumbrelish", "product_id": "cb", "weight": 2, "kind": "purchase"}
    answer = client.post("/clicks", json=[known, {"query": "zumbrelish", "product_id": "never there"}])
    assert answer.json() == {"accepted": 1, "rejected": 1}
    told = client.get("/openapi.json").json()["paths"]["/clicks"]["post"]["responses"]["201"]["content"]
    assert set(told["application/json"]["schema"]["required"]) == answer.json().keys()
    rows = [row.split("\t") for row in client.get("/log").text.splitlines()]
    assert rows[0] == ["query", "product_id", "weight", "user_id", "timestamp"]
    assert ["velvet sofa", "ca", "1", "", ""] in rows
    assert ["zumbrelish", "cb", "2", "", ""] in rows
    assert "never there" not in str(rows)
    error_of(client.post("/clicks", json={"query": "x"}), 400)
    error_of(client.post("/clicks", json={"query": "x", "product_id": "a", "weight": -1}), 400)


def test_a_query_is_given_as_a_vector_for_another_engine(client: TestClient) -> None:
    codes = client.get("/vector", params={"q": "black sofa"}).json()["codes"]
    numbered = client.get("/vector", params={"q": "black sofa", "form": "ids"}).json()
    assert codes
    assert sorted(numbered["values"], reverse=True) == list(codes.values())
    assert client.get("/vector").json() == {"codes": {}}
    refused = client.get("/vector", params={"q": "sofa", "form": "bytes"})
    assert refused.status_code == 400
    assert "names, ids" in refused.json()["error"]["fix"]


def test_what_watches_the_service(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json()["status"] == "ready"
    metrics = client.get("/metrics").text
    assert "gram_requests_total" in metrics
    if sys.platform == "linux":
        (memory,) = re.findall("^process_resident_memory_bytes (.*)", metrics, re.M)
        assert 1e7 < float(memory) < 1e11
    stats = client.get("/stats").json()
    assert stats["top"]
    assert stats["searches"] == stats["timed"] > 0
    assert client.get("/openapi.json").json()["openapi"] == "3.1.0"
    assert client.post("/reload").json()["reloaded"] is False


def test_statistics_say_of_how_many_searches_the_times_are() -> None:
    statistics = Statistics()
    for number in range(TIMED + 5):
        statistics.note_search("", 1, float(number >= TIMED))
    report = statistics.report()
    assert (report["searches"], report["timed"]) == (TIMED + 5, TIMED)


def test_the_page_and_its_policy(client: TestClient) -> None:
    page = client.get("/")
    assert "text/html" in page.headers["content-type"]
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "<script>" not in page.text
    for name in ("app.js", "codes.js", "tools.js", "team.js", "style.css"):
        assert client.get(f"/page/{name}").status_code == 200
        assert "innerHTML" not in client.get(f"/page/{name}").text
    for path in ("/page/../app.py", "/page/..%2Fapp.py", "/page/index", "/page/%2e%2e/keys.py", "/page/keys.py"):
        assert client.get(path).status_code == 404, path


def test_a_patch_reads_names_as_a_body_does(client: TestClient) -> None:
    client.put("/products/p1", json={"title": "Kayak", "colour": "blue", "attributes": {"brand": "inner"}})
    assert client.patch("/products/p1", json={"Price": 5}).json()["price"] == 5
    patched = client.patch("/products/p1", json={"attributes": {"colour": "red", "brand": "other"}}).json()
    assert (patched["colour"], patched["attributes"], patched["price"]) == ("red", {"brand": "other"}, 5)
    patched = client.patch("/products/p1", json={"brand": "Outer", "colour": None}).json()
    assert patched == {
        "product_id": "p1", "title": "Kayak", "brand": "Outer", "price": 5, "attributes": {"brand": "other"},
    }  # fmt: skip
    error_of(client.patch("/products/p1", json={"title": None}), 400)
    for attributes in ("red", False, [], 0):
        error_of(client.patch("/products/p1", json={"attributes": attributes}), 400)
    client.delete("/products/p1")


def test_pages_of_other_sites_may_not_write(client: TestClient) -> None:
    click = {"query": "sofa", "product_id": "a"}
    evil = {"Origin": "https://evil.example"}
    assert error_of(client.put("/products/a", json={"title": "x"}, headers=evil), 403)["code"] == "bad_origin"
    assert error_of(client.get("/search?q=x", headers={"Host": "evil.example"}), 403)["code"] == "bad_host"
    assert client.post("/clicks", json=click, headers={"Origin": "http://127.0.0.1"}).status_code == 201
    assert error_of(client.post("/clicks", json=click, headers=evil), 403)["code"] == "bad_origin"


def test_keys_and_roles(small_shop: Path, tmp_path: Path) -> None:
    shutil.copytree(small_shop / "index", tmp_path / "index")
    shop = Shop.open(tmp_path / "index", small_shop / "model")
    keys = {role: make_key(shop.store, role, role) for role in ("search", "write", "admin")}
    with pytest.raises(SettingError, match="already"):
        make_key(shop.store, "search", "search")
    with pytest.raises(SettingError, match="no role"):
        make_key(shop.store, "x", "root")
    assert not any(key in json.dumps(shop.store.all("key")) for key in keys.values())
    client = TestClient(make_app(shop, ServeSettings(public=True)))
    asks = {
        "search": [("GET", "/search?q=x", None), ("POST", "/clicks", {"query": "x", "product_id": "a"})],
        "write": [("PUT", "/products/a", {"title": "x"}), ("DELETE", "/products/a", None)],
        "admin": [("GET", "/rules", None), ("GET", "/log", None), ("GET", "/stats", None), ("POST", "/reload", None)],
    }
    order = list(asks)
    for needed, requests in asks.items():
        for method, path, body in requests:
            error_of(client.request(method, path, json=body), 401)
            error_of(client.request(method, path, json=body, headers={"Authorization": "Bearer no"}), 401)
            for role, key in keys.items():
                status = client.request(method, path, json=body, headers={"Authorization": f"Bearer {key}"}).status_code
                assert (status < 400) == (order.index(role) >= order.index(needed)) or status == 404, (role, path)
    assert client.get("/health").status_code == 200
    shop.close()


@pytest.mark.parametrize(("kind", "searches", "changes"), [("reads", 503, 201), ("writes", 200, 503)])
def test_too_many_at_once_are_told_to_come_again(client: TestClient, kind: str, searches: int, changes: int) -> None:
    """A flood of changes turns no search away, nor the other way round."""
    there = client.app.state.service.there  # type: ignore[attr-defined]
    there[kind] = 10_000
    click = {"query": "sofa", "product_id": "a"}
    answers = [client.get("/search?q=x"), client.post("/clicks", json=click)]
    there[kind] = 0
    assert [answer.status_code for answer in answers] == [searches, changes]
    refused = answers[0 if searches == 503 else 1]
    assert error_of(refused, 503)["code"] == "busy"
    assert refused.headers["retry-after"] == "1"


def test_keys_are_read_once_a_second_and_off_the_event_loop(
    small_shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small_shop / "index", tmp_path / "index")
    shop = Shop.open(tmp_path / "index", small_shop / "model")
    key, read = make_key(shop.store, "page", "search"), Store.all
    loops: list[bool] = []

    def note(store: Store, kind: str) -> Any:
        if kind == "key":
            loops.append(asyncio._get_running_loop() is not None)
        return read(store, kind)

    monkeypatch.setattr(Store, "all", note)
    client = TestClient(make_app(shop), "http://127.0.0.1", headers={"Authorization": f"Bearer {key}"})
    assert [client.get("/suggest?q=").status_code for _ in range(9)] == [200] * 9
    assert loops in ([False], [False, False]), "a second may have passed"
    shop.store.remove("key", "page")
    shop.store.put("key", "other", {"role": "admin", "hash": ""})
    time.sleep(1)
    assert client.get("/suggest?q=").status_code == 401
    shop.close()


def test_a_read_only_service_takes_no_changes(small_shop: Path, tmp_path: Path) -> None:
    shutil.copytree(small_shop / "index", tmp_path / "index")
    shop = Shop.open(tmp_path / "index", small_shop / "model", read_only=True)
    client = TestClient(make_app(shop), "http://127.0.0.1")
    assert error_of(client.put("/products/a", json={"title": "x"}), 403)["code"] == "read_only"
    assert client.get("/search?q=sofa").json()["hits"]
    shop.close()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("shop.example", False)],
)
def test_which_addresses_are_this_machines_own(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_what_breaks_is_counted_and_says_no_more_than_it_should(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret path")

    monkeypatch.setattr(Shop, "search", broken)
    response = client.get("/search?q=sofa")
    assert error_of(response, 500)["code"] == "internal"
    assert "secret" not in response.text
    assert "a secret path" in caplog.text
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert 'gram_requests_total{route="/search",status="500"} 1.0' in client.get("/metrics").text


def test_a_merge_that_fails_is_told(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    from gram.serve.changes import Changes

    changes = Changes(client.app.state.service)  # type: ignore[attr-defined]
    failed = subprocess.Popen([sys.executable, "-c", "raise SystemExit(2)"])
    failed.wait()
    changes._merging = failed
    changes._merge_if_due()
    assert "a merge failed (2)" in caplog.text


def test_a_service_that_stops_says_so_while_it_goes_on_answering(shop: Shop) -> None:
    app = make_app(shop)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = Server(uvicorn.Config(app, log_level="error"), app.state.service, drain=600)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        assert httpx.get(f"{address}/ready").status_code == 200
        server.handle_exit(signal.SIGTERM, None)
        ready = httpx.get(f"{address}/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "stopping")
        assert httpx.get(f"{address}/search?q=sofa").json()["hits"]
        server.handle_exit(signal.SIGTERM, None)  # a second one does not wait
        thread.join(timeout=30)
    assert not thread.is_alive()


@pytest.mark.parametrize("signals", [1, 2])
def test_what_is_cut_off_is_told_what_is_written(shop: Shop, signals: int) -> None:
    """After the time of grace, or at once at a second signal."""
    app = make_app(shop)
    lines = "".join(json.dumps({"product_id": f"cut{i}", "title": "Cut thing"}) + "\n" for i in range(201)).encode()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1 if signals == 1 else 600)
        server = Server(config, app.state.service, drain=0)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        with socket.create_connection(listening.getsockname()) as client:
            client.sendall(b"POST /products HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999\r\n\r\n" + lines)
            while shop.product("cut199") is None:
                time.sleep(0.01)
            time.sleep(0.1)
            for _ in range(signals):
                server.handle_exit(signal.SIGINT, None)
            thread.join(timeout=30)
            answer = client.recv(10_000).decode()
    assert not thread.is_alive()
    assert answer.startswith("HTTP/1.1 503")
    assert "200 products are written" in answer
    shop.delete(f"cut{i}" for i in range(201))


def test_a_service_that_was_told_to_stop_does_so_after_a_while(shop: Shop) -> None:
    app = make_app(shop)
    server = Server(uvicorn.Config(app), app.state.service, drain=0.2)
    server.handle_exit(signal.SIGTERM, None)
    assert not server.should_exit
    deadline = time.monotonic() + 30
    while not server.should_exit and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.should_exit


def test_an_index_that_is_away_is_told(client: TestClient, shop: Shop) -> None:
    folder = shop.live.folder
    folder.rename(folder.with_name("away"))
    error = error_of(client.post("/reload"), 503)
    folder.with_name("away").rename(folder)
    assert str(folder) in error["message"]
    assert client.post("/reload").json()["reloaded"] is False


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc, and reads /proc")
def test_memory_that_threads_freed_can_be_given_back() -> None:
    code = """
        import threading
        from pathlib import Path
        import numpy as np
        from gram.coder.memory import give_memory_back
        def resident():
            return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
        kept = []
        def use():
            np.ones(30_000_000, np.uint8)
            for _ in range(20):
                large = []
                for _ in range(10):
                    large.append(np.ones(4_000_000, np.uint8))
                    kept.append(bytearray(10_000))  # between them: what is freed is then not at the end
        before = resident()
        for _ in range(3):
            thread = threading.Thread(target=use)
            thread.start()
            thread.join()
        kept_by_itself = resident() - before
        give_memory_back()
        print(kept_by_itself, resident() - before)
    """
    done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, check=True)
    by_itself, left = map(int, done.stdout.split())
    assert left < 30_000_000 < 60_000_000 < by_itself


def test_memory_is_given_back_once_something_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    live = SimpleNamespace(snapshot=SimpleNamespace(version=0))
    versions = iter([7, 7, 8, 8, 8])

    def wait(_: float) -> bool:
        live.snapshot.version = next(versions, 0)
        return live.snapshot.version == 0

    monkeypatch.setattr("gram.serve.run.give_memory_back", lambda: given.append(live.snapshot.version))
    _watch(cast(Any, SimpleNamespace(live=live, refresh=bool)), cast(Any, SimpleNamespace(wait=wait)))
    assert given == [7, 8]


def test_the_load_test_updates_at_its_rate_however_slow_the_answers_are() -> None:
    class Slow(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(0.2)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    took: list[float] = []
    failed: list[int] = []
    updater = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "load_test.py"))["updater"]
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever).start()
        updater(f"http://127.0.0.1:{server.server_port}", 40, 1.0, took, failed)
        server.shutdown()
    assert len(took) >= 15, "one after another five would be answered"
    assert min(took) >= 200
    assert failed == []


def test_a_filter_by_a_field_that_no_product_has_is_refused(client: TestClient) -> None:
    error = error_of(client.get("/search", params={"q": "sofa", "filter": 'color = "black" OR price < 5'}), 400)
    assert "'color'" in error["message"]
    assert "'colour'" in error["fix"]
    assert client.get("/search", params={"q": "sofa", "filter": "stock > 1000000"}).json()["hits"] == []


def test_what_cannot_be_taken_in_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> bool:
        raise OSError("the folder is away")

    told = _take_in(fail)
    assert _take_in(fail, told) == told
    assert len(caplog.records) == 1


@pytest.mark.parametrize(("name", "code"), [("index/dense.npy", "no_index"), ("model/lexicon.jsonl", "no_model")])
def test_a_damaged_file_is_told_at_a_reload_and_the_shop_goes_on(index_folder: Path, name: str, code: str) -> None:
    shop = Shop.open(index_folder, index_folder.with_name("model"))
    damaged = index_folder.parent / name
    whole = damaged.read_bytes()
    try:
        with TestClient(make_app(shop), "http://127.0.0.1") as client:
            damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
            error = error_of(client.post("/reload"), 503)
            assert error["code"] == code
            assert str(damaged) in error["message"]
            assert client.get("/search?q=sofa").json()["hits"]
            damaged.write_bytes(whole)
            assert client.post("/reload").json() == {"reloaded": False, "products": len(shop)}
    finally:
        shop.close()
