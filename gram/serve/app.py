"""The service: a shop behind HTTP. `docs/http.md` is its contract."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gram.serve.bodies import HTTPError, check_known, respond_error, unforeseen
from gram.serve.changes import Changes
from gram.serve.documents import OPERATIONS
from gram.serve.origins import CORS
from gram.serve.searching import Searching
from gram.serve.service import Handler, ServeSettings, Service
from gram.serve.watching import Watching
from gram.shop import Shop

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' https: data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def make_app(shop: Shop, settings: ServeSettings | None = None) -> Starlette:
    """The service of a shop as an ASGI application; `app.state.service` is the `Service`."""
    service = Service(shop, settings)
    by_writer, searching, changes, watching = service.by_writer, Searching(service), Changes(service), Watching(service)

    def route(path: str, methods: Mapping[str, tuple[str, Handler]]) -> Route:
        handlers = {
            method: service.endpoint(path, needed, _with_known_parameters(path, method, handler))
            for method, (needed, handler) in methods.items()
        }

        async def dispatch(request: Request) -> Response:
            return await handlers["GET" if request.method == "HEAD" else request.method](request)

        return Route(path, dispatch, methods=list(methods))

    routes = [
        route("/", {"GET": ("", watching.page)}),
        route("/page/{name}", {"GET": ("", watching.page)}),
        route("/search", {"GET": ("search", searching.search), "POST": ("search", searching.search)}),
        route("/suggest", {"GET": ("search", searching.suggest)}),
        route("/codes", {"GET": ("search", searching.codes)}),
        route("/vector", {"GET": ("search", searching.vector)}),
        route("/products", {"POST": ("write", by_writer(changes.put_many))}),
        route("/products/{product_id:path}/codes", {"GET": ("search", changes.codes)}),
        route(
            "/products/{product_id:path}/codes/{slot}/{value:path}",
            {
                "PUT": ("write", by_writer(changes.give_code)),
                "DELETE": ("write", by_writer(changes.take_code)),
            },
        ),
        route(
            "/products/{product_id:path}",
            {
                "GET": ("search", changes.get),
                "PUT": ("write", by_writer(changes.put)),
                "PATCH": ("write", by_writer(changes.patch)),
                "DELETE": ("write", by_writer(changes.delete)),
            },
        ),
        route("/rules", {"GET": ("admin", changes.rules)}),
        route("/rules/try", {"POST": ("admin", searching.try_rules)}),
        route(
            "/rules/{rule_id}",
            {
                "GET": ("admin", changes.rule),
                "PUT": ("admin", by_writer(changes.put_rule)),
                "DELETE": ("admin", by_writer(changes.delete_rule)),
            },
        ),
        route("/attributes/{slot}/{value:path}", {"PUT": ("admin", by_writer(changes.put_attribute))}),
        route("/clicks", {"POST": ("search", by_writer(changes.clicks))}),
        route("/log", {"GET": ("admin", changes.log)}),
        route("/stats", {"GET": ("admin", by_writer(watching.stats))}),
        route("/reload", {"POST": ("admin", changes.reload)}),
        route("/health", {"GET": ("", watching.health)}),
        route("/ready", {"GET": ("", watching.ready)}),
        route("/metrics", {"GET": ("search", watching.metrics)}),
        route("/openapi.json", {"GET": ("", watching.document)}),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _as_ours, Exception: _unforeseen})
    app.router.redirect_slashes = False  # it would lead to whatever host a request names
    app.state.service = service
    if service.settings.origins:
        app.add_middleware(CORSMiddleware, allow_origins=service.settings.origins, **CORS)
    app.add_middleware(_Headers)
    return app


def _with_known_parameters(path: str, method: str, handler: Handler) -> Handler:
    """The same, refusing parameters of the address that the document does not name for it."""
    operation = OPERATIONS.get(path.replace(":path", ""), {}).get(method.lower())
    if operation is None or operation.any_query:
        return handler
    known = [parameter["name"] for parameter in operation.query]

    async def handle(request: Request) -> Response:
        check_known(request.query_params, *known)
        return await handler(request)

    return handle


async def _as_ours(_: Request, error: Exception) -> Response:
    headers = error.headers if isinstance(error, HTTPException) else None
    if headers and "Allow" in headers:
        allowed = ", ".join(sorted(headers["Allow"].split(", ")))
        problem = f"this address takes {allowed} alone"
        return respond_error(HTTPError(405, "method_not_allowed", problem, "see /openapi.json", {"Allow": allowed}))
    fix = "see /openapi.json, or leave out a slash too many"
    return respond_error(HTTPError(404, "not_found", "there is nothing at this address", fix))


async def _unforeseen(_: Request, error: Exception) -> Response:
    return respond_error(unforeseen(error))


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
