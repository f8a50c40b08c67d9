"""The endpoints that write: products, rules, clicks; and what only the team reads."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice, takewhile
from typing import Any

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from gram.data.catalogue import read_product
from gram.data.files import one_line
from gram.errors import BadRow, DataError
from gram.index.store import Click
from gram.records import Product
from gram.serve.bodies import HTTPError, parse, parse_object, product_json, read_body, respond
from gram.serve.service import Service

LINE = 1_000_000  # bytes of one product
AT_ONCE = 200  # products that are coded and committed together
TOLD = 100  # rejected products that are named
MERGE_FROM = 2_000  # changes from which a merge is worth its time
CLICKS = 1_000  # at once
log = logging.getLogger("gram.serve")

CLICKED = ("click", "purchase")


@dataclass(eq=False)
class _Turn:
    """A change that waits for its turn: a product to be written, or None for any other change; and what went wrong
    where another one's turn took it along."""

    product: Product | None = None
    error: Exception | None = None


class Changes:
    """Takes changes for the service's shop, one at a time; single products that wait are coded and committed
    together."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._merging: subprocess.Popen[bytes] | None = None
        self._waiting: deque[_Turn] = deque()  # in the order in which they came, which is that of the turns
        self._lock = threading.Lock()

    async def _write(self, task: Any, turn: _Turn | None = None) -> Any:
        """Runs a task when its turn comes. Products that stand in the queue next to each other go together."""
        if self.service.shop.live.read_only:
            raise HTTPError(
                403,
                "read_only",
                "this service is for reading only",
                "write to the one that was started without --read-only",
            )
        turn = turn or _Turn()
        with self._lock:
            self._waiting.append(turn)

        def take_turn() -> Any:
            try:
                return task()
            finally:
                self._leave(turn)  # before the next turn begins

        try:
            return await self.service.work(take_turn, writes=True)
        finally:
            self._leave(turn)  # too many wait, or nobody waits for the answer any more

    def _leave(self, turn: _Turn) -> None:
        with self._lock, contextlib.suppress(ValueError):
            self._waiting.remove(turn)

    # --- products ---------------------------------------------------------------------------------------------------

    async def get(self, request: Request) -> Response:
        product = self.service.shop.product(request.path_params["product_id"])
        if product is None:
            raise _unknown(request.path_params["product_id"])
        return respond(product_json(product))

    async def put(self, request: Request) -> Response:
        product_id = request.path_params["product_id"]
        data = parse_object(await read_body(request))
        if str(data.setdefault("product_id", product_id)) != product_id:
            raise HTTPError(400, "other_id", "the body names another product_id than the path", "leave it out")
        product = _read(data)
        new = self.service.shop.product(product_id) is None
        mine = _Turn(product)
        await self._write(lambda: self._put_waiting(mine), mine)  # an earlier turn may have taken it along
        if mine.error is not None:
            raise mine.error
        self._merge_if_due()
        return respond(product_json(product), 201 if new else 200)

    def _put_waiting(self, mine: _Turn) -> None:
        """Writes the products at the queue's head, the later of one id; where that fails, each alone."""
        with self._lock:
            if mine not in self._waiting:
                return
            head = list(takewhile(lambda turn: turn.product is not None, islice(self._waiting, AT_ONCE)))
            turns = head if mine in head else [mine]
            for turn in turns:
                self._waiting.remove(turn)
        puts = [turn.product for turn in turns if turn.product is not None]
        try:
            self.service.shop.update({product.product_id: product for product in puts}.values())
        except Exception:  # each is told what is wrong with its own
            for turn, product in zip(turns, puts, strict=True):
                try:
                    self.service.shop.update([product])
                except Exception as error:
                    turn.error = error

    async def patch(self, request: Request) -> Response:
        product_id = request.path_params["product_id"]
        data = parse_object(await read_body(request))
        if not data or "product_id" in data:
            raise HTTPError(400, "bad_patch", "a patch names fields, and not product_id", 'send {"price": 9.5}')
        shop = self.service.shop

        def change() -> Product:
            old = shop.product(product_id)
            if old is None:
                raise _unknown(product_id)
            cleared = [name for name, value in data.items() if value is None]
            merged = product_json(old) | {name: value for name, value in data.items() if value is not None}
            product = _read({name: value for name, value in merged.items() if name not in cleared})
            fields = {name: getattr(product, name, None) for name in data if name in Product._fields}
            fields |= {name: product.attributes.get(name) for name in data if name not in Product._fields}
            fields |= {name: Product("", "")._asdict()[name] for name in cleared if name in Product._fields}
            return shop.patch(product_id, fields)

        product = await self._write(change)
        self._merge_if_due()
        return respond(product_json(product))

    async def delete(self, request: Request) -> Response:
        product_id = request.path_params["product_id"]
        if not await self._write(lambda: self.service.shop.delete([product_id])):
            raise _unknown(product_id)
        self._merge_if_due()
        return respond({"deleted": product_id})

    # --- codes of a product -----------------------------------------------------------------------------------------

    async def codes(self, request: Request) -> Response:
        product_id = request.path_params["product_id"]
        found = await self.service.work(lambda: self.service.shop.codes(product_id))
        if found is None:
            raise _unknown(product_id)
        codes = [{"code": str(one.code), "source": one.source, "weight": one.weight} for one in found.codes]
        return respond({"codes": codes, "taken": list(map(str, found.taken))})

    async def give_code(self, request: Request) -> Response:
        return await self._edit_code(request, given=True)

    async def take_code(self, request: Request) -> Response:
        return await self._edit_code(request, given=False)

    async def _edit_code(self, request: Request, given: bool) -> Response:
        product_id, slot, value = (request.path_params[name] for name in ("product_id", "slot", "value"))
        shop = self.service.shop
        try:
            code = await self._write(lambda: shop.edit_code(product_id, slot, value, given))
        except KeyError:
            raise _unknown(product_id) from None
        self._merge_if_due()
        return respond({"given" if given else "taken": str(code)})

    # --- many products ----------------------------------------------------------------------------------------------

    async def put_many(self, request: Request) -> Response:
        """NDJSON, or a JSON array, of any length: read, coded and committed part by part; what is wrong is named by its
        line and left out."""
        accepted, rejected = 0, 0
        told: list[dict[str, object]] = []
        batch: dict[str, Product] = {}
        async for line, data in _records(request):
            if isinstance(data, HTTPError):
                rejected += 1
                told = [*told, {"line": line, "error": data.message}][:TOLD]
                continue
            try:
                product = _read(data, line)
            except DataError as error:
                rejected += 1
                told = [*told, {"line": line, "error": f"{error.problem} Fix: {error.fix}"}][:TOLD]
                continue
            batch[product.product_id] = product
            accepted += 1
            if len(batch) >= AT_ONCE:
                some, batch = list(batch.values()), {}
                await self._write(partial(self.service.shop.update, some))
        if batch:
            await self._write(lambda: self.service.shop.update(batch.values()))
        self._merge_if_due()
        return respond({"accepted": accepted, "rejected": told, "rejected_count": rejected})

    def _merge_if_due(self) -> None:
        """Merges in a process of its own, behind the searches, once enough has changed; the next change takes it in."""
        live = self.service.shop.live
        if self._merging is not None and self._merging.poll() is None:
            return
        if self._merging is not None and self._merging.returncode:
            log.error("a merge failed (%d): gram merge %s tells why", self._merging.returncode, live.folder)
        self._merging = None
        if sum(len(segment.alive) for segment in live.snapshot.segments[1:]) >= MERGE_FROM:
            command = [sys.executable, "-m", "gram.cli", "merge", str(live.folder)]
            command += [] if live.model is None else ["--model", str(live.model)]
            self._merging = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    # --- rules ------------------------------------------------------------------------------------------------------

    async def rules(self, _: Request) -> Response:
        return respond({"rules": self.service.shop.store.all("rule")})

    async def rule(self, request: Request) -> Response:
        found = self.service.shop.store.all("rule").get(request.path_params["rule_id"])
        if found is None:
            raise _no_rule(request.path_params["rule_id"])
        return respond(found)

    async def put_rule(self, request: Request) -> Response:
        rule_id = request.path_params["rule_id"]
        data = parse_object(await read_body(request))
        await self._write(lambda: self.service.shop.put_rule(rule_id, data))
        return respond(data)

    async def delete_rule(self, request: Request) -> Response:
        rule_id = request.path_params["rule_id"]
        if not await self._write(lambda: self.service.shop.remove_rule(rule_id)):
            raise _no_rule(rule_id)
        return respond({"deleted": rule_id})

    # --- clicks and the log -----------------------------------------------------------------------------------------

    async def clicks(self, request: Request) -> Response:
        given = parse(await read_body(request))
        rows = given if isinstance(given, list) else [given]
        if len(rows) > CLICKS:
            raise HTTPError(413, "too_many", f"{len(rows)} clicks at once", f"send {CLICKS} at most")
        clicks = [_click(row) for row in rows]

        def keep() -> None:
            self.service.shop.store.append_clicks(clicks)
            for click in clicks:
                self.service.statistics.note_click(click.query)

        await self._write(keep)
        return respond({"kept": len(clicks)}, 201)

    async def log(self, _: Request) -> Response:
        """The clicks as the log that `gram train` reads."""

        def lines() -> Iterator[str]:
            yield "query\tproduct_id\tweight\tuser_id\ttimestamp\n"
            for click in self.service.shop.store.clicks():
                yield f"{click.query}\t{click.product_id}\t{click.weight:g}\t{click.user_id}\t{click.timestamp}\n"

        return StreamingResponse(lines(), media_type="text/tab-separated-values")

    async def put_attribute(self, request: Request) -> Response:
        """An attribute without training: the model writes it from then on, and products that may have it are coded
        anew, part by part."""
        shop, slot, value = self.service.shop, request.path_params["slot"], request.path_params["value"]
        attribute, new = await self._write(lambda: shop.add_attribute(slot, value))
        due, anew = await self.service.work(lambda: shop.live.snapshot.like(attribute)), 0
        for begin in range(0, len(due), AT_ONCE):
            anew += await self._write(partial(shop.live.code_anew, due[begin : begin + AT_ONCE]))
        self._merge_if_due()
        return respond({"attribute": str(attribute), "new": new, "coded_anew": anew}, 201 if new else 200)

    async def reload(self, _: Request) -> Response:
        """Takes in a segment that was written anew."""
        fresh = await self.service.work(self.service.shop.refresh)
        return respond({"reloaded": bool(fresh), "products": len(self.service.shop)})


def _read(data: Any, line: int = 1) -> Product:
    if not isinstance(data, dict):
        raise BadRow(
            "request", line, f"a {type(data).__name__}, not an object", "send an object with product_id and title"
        )
    return read_product(data, line=line)


def _unknown(product_id: str) -> HTTPError:
    return HTTPError(404, "unknown_product", f"there is no product {product_id!r:.80}", "PUT it")


def _no_rule(rule_id: str) -> HTTPError:
    return HTTPError(404, "unknown_rule", f"there is no rule {rule_id!r:.80}", "GET /rules lists them")


def _click(row: Any) -> Click:
    fix = 'send {"query": "sofa", "product_id": "a1"}'
    if not isinstance(row, dict):
        raise HTTPError(400, "bad_click", f"a click is a {type(row).__name__}, not an object", fix)
    texts = {name: row.get(name, "") for name in ("query", "product_id", "user_id", "timestamp")}
    kind, weight = row.get("kind", "click"), row.get("weight", 1.0)
    if not all(isinstance(text, str) and len(text) <= 2000 for text in texts.values()) or kind not in CLICKED:
        raise HTTPError(400, "bad_click", "a click has texts, and is of the kind click or purchase", fix)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < 1e6:
        raise HTTPError(400, "bad_click", "a click's weight is a number above 0", fix)
    texts = {name: one_line(text) for name, text in texts.items()}
    if not texts["query"] or not texts["product_id"]:
        raise HTTPError(400, "bad_click", "a click needs a query and a product_id", fix)
    return Click(texts["query"], texts["product_id"], kind, float(weight), texts["user_id"], texts["timestamp"])


async def _records(request: Request) -> AsyncIterator[tuple[int, Any]]:
    """(line, what stands there) of a body in NDJSON, line by line, or of a JSON array, item by item.

    What is no JSON comes as an HTTPError.
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
            if len(rest) > LINE:
                raise HTTPError(
                    413, "too_large", f"line {line + 1} is longer than {LINE:,} bytes", "shorten the product"
                )
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
    try:
        return parse(text)
    except HTTPError as error:
        return error
