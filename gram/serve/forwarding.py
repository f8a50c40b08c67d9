"""What one of several processes does that may not write: it catches up with the one that writes before it answers, and
sends that one the changes that come to it."""

from __future__ import annotations

import anyio
import httpx
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gram.errors import IndexFolderError
from gram.serve.bodies import RETRY, HTTPError, split_fix
from gram.shop import Shop

_OF_ONE_CONNECTION = {b"connection", b"keep-alive", b"transfer-encoding", b"te", b"upgrade", b"expect"}
_ANSWERED = ("content-type", "retry-after", "allow", "www-authenticate")
"""What an answer's headers say beside what every answer's do."""


class Following:
    """Keeps a shop that is open for reading only at what was committed before a request came."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._taken_in = -1  # nothing is known of what was committed since the shop was opened
        self._catching_up = anyio.Lock()

    async def catch_up(self) -> None:
        """Takes in what other processes have committed, off the event loop; where nothing was, a look of some
        microseconds. Raises HTTPError 503 where that cannot be read."""
        if self._shop.store.version() == self._taken_in:
            return
        async with self._catching_up:  # who waits here may find that it was done for them
            version = self._shop.store.version()
            if version == self._taken_in:
                return
            try:
                await anyio.to_thread.run_sync(self._shop.refresh)
            except IndexFolderError as error:
                raise HTTPError(503, "no_index", *split_fix(str(error)), RETRY) from None
            self._taken_in = version


class Forwarding:
    """Sends requests to the process that takes changes, which reads their keys itself."""

    def __init__(self, address: str) -> None:
        # A connection for each: one that was kept could end just as it is used, and a change is not sent twice.
        self._client = httpx.AsyncClient(
            base_url=address, timeout=None, limits=httpx.Limits(max_keepalive_connections=0), trust_env=False
        )

    async def send(self, request: Request) -> Response:
        """Its answer. Raises HTTPError 503 where it died meanwhile."""
        path = request.scope.get("raw_path") or request.url.path.encode()
        url = self._client.base_url.copy_with(raw_path=b"?".join(filter(None, (path, request.scope["query_string"]))))
        body = request.stream() if request.method in ("POST", "PUT", "PATCH") else None
        measured = body is not None and "transfer-encoding" not in request.headers  # else its length says nothing
        left_out = _OF_ONE_CONNECTION if measured else _OF_ONE_CONNECTION | {b"content-length"}
        headers = [(name, value) for name, value in request.headers.raw if name not in left_out]
        try:
            answer = await self._client.request(request.method, url, headers=headers, content=body)
        except ClientDisconnect:
            raise HTTPError(400, "cut_off", "the body was cut off", "send it again") from None
        except httpx.TransportError:
            problem = "the process that takes changes ended; whether this one is written is not known"
            raise HTTPError(503, "writer_away", problem, "send it again", RETRY) from None
        kept = {name: answer.headers[name] for name in _ANSWERED if name in answer.headers}
        return Response(answer.content, answer.status_code, kept)
