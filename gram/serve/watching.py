"""The endpoints for whoever watches the service, and its page."""

from __future__ import annotations

import mimetypes
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from gram.serve.bodies import HTTPError, respond
from gram.serve.documents import openapi
from gram.serve.service import Service

PAGE = Path(__file__).with_name("page")


class Watching:
    """Tells of the service."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def health(self, _: Request) -> Response:
        return respond({"status": "ok"})

    async def ready(self, _: Request) -> Response:
        status, live = "ready" if self.service.ready else "stopping", self.service.shop.live
        if status == "ready" and not live.read_only and not live.store.stands():
            status = "store away"  # it refuses every change
        return respond({"status": status, "products": len(self.service.shop)}, 200 if status == "ready" else 503)

    async def metrics(self, _: Request) -> Response:
        return Response(self.service.metrics(), media_type="text/plain; version=0.0.4")

    async def document(self, _: Request) -> Response:
        return respond(openapi())

    async def stats(self, _: Request) -> Response:
        return respond(self.service.statistics.report())

    async def page(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        suffixes = (".js", ".css") if request.path_params else (".html",)  # the page's links are right at / alone
        if name not in {path.name for path in PAGE.iterdir()} or not name.endswith(suffixes):
            raise HTTPError(404, "not_found", "there is no such page", "begin at /")
        content = (PAGE / name).read_bytes()  # whole: a FileResponse answers a Range, and a wrong one in plain text
        return Response(content, headers={"Cache-Control": "no-cache"}, media_type=mimetypes.guess_type(name)[0])
