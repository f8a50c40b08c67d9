"""The service: a shop behind HTTP. `docs/http.md` is its contract."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from gram.errors import DataError, GramError, MissingExtra
from gram.serve.bodies import HTTPError, respond, respond_error, split_fix
from gram.serve.changes import Changes
from gram.serve.documents import openapi
from gram.serve.keys import may, role_of
from gram.serve.searching import Searching
from gram.serve.statistics import Statistics
from gram.shop import Shop

PAGE = Path(__file__).with_name("page")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' https: data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "testserver")

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class ServeSettings:
    """`at_once` searches run at a time and `waiting` wait; more are told to come again. `public`: other machines can
    reach the service, so that a key is always needed."""

    at_once: int = 2
    waiting: int = 64
    public: bool = False
    seconds: float = 30.0  # that a request may wait for its turn


class Service:
    """Holds the shop, lets requests in by their keys and at most so many at once."""

    def __init__(self, shop: Shop, settings: ServeSettings | None = None) -> None:
        self.shop, self.settings = shop, settings or ServeSettings()
        self.statistics = Statistics()
        self.limiter = anyio.CapacityLimiter(self.settings.at_once)
        self.changing = threading.Lock()
        self.waiting = 0
        self.ready = True
        registry = self.registry = CollectorRegistry()
        self.requests = Counter("gram_requests", "Requests answered", ["route", "status"], registry=registry)
        self.seconds = Histogram("gram_seconds", "Seconds a request took", ["route"], registry=registry)
        Gauge("gram_products", "Products", registry=registry).set_function(lambda: len(self.shop))

    async def work(self, task: Callable[[], Any]) -> Any:
        """Runs a task in a thread when it is its turn; 503 where too many wait already."""
        if self.waiting >= self.settings.waiting + self.settings.at_once:
            raise HTTPError(503, "busy", "too many requests at once", "come again in a second", {"Retry-After": "1"})
        self.waiting += 1
        try:
            return await anyio.to_thread.run_sync(task, limiter=self.limiter)
        finally:
            self.waiting -= 1

    def check_key(self, request: Request, needed: str) -> None:
        """Raises HTTPError 401 or 403 unless the request's key may do what is needed.

        Where no key exists and only this machine can reach the service none is needed, but a page of another site must
        not write: it can make a browser send requests here.
        """
        keys = self.shop.store.all("key")
        if not keys and not self.settings.public:
            self._check_origin(request, needed)
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise _unauthorised("no_key", "a key is needed")
        role = role_of(keys, given.strip())
        if not role:
            raise _unauthorised("bad_key", "the key is unknown")
        if not may(role, needed):
            raise HTTPError(403, "not_allowed", f"a key for {role} may not do this", f"use a key for {needed}")

    @staticmethod
    def _check_origin(request: Request, needed: str) -> None:
        named, origin = request.headers.get("host", ""), request.headers.get("origin")
        host = named[: named.index("]") + 1] if "]" in named else named.rpartition(":")[0] or named
        if host not in LOOPBACK:
            problem = f"this service does not answer to the name {host!r:.60}"
            raise HTTPError(403, "bad_host", problem, "call it 127.0.0.1, or make a key: gram keys add")
        if needed != "search" and origin is not None and origin.split("://")[-1] != named:
            raise HTTPError(403, "bad_origin", "pages of other sites may not write here", "make a key: gram keys add")

    def endpoint(self, route: str, needed: str, handler: Handler) -> Handler:
        """A handler with its key checked, its errors in our form, and its time measured."""

        async def run(request: Request) -> Response:
            begin = time.perf_counter()
            try:
                if needed:
                    self.check_key(request, needed)
                response = await handler(request)
            except HTTPError as error:
                response = respond_error(error)
            except MissingExtra as error:
                response = respond_error(HTTPError(501, "missing_extra", *split_fix(str(error))))
            except DataError as error:
                response = respond_error(HTTPError(400, "bad_product", error.problem, error.fix))
            except GramError as error:
                response = respond_error(HTTPError(400, type(error).__name__, *split_fix(str(error))))
            self.requests.labels(route, response.status_code).inc()
            self.seconds.labels(route).observe(time.perf_counter() - begin)
            return response

        return run


def make_app(shop: Shop, settings: ServeSettings | None = None) -> Starlette:
    """The service of a shop as an ASGI application; `app.state.service` is the `Service`."""
    service = Service(shop, settings)
    searching, changes = Searching(service), Changes(service)

    async def health(_: Request) -> Response:
        return respond({"status": "ok"})

    async def ready(_: Request) -> Response:
        state = {"status": "ready" if service.ready else "stopping", "products": len(shop)}
        return respond(state, 200 if service.ready else 503)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(service.registry), media_type="text/plain; version=0.0.4")

    async def document(_: Request) -> Response:
        return respond(openapi())

    async def stats(_: Request) -> Response:
        return respond(service.statistics.report())

    async def page(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        path = PAGE / name
        if "/" in name or path.suffix not in (".html", ".js", ".css") or not path.is_file():
            raise HTTPError(404, "not_found", "there is no such page", "begin at /")
        return FileResponse(path, headers={"Cache-Control": "no-cache"})

    def route(path: str, methods: Mapping[str, tuple[str, Handler]]) -> Route:
        handlers = {m: service.endpoint(path, needed, handler) for m, (needed, handler) in methods.items()}

        async def dispatch(request: Request) -> Response:
            return await handlers["GET" if request.method == "HEAD" else request.method](request)

        return Route(path, dispatch, methods=list(methods))

    routes = [
        route("/", {"GET": ("", page)}),
        route("/page/{name}", {"GET": ("", page)}),
        route("/search", {"GET": ("search", searching.search), "POST": ("search", searching.search)}),
        route("/suggest", {"GET": ("search", searching.suggest)}),
        route("/products", {"POST": ("write", changes.put_many)}),
        route(
            "/products/{product_id:path}",
            {
                "GET": ("search", changes.get),
                "PUT": ("write", changes.put),
                "PATCH": ("write", changes.patch),
                "DELETE": ("write", changes.delete),
            },
        ),
        route("/rules", {"GET": ("admin", changes.rules)}),
        route("/rules/try", {"POST": ("admin", searching.try_rules)}),
        route(
            "/rules/{rule_id}",
            {
                "GET": ("admin", changes.rule),
                "PUT": ("admin", changes.put_rule),
                "DELETE": ("admin", changes.delete_rule),
            },
        ),
        route("/clicks", {"POST": ("search", changes.clicks)}),
        route("/log", {"GET": ("admin", changes.log)}),
        route("/stats", {"GET": ("admin", stats)}),
        route("/reload", {"POST": ("admin", changes.reload)}),
        route("/health", {"GET": ("", health)}),
        route("/ready", {"GET": ("", ready)}),
        route("/metrics", {"GET": ("search", metrics)}),
        route("/openapi.json", {"GET": ("", document)}),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _as_ours, Exception: _unforeseen})
    app.state.service = service
    app.add_middleware(_Headers)
    return app


async def _as_ours(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "error")
    headers = error.headers if isinstance(error, HTTPException) else None
    problem = "there is nothing here by this name and method"
    return respond_error(HTTPError(status, code, problem, "see /openapi.json", headers))


def _unauthorised(code: str, problem: str) -> HTTPError:
    fix = "send the header Authorization: Bearer KEY; gram keys add makes one"
    return HTTPError(401, code, problem, fix, {"WWW-Authenticate": "Bearer"})


async def _unforeseen(_: Request, error: Exception) -> Response:
    return respond_error(HTTPError(500, "internal", "something broke; it is in the service's log", "try again"))


class _Headers:
    """Adds the headers that keep a browser from doing more than the page asks."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((name.lower().encode(), value.encode()) for name, value in HEADERS.items()),
                ]
            await send(message)

        with suppress(anyio.ClosedResourceError):
            await self.app(scope, receive, with_headers if scope["type"] == "http" else send)
