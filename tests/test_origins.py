"""Pages of other sites that ask from the browser: what is answered to which, with a key and without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import error_of
from click.testing import CliRunner
from starlette.testclient import TestClient

from gram.cli import main
from gram.errors import SettingError
from gram.serve.app import make_app
from gram.serve.keys import make_key
from gram.serve.run import Serving
from gram.serve.service import ServeSettings
from gram.shop import Shop

SITE, EVIL = "https://shop.example", "https://evil.example"
CLICK = {"query": "sofa", "product_id": "a"}
Asking = Callable[..., TestClient]


@pytest.fixture(scope="module")
def asking(shop: Shop) -> Asking:
    """Asks a service of the shop that allows some origins."""

    def client(*origins: str, **settings: Any) -> TestClient:
        app = make_app(shop, ServeSettings(origins=origins, **settings))
        return TestClient(app, "http://127.0.0.1", raise_server_exceptions=False)

    return client


@pytest.fixture
def key(shop: Shop) -> Iterator[str]:
    yield make_key(shop.store, "page", "search")
    shop.store.remove("key", "page")


def preflight(
    client: TestClient, origin: str, method: str = "POST", headers: str = "authorization,content-type"
) -> Any:
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return client.options("/search", headers=asked)


def readable(answer: Any, origin: str = SITE) -> bool:
    """Whether a browser lets the page of an origin read it."""
    return answer.headers.get("access-control-allow-origin") in (origin, "*")


@pytest.mark.parametrize("public", [False, True])
def test_a_preflight_needs_no_key(asking: Asking, key: str, public: bool) -> None:
    answer = preflight(asking("https://other.example", SITE, public=public), SITE)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, SITE)
    methods = {"GET", "POST", "PUT", "PATCH", "DELETE"}
    assert {*answer.headers["access-control-allow-methods"].split(", ")} == methods
    may_send = {"Authorization", "Content-Type", "X-Typing"}
    assert may_send <= {*answer.headers["access-control-allow-headers"].split(", ")}
    for method in methods:
        assert preflight(asking(SITE), SITE, method, "x-typing").status_code == 200, method
    assert "Origin" in answer.headers["vary"].split(", ")
    assert answer.headers["access-control-max-age"] == "7200"
    assert "access-control-allow-credentials" not in answer.headers
    assert not readable(preflight(asking(SITE), EVIL), EVIL)
    assert preflight(asking(SITE), SITE, headers="x-other").status_code == 400


def test_every_answer_can_be_read_errors_too(asking: Asking, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client, page = asking(SITE), {"Origin": SITE, "Authorization": f"Bearer {key}"}
    answers = {
        200: client.get("/search?q=sofa", headers=page),
        201: client.post("/clicks", json=CLICK, headers=page),
        400: client.get("/search?x=1", headers=page),
        401: client.get("/search?q=sofa", headers={"Origin": SITE}),
        403: client.get("/log", headers=page),
        404: client.get("/nothing", headers=page),
        405: client.delete("/search", headers=page),
    }
    monkeypatch.setattr(Shop, "search", lambda *_: 1 / 0)
    answers[500] = client.get("/search?q=sofa", headers=page)
    client.app.state.service.there["reads"] = 10_000  # type: ignore[attr-defined]
    answers[503] = client.get("/search?q=sofa", headers=page)
    for status, answer in answers.items():
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == SITE
        assert answer.headers["vary"] == "Origin"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin", "which asking by CORS passes over"
    for status, name in ((401, "WWW-Authenticate"), (405, "Allow"), (503, "Retry-After")):
        assert answers[status].headers[name]
        assert name in answers[status].headers["access-control-expose-headers"].split(", ")


def test_others_read_nothing_and_caches_are_told(asking: Asking, key: str) -> None:
    client, keyed = asking(SITE), {"Authorization": f"Bearer {key}"}
    for origin in (EVIL, "null", f"{SITE}.evil.example", "http://shop.example", f"{SITE}:444"):
        answer = client.get("/search?q=sofa", headers=keyed | {"Origin": origin})
        assert (readable(answer, origin), answer.headers["vary"]) == (False, "Origin"), origin
    assert client.get("/search?q=sofa", headers=keyed).headers["vary"] == "Origin"
    without = asking().get("/search?q=sofa", headers=keyed | {"Origin": SITE})
    assert not {"vary", "access-control-allow-origin"} & without.headers.keys()


@pytest.mark.parametrize("allowed", [SITE, "*"])
def test_without_a_key_an_allowed_page_is_what_a_key_for_search_is(asking: Asking, allowed: str) -> None:
    client, page = asking(allowed), {"Origin": SITE}
    may = [
        client.get("/search?q=sofa", headers=page), client.post("/search", json={"q": "sofa"}, headers=page),
        client.get("/suggest?q=so", headers=page), client.post("/clicks", json=CLICK, headers=page),
    ]  # fmt: skip
    assert [answer.status_code for answer in may] == [200, 200, 200, 201]
    may_not = [
        ("PUT", "/products/a"), ("DELETE", "/products/a"), ("POST", "/products"), ("PUT", "/rules/r"), ("GET", "/log"),
        ("GET", "/rules"), ("GET", "/stats"), ("POST", "/reload"), ("POST", "/rules/try"),
    ]  # fmt: skip
    for method, path in may_not:
        refused = client.request(method, path, headers=page)
        assert error_of(refused, 403)["code"] == "bad_origin", (method, path)
        assert readable(refused)
    local = {"Origin": "http://127.0.0.1"}  # the service's own page
    assert client.put("/products/a", json={"title": "x"}, headers=local).status_code in (200, 201)
    assert client.get("/log", headers=local).status_code == 200
    assert error_of(client.get("/search?q=x", headers=page | {"Host": "shop.example"}), 403)["code"] == "bad_host"


@pytest.mark.parametrize("origin", [EVIL, f"{SITE}.evil.example", f"{SITE}:444", "https://shop.exampl", "null"])
def test_without_a_key_pages_that_are_not_allowed_write_nothing(asking: Asking, origin: str) -> None:
    """They may search, as if there were no list: a browser shows them no answer."""
    client, page = asking(SITE), {"Origin": origin}
    for method, path in (("POST", "/clicks"), ("PUT", "/products/a"), ("POST", "/products")):
        refused = client.request(method, path, json=CLICK, headers=page)
        assert error_of(refused, 403)["code"] == "bad_origin"
        assert not readable(refused, origin)
    for answer in (
        client.get("/search?q=sofa", headers=page),
        client.post("/search", json={"q": "sofa"}, headers=page),
    ):
        assert (answer.status_code, readable(answer, origin)) == (200, False)


@pytest.mark.parametrize("origin", ["http://localhost:8000", "https://localhost:8000"])
def test_the_page_of_the_service_may_do_all_also_behind_https(asking: Asking, origin: str) -> None:
    client, page = asking(SITE), {"Origin": origin, "Host": "localhost:8000"}
    assert client.put("/products/a", json={"title": "x"}, headers=page).status_code in (200, 201)
    assert client.get("/log", headers=page).status_code == 200
    other = page | {"Host": "localhost:8001"}
    assert error_of(client.put("/products/a", json={"title": "x"}, headers=other), 403)["code"] == "bad_origin"


def test_any_origin(asking: Asking, key: str) -> None:
    client = asking("*")
    assert preflight(client, EVIL).headers["access-control-allow-origin"] == "*"
    answer = client.get("/search?q=sofa", headers={"Origin": "null", "Authorization": f"Bearer {key}"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    ("given", "fix"),
    [
        ("https://shop.example/", SITE), ("https://shop.example/search", SITE), ("shop.example", SITE),
        ("https://Shop.Example", SITE), ("https://shop.example:443", SITE), ("https://me@shop.example", SITE),
        ("shop.example:8443", f"{SITE}:8443"), ("https://bücher.example", "https://xn--bcher-kva.example"),
        *((none, f"{SITE}, or *") for none in ("", "null", "https://", "ftp://shop.example", "https://*.shop.example")),
    ],
)  # fmt: skip
def test_what_is_no_origin_is_told_before_anything_is_opened(given: str, fix: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError) as told:
        Serving(tmp_path / "none", origins=(SITE, given))
    assert f"Fix: --allow-origin {fix}" in str(told.value)


@pytest.mark.parametrize(
    "origin", [SITE, "http://localhost:3000", "http://[::1]:3000", "https://xn--bcher-kva.example"]
)
def test_what_a_browser_sends_is_taken(origin: str, tmp_path: Path) -> None:
    assert Serving(tmp_path, origins=(origin, "*")).origins == (origin, "*")


@pytest.mark.parametrize("workers", [1, 2])
def test_the_command_takes_it_several_times(tmp_path: Path, workers: int) -> None:
    command = ["serve", str(tmp_path), "--workers", str(workers), "--allow-origin", SITE, "--allow-origin", "null"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert "'null' is no origin" in done.output
