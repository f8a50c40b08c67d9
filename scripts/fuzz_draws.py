"""What the requests of `fuzz_requests.py` are made of: texts, ids, values, filters and bodies, drawn at random."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

Pairs = list[tuple[str, Any]]
Headers = tuple[tuple[str, str], ...]


class Request(NamedTuple):
    """What is sent. `target` is as it stands in the request line. `broken`: not HTTP/1.1 as it should be, so that the
    service may say so in plain text and close the connection; `cut` bytes of the body are never sent. `status` is what
    the answer must have, 0 for any below 500."""

    method: str
    target: str
    headers: Headers = ()
    body: bytes = b""
    broken: bool = False
    cut: int = 0
    status: int = 0
    version: str = "HTTP/1.1"


SCRIPTS = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "javascript:alert(1)",
    "</title><svg/onload=alert(1)>", "{{7*7}}${7*7}", "\u2028</script>", "'; DROP TABLE change; --",
    "\r\nX-Injected: 1\r\n\r\n<script>alert(1)</script>",
)  # fmt: skip
PIECES = (
    *SCRIPTS, "\0", "\x1b[31m", "\x7f", "\x9a", "\t", "\n", "\u202e", "\u200b", "\ufeff", "\u2028", "\ud83d", "\udc00",
    "\uffff", "日本語ソファ", "沙发", "كرسي", "שולחן", "เก้าอี้", "🙂", "e\u0301\u0301\u0301", "ﬀ", "İ", "ß", "ſ",
    "𝔰𝔬𝔣𝔞", "%", "%00", "%s%n", "\\", "'", '"', "`", "../../etc/passwd", "${jndi:ldap://x}", "under $50",
    "between 20 and 40 dollars", "over $999999999", "at most $1,000,000", "$0.00", "-1", "0", "1e309", "NaN", "1" * 60,
    "9" * 400, "a" * 300, " " * 200, "-" * 80, "AND", "OR", "NOT", "( )", "[", "|", "|||", ": :", "type: sofa",
    "👩‍👩‍👧", "3-seater", "12 x 40 cm", "½", "١٢",
)  # fmt: skip
NAMES = (
    "brand", "category", "price", "value", "stock", "colour", "material", "size", "type", "code", "description",
    "title", "Price", "attributes", "score", "",
)  # fmt: skip
FIELDS = ("brand", "category", "price", "value", "stock", "colour", "size", "material", "code")
CODES = ("colour/red", "colour/black", "type/sofa", "type/lamp", "material/oak", "material/leather", "audience/men")
VALUES: tuple[Any, ...] = (
    -1, 0, 0.5, -0.0, 1e-320, 1e308, -1e308, 10**9, 2**63, 10**30, int("9" * 4_300), float("nan"), float("inf"), True,
    False, None, "", " ", "0", "-1", "1e308", "-1e308", "nan", "١", "true", "\ud9ae", [], [[]], ["a", ["b"]],
    ["a", "b"], [None], {}, {"a": 1}, {"price": {"$gt": 0}}, {"": {"": []}},
)  # fmt: skip
DATES: tuple[Any, ...] = (
    "2026-11-27T09:00:00Z", "2020-01-01", "2099-01-01T00:00:00+14:00", "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59", "2026-W01-1", "20261127", "2026-02-30", "2026-11-27T09:00:00.000001", "now", "", None,
    5, [], "9" * 5000, "2026-11-27T09:00:00+99:99",
)  # fmt: skip
IDS = (
    "..", ".", "%2e%2e", "../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e%2f%2e%2e%2f", "a%00b", "a%0Ab", "a%09",
    "%20a", "a%20", "a%20%20b", "a//b", "/", "/a", "a/", "a/codes", "a%2Fcodes", "codes", "codes/codes", "a/codes/type",
    "a/codes/type/sofa", "a/codes/type/sofa/codes", "%", "%zz", "%c3%28", "%ed%a0%80", "%f0%9f%99%82", "%e2%80%ae",
    "%e2%80%8b", "%e2%80%a8", "%3Cscript%3Ealert(1)%3C%2Fscript%3E", "a;b", "a:b", "a@b", "a&b=c", "a+b", "a%3Fb",
    "a%23b", "%22", "%27%20OR%201=1--", "CON", "-", "0", "1e5", "null", "%5c..%5c..", "x" * 500, "y" * 5_000,
    "z" * 50_000, "%e2%98%83" * 300, "rules", "search",
)  # fmt: skip
PATHS = (
    "/nothing", "/search/", "/Search", "//", "//evil.example/", "/\\evil.example", "/products", "/products/", "/rules/",
    "/rules/a/b", "/rules/%2e%2e", "/attributes", "/attributes/brand", "/attributes//", "/page", "/page/",
    "/page/nothing.js", "/admin", "/.env", "/.git/config", "/wp-login.php", "/docs", "/health/", "/a" * 2_000,
    "/search;a=b", "/search%3Fq=a", "/search%00", "/suggest%0A", "/%73earch", "/?q=a", "/health?" + "a=b&" * 3_000, "*",
    "http://evil.example/", "/search#q",
)  # fmt: skip
TRAVERSALS = (
    "/page/../service.py", "/page/..%2fservice.py", "/page/..%2f..%2f..%2f..%2fetc%2fpasswd", "/page/%2e%2e/run.py",
    "/page/%252e%252e%252fservice.py", "/page/..%5cservice.py", "/page/....//service.py", "/page//etc/passwd",
    "/page/%2fetc%2fpasswd", "/page/.", "/page/..", "/page/app.js%00.html", "/page/app.js/", "/page/APP.JS",
    "/page/~root", "/page/%c0%ae%c0%ae/service.py", "/../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd",
    "/./page/./app.js", "/page/file:%2f%2f%2fetc%2fpasswd", "/proc/self/environ",
)  # fmt: skip
PRODUCTS, RULES = 150, 30
"""How many products and rules there are at most, beside those of `IDS`."""
METHODS = (
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "FOO", "get", "PROPFIND", "A" * 100,
)  # fmt: skip
HOSTS = (
    "evil.example", "127.0.0.1.evil.example", "[::1]evil.example", "localhost:", "127.0.0.1:99999999", "", "a" * 5_000,
    "localhost@evil.example", "[", "127.0.0.1",
)  # fmt: skip
LIKELY = 0.8
"""How often what is asked is of a form that the service takes: requests that are all refused would try little."""


@dataclass(frozen=True)
class Draw:
    """Parts of a request, at random."""

    rng: random.Random
    queries: Sequence[str]

    def chance(self, of: float) -> bool:
        return self.rng.random() < of

    def one(self, *of: Any) -> Any:
        return self.rng.choice(of)

    def query(self) -> str:
        """A searcher's, those first in their file more often than others, so that rules meet them."""
        return self.queries[int(len(self.queries) * self.rng.random() ** 3)]

    def text(self) -> str:
        """A query as it is, cut, joined with another one, with pieces in it, again and again, or of any characters."""
        text, how = self.query(), self.rng.random()
        if how < 0.3:
            return text
        if how < 0.5:
            return text[: self.rng.randint(0, len(text))] + self.one("", " ", self.query())
        if how < 0.9:
            for _ in range(self.rng.randint(1, 4)):
                at = self.rng.randint(0, len(text))
                text = text[:at] + self.rng.choice(PIECES) + text[at:]
            return text
        if how < 0.93:
            return (text + self.one("", " ")) * self.rng.randint(2, 100)
        return "".join(chr(self.rng.randrange(self.one(128, 0x3000, 0x110000))) for _ in range(self.rng.randint(0, 60)))

    def value(self) -> Any:
        return self.text() if self.chance(0.2) else self.rng.choice(VALUES)

    def likely(self, *of: Any) -> Any:
        """One of these, or anything else."""
        return self.rng.choice(of) if self.chance(LIKELY) else self.value()

    def code(self) -> str:
        """As it stands in a path; one that some product holds, often."""
        if self.chance(0.2):
            return self.escaped(self.text())
        slot, word = self.one("type", "colour", "brand"), self.one(*self.query().split(), "sofa")
        return self.one(*CODES, *[f"{slot}/{quote(word)}"] * len(CODES))

    def product_id(self) -> str:
        """As it stands in a path: one of some hundreds."""
        return f"fuzz-{self.rng.randrange(PRODUCTS)}" if self.chance(0.85) else self.rng.choice(IDS)

    def product_name(self) -> Any:
        """As a body names it."""
        return unquote(self.product_id()) if self.chance(0.95) else self.one(7, 7.5, -1, 10**30, None, True, [])

    def rule_id(self) -> str:
        return f"rule-{self.rng.randrange(RULES)}" if self.chance(LIKELY) else self.rng.choice(IDS)

    # --- filters ----------------------------------------------------------------------------------------------------

    def filter(self) -> str:
        """As the grammar has it, or such a one with other characters, deep or long."""
        how = self.rng.random()
        if how < 0.7:
            return self._either(self.rng.randint(0, 4))
        if how < 0.9:
            return self._misspelt(self._either(self.rng.randint(0, 3)))
        deep, leaf = self.one(5, 38, 39, 40, 41, 300, 1_990), self._compared()
        if how < 0.97:
            return self.one("(" * deep + leaf + ")" * deep, "NOT " * deep + leaf, "NOT (" * deep + leaf + ")" * deep)
        return f"{self._name()} IN [{', '.join(self._literal() for _ in range(self.one(2, 100, 400)))}]"

    def _either(self, depth: int) -> str:
        if depth == 0:
            return self._compared()
        inner = [self._either(depth - 1) for _ in range(self.rng.randint(1, 3))]
        return self.one("NOT {}", "({})", "{}", "not({})").format(f" {self.one('AND', 'OR', 'and', 'Or')} ".join(inner))

    def _compared(self) -> str:
        name = self._name()
        how = self.rng.randrange(6)
        if how == 0:
            return f"{name} IN [{', '.join(self._literal() for _ in range(self.rng.randint(1, 6)))}]"
        if how == 1:
            return f"{name} BETWEEN {self._number()} AND {self._number()}"
        if how == 2:
            return f"EXISTS {name}"
        if how == 3:
            return f"{name} {self.one('<', '<=', '>', '>=')} {self._number()}"
        return f"{name} {self.one('=', '!=')} {self._literal()}"

    def _name(self) -> str:
        return str(self.rng.choice(FIELDS)) if self.chance(0.97) else json.dumps(self.text())

    def _number(self) -> str:
        return str(self.one(0, 5, 49.99, 1000, "1e3", "-3", "+.5") if self.chance(0.97) else self.value())

    def _literal(self) -> str:
        if self.chance(0.1):
            return self._number()
        words = *self.query().split(), "red", "navy", "Shoes > Running", "type: sofa", "brand: aldo | colour: red"
        return json.dumps(self.text() if self.chance(0.1) else self.one(*words), ensure_ascii=False)

    def _misspelt(self, text: str) -> str:
        for _ in range(self.rng.randint(1, 4)):
            at = self.rng.randint(0, len(text))
            other = self.one("", '"', "(", ")", "[", "\\", ",", "=", "\0", "é", " AND ", "-")
            text = text[:at] + other + text[at + self.one(0, 1, 5) :]
        return text

    # --- forms ------------------------------------------------------------------------------------------------------

    def escaped(self, text: str) -> str:
        """A text in a request line, now and then with escapes that are broken."""
        line = quote(text.encode("utf-8", "surrogatepass"), safe="")
        if not self.chance(0.05):
            return line
        at = self.rng.randint(0, len(line))
        return line[:at] + self.one("%", "%z", "%c3%28", "%ff", "%ed%a0%80", "%00", "%u0041", "+", "%252e") + line[at:]

    def asked(self, path: str, pairs: Pairs) -> str:
        return f"{path}?{'&'.join(f'{name}={self.escaped(as_text(value))}' for name, value in pairs)}"

    def json(self, pairs: Pairs) -> bytes:
        """An object, a name perhaps twice in it, or now and then something else."""
        text = "{" + ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in pairs) + "}"
        return text.encode() if self.chance(0.95) else self.spoilt(text.encode())

    def spoilt(self, body: bytes) -> bytes:
        """What is no JSON, or other JSON than it was."""
        at, other = self.rng.randint(0, len(body)), self.rng.randbytes(self.rng.randint(0, 9))
        deep = self.one(10, 900, 1_100, 100_000)
        return self.rng.choice((
            body[:at], body[:at] + other + body[at:], b"\xef\xbb\xbf" + body, body + body, b"[" + body + b"]",
            body.decode("latin-1").encode("utf-16"), b"[" * deep, b"[" * deep + b"]" * deep,
            b'{"a":' * deep + b"1" + b"}" * deep, body.replace(b'"', b"'"), b"null", b"", b"\0" * 100,
        ))  # fmt: skip

    def parameters(self) -> Pairs:
        """Of a search: what there is, some of it odd."""
        named: dict[str, Callable[[], Any]] = {
            "q": self.text,
            "limit": lambda: self.likely(0, 1, 3, 10, 100, 1_000, 10.0, "5"),
            "offset": lambda: self.likely(0, 1, 10, 500, 9_990, "7", 10**400),
            "filter": self.filter,
            "facets": lambda: self.likely("brand,price", "value", ",".join(NAMES), ["brand", "price"], "brand," * 60),
            "sort": lambda: self.likely("price", "-price", "value", "-stock", "--price", "brand", "+price"),
            "distinct": lambda: self.likely("brand", "category", "price", "colour", "nothing"),
            "explain": lambda: self.likely(True, False, "true", "1", ""),
            "value": lambda: self.likely(0, 0.5, -3, 1e8, ""),
            "fit": lambda: self.likely(0, 0.38, 0.6, 1, "", 2),
            "fields": lambda: self.likely("brand", "price,colour", "title," * 20, ["brand"]),
            "unknown": self.value,
        }  # fmt: skip
        chosen = self.rng.choices([*named], [12, 4, 2, 4, 3, 2, 2, 2, 1, 2, 1, 0.2], k=self.rng.randint(1, 4))
        return [(name, named[name]()) for name in chosen]

    def product(self) -> Pairs:
        """The fields of one."""
        named: dict[str, Callable[[], Any]] = {
            "brand": lambda: self.likely("Aldo", self.text()),
            "category": lambda: self.likely("Home > Sofas", ["Home", "Lamps"], " > > ", self.text()),
            "description": lambda: self.likely(self.query(), self.text(), "very long " * 2_000, "w" * 50_000),
            "price": lambda: self.likely(9.5, 49, "12.99", 1e300, 1e308, "1,000"),
            "value": lambda: self.likely(0.5, -4, 1e308, -1e308, "7"),
            "attributes": lambda: self.likely({"size": ["S", "M"]}, {self.text(): self.text()}, {"price": "cheap"}),
            "colour": lambda: self.likely("red", "red|blue", ["navy", "teal"]),
            "stock": lambda: self.likely(0, 7, "12"),
            "image": lambda: self.likely("https://shop.example/a.png", self.rng.choice(SCRIPTS)),
            self.rng.choice(NAMES): self.value,
        }  # fmt: skip
        chosen = self.rng.sample([*named], self.rng.randint(0, 4))
        title = self.text() if self.chance(0.95) else self.value()
        return [("title", title), *((name, named[name]()) for name in chosen)]

    def rule(self) -> Pairs:
        """A rule that most often could be kept."""
        action = self.likely("pin", "bury", "hide", "boost", "filter", "redirect", "synonym")
        when = self.one(("query", self.query()), ("query", self.text()), ("code", "colour: red"))
        pairs: Pairs = [("action", action), when]
        if action in ("pin", "bury", "hide", "boost"):
            one = f"fuzz-{self.rng.randrange(PRODUCTS)}"
            pairs += [("products", self.likely([one], ["nothing"] * 1_000, [self.text()]))]
        if action in ("hide", "filter", "boost"):
            pairs += [("filter", self.filter())]
        if action in ("redirect", "synonym"):
            pairs += [("target", self.likely("/sale", self.text(), self.rng.choice(SCRIPTS)))]
        pairs += [("weight", self.likely(1, -2.5, 100, -100))] if self.chance(0.3) else []
        pairs += [(self.one("from", "until"), self.rng.choice(DATES))] if self.chance(0.3) else []
        pairs += [("draft", self.likely(True, False))] if self.chance(0.3) else []
        return [*pairs, (self.rng.choice(NAMES), self.value())] if self.chance(0.1) else pairs


def as_text(value: Any) -> str:
    """A value as a query string has it."""
    return value if isinstance(value, str) else json.dumps(value)
