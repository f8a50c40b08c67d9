"""The kinds of requests that `fuzz_test.py` sends, and how often: what a service is asked, and what it should not be.

Ids come from pools, so that the shop does not grow without end. What grows by design is clicks, of which few are sent.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Sequence
from itertools import accumulate

from fuzz_draws import HOSTS, METHODS, PATHS, SCRIPTS, TRAVERSALS, Draw, Headers, Pairs, Request

# --- what is asked ----------------------------------------------------------------------------------------------------


def plain_search(draw: Draw) -> Request:
    """What a searcher types, whatever it is, is answered."""
    return Request("GET", draw.asked("/search", [("q", draw.text()[:1_900])]), status=200)


def search(draw: Draw) -> Request:
    return Request("GET", draw.asked("/search", draw.parameters()))


def posted_search(draw: Draw) -> Request:
    return Request("POST", "/search", body=draw.json(draw.parameters()))


def filtered_search(draw: Draw) -> Request:
    pairs: Pairs = [("filter", draw.filter()), *([("q", draw.query())] if draw.chance(0.5) else [])]
    return Request("GET", draw.asked("/search", pairs)) if draw.chance(0.5) else posted(draw, "/search", pairs)


def suggest(draw: Draw) -> Request:
    text = draw.query()[: draw.rng.randint(0, 12)] if draw.chance(0.6) else draw.text()
    return Request("GET", draw.asked("/suggest", [("q", text)]), status=200)


def list_codes(draw: Draw) -> Request:
    pairs: Pairs = [("slot", draw.likely("", "colour", "type")), ("prefix", draw.text()[: draw.one(0, 1, 2, 100)])]
    return Request("GET", draw.asked("/codes", [*pairs, *draw.parameters()[:1]]))


def vector(draw: Draw) -> Request:
    return Request("GET", draw.asked("/vector", [("q", draw.text()), ("form", draw.likely("names", "ids"))]))


def get_product(draw: Draw) -> Request:
    return Request("GET", f"/products/{draw.product_id()}{'/codes' if draw.chance(0.3) else ''}")


def put_product(draw: Draw) -> Request:
    return posted(draw, f"/products/{draw.product_id()}", draw.product(), "PUT")


def patch_product(draw: Draw) -> Request:
    pairs = draw.product()
    return posted(draw, f"/products/{draw.product_id()}", pairs[draw.one(0, 1, 1, 1) :], "PATCH")


def delete_product(draw: Draw) -> Request:
    return Request("DELETE", f"/products/{draw.product_id()}")


def edit_code(draw: Draw) -> Request:
    method, neutral = draw.one("PUT", "DELETE"), draw.one("", "", "?neutral=true", "?neutral=maybe")
    return Request(method, f"/products/{draw.product_id()}/codes/{draw.code()}{neutral}")


def many_products(draw: Draw) -> Request:
    """Some lines, one in five of them no product."""
    lines = [draw.json([("product_id", draw.product_name()), *draw.product()]) for _ in range(draw.rng.randint(1, 6))]
    lines = [line if draw.chance(0.8) else draw.spoilt(line) for line in lines]
    between = draw.one(b"\n", b"\n", b"\r\n", b"\n\n \n", b",")
    body = between.join(lines) if draw.chance(0.7) else b"[" + b",".join(lines) + b"]"
    return Request("POST", "/products", body=body)


def ndjson_bomb(draw: Draw) -> Request:
    """A line without an end, many lines, or lists in lists."""
    line = b'{"product_id": "fuzz-0", "title": "' + b"x" * draw.one(999_000, 3_000_000) + b'"}'
    deep = b"[" * draw.one(2_000, 500_000)
    names = ", ".join(f'"n{draw.rng.randrange(10**6)}": {n}' for n in range(2_000))
    wide = f'{{"product_id": "fuzz-1", "title": "wide", {names}}}'.encode()
    return Request("POST", "/products", body=draw.one(
        line, b"\n" * 1_000_000, b"{\n" * 20_000, b'{"product_id": 1}\n' * 5_000, deep,
        b'{"product_id": "fuzz-2", "title": ' + deep, b"[" + b"1," * 500_000 + b"1]", b" " * 3_000_000,
        line + b"\n" + line, wide, b'{"a": ' + b"9" * 900_000 + b"}",
    ))  # fmt: skip


def put_rule(draw: Draw) -> Request:
    return posted(draw, f"/rules/{draw.rule_id()}", draw.rule(), "PUT")


def get_rule(draw: Draw) -> Request:
    return Request(draw.one("GET", "DELETE", "DELETE"), draw.one("/rules/", f"/rules/{draw.rule_id()}"))


def try_rules(draw: Draw) -> Request:
    rule = {"id": draw.rule_id(), **dict(draw.rule())}
    pairs: Pairs = [
        ("q", draw.likely(draw.query(), draw.text())),
        ("rules", draw.likely([rule], [rule, rule], [rule] * 40)),
    ]
    return posted(draw, "/rules/try", [*pairs, *([("limit", draw.value())] if draw.chance(0.1) else [])])


def attribute(draw: Draw) -> Request:
    """One that cannot be taught: of no slot, or of more words than six."""
    slot = draw.one("nothing", "", "..", draw.escaped(draw.text()))
    value = draw.escaped(draw.text())
    long = f"/attributes/colour/{value}%20a1%20b2%20c3%20d4%20e5%20f6%20g7"
    return Request("PUT", draw.one(f"/attributes/{slot}/{value}", long))


def teach(draw: Draw) -> Request:
    """One of a few that are taught: it codes some hundred products anew."""
    return Request("PUT", f"/attributes/brand/nova{draw.rng.randrange(12)}")


def click(draw: Draw) -> Request:
    """Mostly of products that are not there: those that are kept stay for ever."""
    pairs: Pairs = [("query", draw.likely(draw.query())), ("product_id", draw.likely("nothing", draw.product_name()))]
    pairs += [("kind", draw.likely("click", "purchase"))] if draw.chance(0.3) else []
    pairs += [("weight", draw.likely(1, 2.5, 1e5))] if draw.chance(0.3) else []
    pairs += [(draw.one("user_id", "timestamp"), draw.value())] if draw.chance(0.3) else []
    one, times = draw.json(pairs), draw.one(2, 1_001)
    return Request("POST", "/clicks", body=one if draw.chance(0.7) else b"[" + b",".join([one] * times) + b"]")


def watch(draw: Draw) -> Request:
    paths = "/", "/page/app.js", "/health", "/ready", "/metrics", "/stats", "/log", "/openapi.json", "/rules"
    return Request(draw.one("GET", "GET", "HEAD"), draw.one(*paths), status=200)


def reload(draw: Draw) -> Request:
    return Request("POST", "/reload", status=200)


# --- what should not be asked -----------------------------------------------------------------------------------------


def xss(draw: Draw) -> Request:
    """Scripts wherever a text may stand that is answered or shown."""
    script: str = draw.rng.choice(SCRIPTS)
    escaped, product = draw.escaped(script), draw.one("fuzz-3", "fuzz-4")
    body: Pairs = [("title", script), (draw.one("image", "url", "brand", "colour", "description", script), script)]
    rule: Pairs = [("action", "redirect"), ("query", draw.query()), ("target", script)]
    return draw.one(
        Request("GET", f"/search?q={escaped}&explain=true"), Request("GET", f"/search?filter={escaped}"),
        Request("GET", f"/search?{escaped}=1"), Request("GET", f"/suggest?q={escaped}"),
        posted(draw, f"/products/{product}", body, "PUT"), posted(draw, "/rules/rule-0", rule, "PUT"),
        Request("GET", f"/{escaped}"), Request("GET", f"/page/{escaped}"), Request("GET", f"/products/{escaped}"),
        Request("GET", "/", (("Referer", "<script>alert(1)</script>"),)),
    )  # fmt: skip


def traversal(draw: Draw) -> Request:
    path: str = draw.rng.choice(TRAVERSALS)
    at, more = draw.rng.randint(6, len(path)), draw.one("", "", "../", "%2e%2e%2f", "%00", "..%2f" * 9)
    return Request("GET", path[:at] + more + path[at:])


def unknown(draw: Draw) -> Request:
    """An address or a method that is none."""
    if draw.chance(0.5):
        return Request(draw.rng.choice(METHODS[:6]), draw.rng.choice(PATHS), broken=True)
    paths = "/search", "/suggest", "/products", "/products/fuzz-9", "/rules", "/clicks", "/log", "/"
    method = draw.rng.choice(METHODS)
    return Request(method, draw.one(*paths), body=draw.one(b"", b"", b"{}", b"x" * 2_000))


def odd_header(draw: Draw) -> Request:
    """Headers that HTTP allows, on a request that is otherwise as it should be."""
    headers: Headers = draw.one(
        (("Content-Type", draw.one("text/plain", "multipart/form-data; boundary=x", "", "a; charset=utf-7", "\xff")),),
        (("Expect", draw.one("100-continue", "200-ok", "")),),
        (("Range", draw.one("bytes=0-1", "bytes=-1", "bytes=9-1", "bytes=0-0," * 99 + "5-6", "x=1", "bytes=a-b")),),
        (("Range", "bytes=0-" + "9" * 4_000),), (("If-Range", "x"), ("Range", "bytes=0-1,3-4")),
        (("If-None-Match", "*"),), (("If-Modified-Since", "yesterday"),), (("Accept", "*/*;q=NaN," * 500),),
        (("Accept-Encoding", "gzip;q=-1, br, *;q=0"),), (("Accept-Language", "\xe9" * 50),), (("X-Typing", "1"),),
        (("Origin", draw.one("null", "http://evil.example", "http://127.0.0.1", "://")),),
        (("X-Forwarded-For", "' OR 1=1"), ("X-Forwarded-Proto", "javascript")),
        (("X-Forwarded-Host", "evil.example"), ("Forwarded", "for=_x;host=evil.example")),
        (("X-HTTP-Method-Override", "DELETE"),), (("Cookie", "a=" + "b;" * 3_000),),
        (("Upgrade", draw.one("websocket", "h2c")), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")),
        (("Connection", draw.one("close", "keep-alive, Upgrade", "Content-Length", "\xff")),),
        (("Authorization", draw.one("Basic !!!", "Bearer", "Bearer " + "x" * 9_000, "\xff\xff", "bearer a b c")),),
        (("Host", draw.rng.choice(HOSTS)),), (("TE", "trailers"), ("Trailer", "Host")), (("Via", "1.1 x, " * 900),),
    )  # fmt: skip
    return draw.one(search, page, put_product, delete_product, page)(draw)._replace(headers=headers, status=0)


def page(draw: Draw) -> Request:
    return Request("GET", draw.one("/", "/page/app.js", "/page/style.css", "/page/nothing.css"))


def header_bomb(draw: Draw) -> Request:
    """Headers, or one, beyond all measure."""
    many = tuple((f"X-{number}", "y") for number in range(draw.one(100, 900, 5_000)))
    one = draw.one(("X-Long", "z" * draw.one(8_000, 60_000, 70_000, 1_000_000)), ("Z" * 66_000, "z"))
    headers: Headers = draw.one(many, (one,), (("Cookie", "a=1; " * 20_000),))
    return Request("GET", draw.one("/health", "/search?q=sofa", "/" + "a" * 80_000), headers, broken=True)


def gzip_bomb(draw: Draw) -> Request:
    """Packed bodies: the service unpacks none."""
    packed = draw.one(_BOMB, gzip.compress(b'{"q": "sofa"}'), b"\x1f\x8b\x08garbage", b"")
    how = draw.one("gzip", "deflate", "br", "gzip, gzip, gzip", "identity", "\xff")
    method, path = draw.one(
        ("POST", "/search"), ("POST", "/products"), ("PUT", "/products/fuzz-5"), ("POST", "/clicks")
    )
    return Request(method, path, (("Content-Encoding", how),), packed)


_BOMB = gzip.compress(b"0" * 50_000_000)


def chunked(draw: Draw) -> Request:
    """A body in chunks, as it should be or not."""
    body = draw.json(draw.product()) or b"{}"
    whole = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    extended = b"%x;%s\r\n%s\r\n0\r\nX-Trailer: 1\r\n\r\n" % (len(body), b"x=" + b"y" * draw.one(1, 70_000), body)
    wrong = draw.one(b"zz\r\n", b"-1\r\n\r\n", b"F" * 20 + b"\r\n", b"5\r\nab\r\n0\r\n\r\n", b"3\nabc\n0\n\n")
    coding = draw.one("chunked", "Chunked", "gzip, chunked", "identity", "chunked, chunked", "\x0bchunked")
    method, path = draw.one(("PUT", "/products/fuzz-6"), ("POST", "/products"), ("DELETE", "/products/fuzz-7"))
    right: Headers = (("Transfer-Encoding", "chunked"),)
    if draw.chance(0.5):
        return Request(method, path, right, whole)
    headers: Headers = draw.one(right, (("Transfer-Encoding", coding),), (*right, ("Content-Length", "5")))
    return Request(method, path, headers, draw.one(whole, extended, wrong), broken=True)


def no_http(draw: Draw) -> Request:
    """Lines that are not HTTP, or nearly."""
    line: tuple[str, str, str] = draw.one(
        ("\x16\x03\x01\x02", "\x01\xfc", "\x03\x03"), ("GET", "/search?q=\xe9\x00", "HTTP/1.1"),
        ("GET", "/search q", "HTTP/1.1"), ("GET", "/health", "HTTP/9.9"), ("GET", "", "HTTP/1.1"),
        ("PRI", "*", "HTTP/2.0"), ("GET", "/health", ""), ("G\0T", "/health", "HTTP/1.1"),
        ("GET", "/health", "HTTP/1.0"), ("GET", "/" + "a" * 70_000, "HTTP/1.1"), ("SSH-2.0-OpenSSH", "", ""),
        ("GET", "health", "HTTP/1.1"), ("GET", "/health", "HTTP/1.1"),
    )  # fmt: skip
    headers: Headers = draw.one(
        (), (("Content-Length", "-1"),), (("Content-Length", "5, 6"),), (("Content-Length", "9" * 400),),
        (("Content-Length", "0"), ("Content-Length", "7")), ((" X", "y"),), (("X\0", "y"),), (("X", "a\0b"),),
        (("X", "a\rb"),), (("X: y\r\n Folded", "z"),), (("", "y"),), (("Host", "127.0.0.1"), ("Host", "evil.example")),
        (("X y", "z"),), (("Content-Length", "0x5"),), (("Content-Length", "+5"),), (("Content-Length", "٥"),),
    )  # fmt: skip
    return Request(line[0], line[1], headers, version=line[2], broken=True)


def smuggled(draw: Draw) -> Request:
    """A length that is less than the body: the rest reads as the next request."""
    rest = draw.one(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"garbage\r\n\r\n", b"\0" * 5_000, b"DELETE /p")
    method, path = draw.one(("POST", "/search"), ("POST", "/products"), ("GET", "/health"))
    length = draw.one(0, 2)
    return Request(method, path, (("Content-Length", str(length)),), b"{}"[:length] + rest, broken=True)


def cut_off(draw: Draw) -> Request:
    """A body that ends before its length."""
    whole = draw.one(put_product, posted_search, many_products, put_rule, click, ndjson_bomb)(draw)
    return whole._replace(cut=draw.rng.randint(1, max(1, len(whole.body))))


def posted(draw: Draw, path: str, pairs: Pairs, method: str = "POST") -> Request:
    return Request(method, path, body=draw.json(pairs))


KINDS: dict[Callable[[Draw], Request], float] = {
    plain_search: 90, search: 150, posted_search: 80, filtered_search: 110, suggest: 110, list_codes: 4, vector: 20,
    get_product: 80, put_product: 40, patch_product: 30, delete_product: 12, edit_code: 12, many_products: 5,
    ndjson_bomb: 2, put_rule: 30, get_rule: 20, try_rules: 8, attribute: 6, teach: 0.03, click: 6, watch: 45,
    reload: 0.3, xss: 30, traversal: 25, unknown: 30, odd_header: 35, header_bomb: 5, gzip_bomb: 8, chunked: 10,
    no_http: 20, smuggled: 5, cut_off: 5,
}  # fmt: skip
"""How often each kind is drawn, beside the others."""
ALIKE = 100
"""The first requests, in which all kinds are as often: what the rare ones take is taken before memory counts."""

_KINDS, _UPTO = [*KINDS], [*accumulate(KINDS.values())]


def draw_request(seed: int, number: int, queries: Sequence[str]) -> tuple[str, Request]:
    """A request by its number, and the name of its kind."""
    rng = random.Random(seed << 32 | number)
    kind = rng.choices(_KINDS, cum_weights=None if number < ALIKE else _UPTO)[0]
    return kind.__name__.replace("_", " "), kind(Draw(rng, queries))
