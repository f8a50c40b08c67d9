"""The page in a real browser. Skipped where there is no Chromium or no Playwright."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.responses import Response

from gram.records import Product
from gram.serve.app import make_app
from gram.serve.service import ServeSettings
from gram.shop import Shop

CHROMIUM = shutil.which("chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
XSS = '<img src=x onerror="window.broken=1"><script>window.broken=1</script>'
PATH = "/search-api"
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"),
    *("--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="module")
def address(small_shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(small_shop / "index", folder / "index")
    shop = Shop.open(folder / "index", small_shop / "model")
    evil = Product(
        "evil", f"Zumbrel {XSS}", brand=XSS, price=5.0, attributes={"colour": (XSS,), "image": ("javascript:1",)}
    )
    shop.update([evil])
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    app = make_app(shop, ServeSettings(origins=(f"http://localhost:{port}",)))
    elsewhere = Response("<!doctype html>", media_type="text/html")

    async def at_two_addresses(scope: Any, receive: Any, send: Any) -> None:
        """The service, and behind a path, as a proxy has it; under other names than its own, pages of other sites."""
        host = dict(scope.get("headers", ())).get(b"host", b"127.0.0.1")
        if not host.startswith(b"127.0.0.1"):
            await elsewhere(scope, receive, send)
            return
        for part in [name for name in ("path", "raw_path") if name in scope]:
            under = PATH if part == "path" else PATH.encode()
            scope[part] = scope[part].removeprefix(under)
        await app(scope, receive, send)

    server = uvicorn.Server(uvicorn.Config(at_two_addresses, log_level="error"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()
    listening.close()
    shop.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(address)
    yield page
    assert problems == [], "nothing breaks, and the page keeps to its policy"
    page.close()


def test_typing_finds_and_filters_narrow(page: Any) -> None:
    page.fill("#q", "black sofa")
    page.wait_for_selector(".hit")
    before = page.inner_text("#status")
    page.click("#facets input >> nth=0")
    page.wait_for_selector("#chips button")
    page.wait_for_function("before => document.querySelector('#status').textContent !== before", arg=before)
    assert "filter=" in page.url
    page.click("#chips button")
    page.wait_for_function("() => !document.querySelector('#chips button')")
    page.go_back()
    page.wait_for_selector("#chips button")


def test_the_page_says_when_nothing_fits(page: Any) -> None:
    page.fill("#q", "qwxzv plorf")
    page.wait_for_function("() => document.querySelector('#status').textContent.startsWith('Nothing fits')")
    assert page.locator(".hit").count() == 20, "the nearest"
    assert page.locator(".near").count() == 0
    assert page.locator("#more").is_hidden()
    page.fill("#q", "zumbrel")
    page.wait_for_selector(".near")
    assert page.inner_text("#status").startswith("1 products")
    assert page.locator("#results > li").nth(1).inner_text() == "Near, but not quite what was asked"


def test_two_values_of_one_facet_are_either_of_them(page: Any) -> None:
    page.fill("#q", "sofa")
    page.wait_for_selector("#facets fieldset input")
    for number in (0, 1):
        page.locator("#facets fieldset").first.locator("input").nth(number).click()
        page.wait_for_function("n => document.querySelectorAll('#chips button').length === n", arg=number + 1)
    page.wait_for_selector(".hit")
    assert page.locator(".hit").count() > 1


def test_the_focus_stays_where_it_was(page: Any) -> None:
    page.fill("#q", "sofa")
    page.wait_for_selector("#facets fieldset input[type=checkbox]")
    focused = "document.activeElement.dataset.filter"
    page.locator("#facets input[type=checkbox]").first.focus()
    filter_ = page.evaluate(focused)
    page.keyboard.press("Space")
    page.wait_for_selector("#chips button")
    assert page.evaluate("document.activeElement.type") == "checkbox"
    assert page.evaluate(focused) == filter_
    page.locator("#chips button").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => !document.querySelector('#chips button')")
    assert page.evaluate(focused) == filter_, "the box that it came from"


def test_typing_makes_one_entry_of_the_history(page: Any) -> None:
    entries = page.evaluate("history.length")
    for text in ("lamp", "lamp desk"):
        for end in range(3, len(text) + 1):
            page.fill("#q", text[:end])
            page.wait_for_timeout(200)
    page.keyboard.press("Enter")
    page.wait_for_selector(".hit")
    assert page.evaluate("history.length") == entries + 1
    page.fill("#q", "sofa")
    page.wait_for_function("() => location.search === '?q=sofa'")
    page.keyboard.press("Enter")
    page.wait_for_function("() => history.state.typed === false")
    assert page.evaluate("history.length") == entries + 2
    page.go_back()
    page.wait_for_function("() => location.search === '?q=lamp+desk'")
    assert page.input_value("#q") == "lamp desk"
    page.go_back()
    page.wait_for_function("() => location.search === ''")


def test_a_number_field_has_a_least_and_a_greatest_value(page: Any) -> None:
    page.fill("#q", "sofa")
    page.wait_for_selector("[aria-label='price from']")
    page.fill("[aria-label='price from']", "200")
    page.keyboard.press("Tab")
    page.wait_for_selector("#chips button >> text='\"price\" >= 200 ✕'")
    page.fill("[aria-label='price to']", "900")
    page.keyboard.press("Enter")
    page.wait_for_selector("#chips button >> text='\"price\" BETWEEN 200 AND 900 ✕'")
    assert page.locator("#chips button").count() == 1
    assert page.input_value("[aria-label='price from']") == "200"
    prices = [float(text) for text in page.locator(".price").all_inner_texts()]
    assert prices
    assert all(200 <= price <= 900 for price in prices)


def test_ranges_of_numbers_lead_to_as_many_products_as_they_say(page: Any) -> None:
    """One and one are both together: no product is in two. Asked without words, so that all that match fit."""
    page.goto(f"{page.url.partition('?')[0]}?filter=EXISTS+price")
    labels = page.locator("fieldset:has([aria-label='price from']) label")
    labels.first.wait_for()
    counts = [int(text) for text in labels.locator(".count").all_inner_texts()]
    assert len(counts) == 5
    for n in (1, 2, 5):
        for number in range(n):
            box = labels.nth(number).locator("input")
            if not box.is_checked():
                box.click()
        page.wait_for_selector(f"#status >> text='{sum(counts[:n])} products'")
    chips = page.locator("#chips button").all_inner_texts()
    assert [(">=" in chip, " < " in chip, "<=" in chip) for chip in chips[1:]] == [(True, True, False)] * 4 + [
        (True, False, True)
    ]


def test_what_speaks_against_a_product_is_drawn_so(page: Any) -> None:
    page.fill("#q", "black sofa")
    page.wait_for_selector(".hit")
    page.click(".hit button:not(.title)")
    rows = page.locator("#drawer-features li").all()
    parts = [float(row.locator(".count").inner_text()) for row in rows]
    assert min(parts) < 0 < max(parts)
    for row, part in zip(rows, parts, strict=True):
        against, speaks_for = (row.locator(f"meter.{name}").evaluate("one => one.value") for name in ("against", "for"))
        assert against == pytest.approx(max(0, -part), abs=0.006)
        assert speaks_for == pytest.approx(max(0, part), abs=0.006)


def test_editing_a_rule_keeps_what_it_says(page: Any, address: str) -> None:
    import httpx

    rule = {"action": "hide", "query": "lamp", "products": ["evil"], "until": "2999-01-01", "draft": True}
    httpx.put(f"{address}/rules/kept", json=rule)
    httpx.put(f"{address}/rules/other", json={"action": "redirect", "query": "stores", "target": "/stores"})
    page.click("#view-team")
    page.wait_for_selector("#rules li >> nth=1")
    for number in (1, 0):  # the other one first: nothing of it may stay
        page.locator("#rules li").nth(number).locator("button").first.click()
    page.click("#rule [type=submit]")
    page.wait_for_function("() => document.querySelector('#rule-status').textContent.startsWith('Published')")
    assert httpx.get(f"{address}/rules/kept").json() == rule
    for name in ("kept", "other"):
        httpx.delete(f"{address}/rules/{name}")


def test_suggestions_by_keyboard(page: Any) -> None:
    page.fill("#q", "sof")
    page.wait_for_selector("#suggestions li")
    page.keyboard.press("ArrowDown")
    assert page.get_attribute("#q", "aria-activedescendant") == "suggestion-0"
    text = page.inner_text("#suggestion-0")
    page.keyboard.press("Enter")
    page.wait_for_selector(".hit")
    assert page.input_value("#q") == text
    assert page.is_hidden("#suggestions")


def test_a_refinement_narrows_and_a_drawer_explains(page: Any) -> None:
    page.fill("#q", "sofa")
    page.wait_for_selector("#refinements button")
    page.click("#refinements button")
    page.wait_for_selector("#chips button")
    page.click(".hit button:not(.title)")
    assert page.is_visible("#drawer")
    assert page.locator("#drawer-features li").count() > 3
    page.keyboard.press("Escape")
    assert page.is_hidden("#drawer")


def test_a_code_is_given_to_a_product_and_taken_away(page: Any) -> None:
    page.fill("#q", "zumbrel")
    page.wait_for_selector(".hit")
    page.locator(".hit", has_text="Zumbrel").first.locator("button:not(.title)").click()
    page.click("#codes summary")
    page.wait_for_selector("#own-codes li")
    page.fill("#give input", "type: sofas")
    page.keyboard.press("Enter")
    given = page.locator("#own-codes li", has_text="type: sofa").filter(has_text="given")
    given.locator("button").click()
    page.locator("#own-codes li", has_text="taken away").wait_for()
    assert "taken away" in page.inner_text("#codes-status")
    page.fill("#give input", "no code")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#codes-status').textContent.startsWith('Write a code')")


def test_a_late_answer_does_not_fill_another_products_drawer(page: Any) -> None:
    late: list[Any] = []
    page.route("**/products/*/codes", lambda route: route.continue_() if late else late.append(route))
    page.fill("#q", "black sofa")
    page.wait_for_selector(".hit >> nth=1")
    page.locator(".hit").nth(0).locator("button:not(.title)").click()
    page.click("#codes summary")
    page.wait_for_timeout(200)
    page.keyboard.press("Escape")
    page.locator(".hit").nth(1).locator("button:not(.title)").click()
    page.click("#codes summary")
    page.wait_for_selector("#own-codes li")
    late[0].fulfill(json={"codes": [{"code": "type: late", "source": "lexical", "weight": 1}], "taken": []})
    page.wait_for_timeout(300)
    assert "type: late" not in page.inner_text("#own-codes")


def test_nothing_of_the_catalogue_is_html(page: Any) -> None:
    page.fill("#q", "zumbrel")
    page.wait_for_selector(".hit")
    assert "<script>" in page.inner_text(".hit h3")
    page.click(".hit button:not(.title)")
    page.keyboard.press("Escape")
    page.fill("#q", XSS)
    page.wait_for_timeout(400)
    assert page.evaluate("() => window.broken") is None
    assert page.locator(".hit img").count() == 0


def test_the_team_tries_a_rule_before_it_is_published(page: Any) -> None:
    page.click("#view-team")
    page.fill("#rule [name=id]", "first")
    page.fill("#rule [name=query]", "lamp")
    page.fill("#rule [name=products]", "evil")
    page.click("#try")
    page.wait_for_selector("#after li")
    assert "Zumbrel" in page.inner_text("#after li >> nth=0")
    assert "Zumbrel" not in page.inner_text("#before li >> nth=0")
    page.click("#rule [type=submit]")
    page.wait_for_selector("#rules li")
    page.click("#rules li button >> nth=1")
    page.wait_for_function("() => !document.querySelector('#rules li')")


def test_it_fits_a_phone(browser: Any, address: str) -> None:
    page = browser.new_page(viewport={"width": 360, "height": 700})
    page.goto(f"{address}/?q=black+sofa")
    page.wait_for_selector(".hit")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
    page.close()


def test_it_works_behind_a_path(page: Any, address: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}{PATH}/?q=sofa")
    page.wait_for_selector(".hit")
    with page.expect_response("**/rules"):
        page.click("#view-team")
    assert {f"{address}{PATH}{path}" for path in ("/page/tools.js", "/page/style.css", "/search", "/rules")} <= {*asked}
    assert all(url.startswith((f"{address}{PATH}/", "data:")) for url in asked), asked


@pytest.mark.parametrize(("site", "told"), [("localhost", [200, 201, 404]), ("evil.localhost", [])])
def test_a_page_of_another_site_asks_where_it_may(browser: Any, address: str, site: str, told: list[int]) -> None:
    page = browser.new_page()
    page.goto(address.replace("127.0.0.1", site))
    script = """async ([address, asked]) => {
      const told = [];
      for (const [path, body] of asked) {
        const headers = { Authorization: "Bearer none", "Content-Type": "application/json" };
        const sent = { method: "POST", headers, body: JSON.stringify(body) };
        const answer = await fetch(address + path, sent).catch(() => null);
        if (answer) told.push((await answer.json(), answer.status));
      }
      return told;
    }"""
    asked = [("/search", {"q": "sofa"}), ("/clicks", {"query": "sofa", "product_id": "evil"}), ("/nothing", {})]
    assert page.evaluate(script, [address, asked]) == told
    page.close()
