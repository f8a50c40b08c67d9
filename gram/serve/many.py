"""Many products in one request: read, coded and committed part by part."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import anyio
from starlette.requests import ClientDisconnect, Request

from gram.data.catalogue import read_product
from gram.errors import BadRow, DataError
from gram.records import Product
from gram.serve.bodies import RETRY, HTTPError, parse, shorten, unforeseen

LINE = 1_000_000  # bytes of one product
AT_ONCE = 200  # products that are coded and committed together
TOLD = 100  # rejected products that are named
_OF_CODES = re.compile(r".*/codes(/[^/]+/.*)?", re.DOTALL)


def is_of_codes(product_id: str) -> bool:
    """Whether an id ends as the routes of a product's codes do, so that none of a product's own leads to it.

    >>> is_of_codes("a/codes"), is_of_codes("a/codes/type/sofa"), is_of_codes("a/codes/b"), is_of_codes("codes")
    (True, True, False, False)
    """
    return _OF_CODES.fullmatch(product_id) is not None


def read_sent(data: Any, line: int = 1) -> Product:
    """A product as a body holds it. Raises DataError for what is none."""
    if not isinstance(data, dict):
        problem = f"a {type(data).__name__}, not an object"
        raise BadRow("request", line, problem, "send an object with product_id and title")
    product = read_product(data, line=line)
    if is_of_codes(product.product_id):
        problem = f"the id {product.product_id!r:.80} ends as the address of a product's codes"
        raise BadRow("request", line, problem, "choose one without /codes at its end, or /codes/…/… in it")
    return product


@dataclass
class _Tally:
    kept: int = 0
    rejected: int = 0
    told: list[dict[str, object]] = field(default_factory=list)

    def reject(self, line: int, why: str) -> None:
        self.rejected += 1
        if len(self.told) < TOLD:
            self.told.append({"line": line, "error": shorten(why)})


async def put_many(request: Request, write: Callable[[Iterable[Product]], Awaitable[Any]]) -> dict[str, Any]:
    """Writes the products of a body in NDJSON, or of a JSON array; what is wrong is named by its line and left out.

    An HTTPError for what ends it early, a service that stops or a full disk say, tells how many are written.
    """
    tally = _Tally()
    try:
        await _put_all(request, write, tally)
    except HTTPError as error:
        error.message += f"; {tally.kept:,} products are written"
        raise
    except (OSError, sqlite3.Error) as error:
        raise unforeseen(error, f"{tally.kept:,} products are written") from error
    except asyncio.CancelledError:
        problem = f"the service stops; {tally.kept:,} products are written, of others some may be"
        raise HTTPError(503, "stopping", problem, "send the others again", RETRY) from None
    return {"accepted": tally.kept, "rejected": tally.told, "rejected_count": tally.rejected}


async def _put_all(request: Request, write: Callable[[Iterable[Product]], Awaitable[Any]], tally: _Tally) -> None:
    batch: dict[str, Product] = {}
    waiting = 0  # lines of the batch: an id may stand on several

    async def write_batch() -> None:
        nonlocal batch, waiting
        if batch:
            await write(list(batch.values()))
        tally.kept += waiting
        batch, waiting = {}, 0

    async for line, data in _records(request):
        try:
            if isinstance(data, HTTPError):
                raise data
            product = read_sent(data, line)
        except HTTPError as error:
            tally.reject(line, f"{error.message}. Fix: {error.fix}")
            continue
        except DataError as error:
            tally.reject(line, f"{error.problem} Fix: {error.fix}")
            continue
        batch[product.product_id] = product
        waiting += 1
        if len(batch) >= AT_ONCE:
            await write_batch()
    await write_batch()


async def _records(request: Request) -> AsyncIterator[tuple[int, Any]]:
    """(line, what stands there) of a body in NDJSON, line by line, or of a JSON array, item by item.

    What is no JSON, or too long, comes as an HTTPError.
    """
    begun, rest, line = False, b"", 0
    stream = request.stream()
    try:
        async for part in stream:
            rest += part
            if not begun and rest.lstrip()[:1]:
                begun = True
                if rest.lstrip()[:1] == b"[":
                    async for item in _array(stream, rest):
                        yield item
                    return
            *lines, rest = rest.split(b"\n")
            for text in lines:
                line += 1
                if text.strip():
                    yield line, _parsed(text)
            rest = rest[: LINE + 1]  # enough to see that it is too long
    except ClientDisconnect:
        raise HTTPError(400, "cut_off", "the body was cut off", "send the rest again") from None
    if rest.strip():
        yield line + 1, _parsed(rest)


async def _array(stream: AsyncIterator[bytes], begun: bytes) -> AsyncIterator[tuple[int, Any]]:
    parts, size = [begun], len(begun)
    async for part in stream:
        size += len(part)
        if size > 50 * LINE:
            raise HTTPError(413, "too_large", "an array of more than 50 MB", "send NDJSON, a product a line")
        parts.append(part)
    for number, item in enumerate(await anyio.to_thread.run_sync(parse, b"".join(parts)), start=1):
        yield number, item


def _parsed(text: bytes) -> Any:
    if len(text) > LINE:
        return HTTPError(413, "too_large", f"a line of more than {LINE:,} bytes", "shorten the product")
    try:
        return parse(text)
    except HTTPError as error:
        return error
