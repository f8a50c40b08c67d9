"""The endpoints that write: products, rules, clicks; and what only the team reads."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice, takewhile
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gram.errors import IndexFolderError, ModelError
from gram.records import Product
from gram.rules import without_told
from gram.serve.bodies import (
    RETRY,
    HTTPError,
    parse,
    parse_object,
    product_json,
    read_body,
    respond,
    split_fix,
    tell,
    truth,
    unforeseen,
)
from gram.serve.clicks import read_clicks
from gram.serve.many import AT_ONCE, is_of_codes, put_many, read_sent
from gram.serve.service import Service

MERGE_FROM = 2_000  # changes from which a merge is worth its time
log = logging.getLogger("gram.serve")


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
        self._reloading = anyio.Lock()

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
        product_id = _id_of(request)
        product = self.service.shop.product(product_id)
        if product is None:
            raise _unknown(product_id)
        return respond(product_json(product))

    async def put(self, request: Request) -> Response:
        product_id = _id_of(request)
        data = parse_object(await read_body(request))
        if str(data.setdefault("product_id", product_id)) != product_id:
            raise HTTPError(400, "other_id", "the body names another product_id than the path", "leave it out")
        product = read_sent(data)
        if product.product_id != product_id:
            problem = f"the id {product_id!r:.80} is read as {product.product_id!r:.80}"
            raise HTTPError(400, "bad_id", problem, "write it without white space at its ends, and with single spaces")
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
        product_id = _id_of(request)
        data = parse_object(await read_body(request))
        try:
            product = await self._write(lambda: self.service.shop.patch(product_id, data))
        except KeyError:
            raise _unknown(product_id) from None
        self._merge_if_due()
        return respond(product_json(product))

    async def delete(self, request: Request) -> Response:
        product_id = _id_of(request)
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
        """Takes a code away, or with `neutral` only the edit of it."""
        return await self._edit_code(request, given=None if truth(request.query_params, "neutral") else False)

    async def _edit_code(self, request: Request, given: bool | None) -> Response:
        product_id, slot, value = (request.path_params[name] for name in ("product_id", "slot", "value"))
        shop = self.service.shop
        try:
            code = await self._write(lambda: shop.edit_code(product_id, slot, value, given))
        except KeyError:
            raise _unknown(product_id) from None
        self._merge_if_due()
        return respond({{True: "given", False: "taken", None: "neutral"}[given]: str(code)})

    # --- many products ----------------------------------------------------------------------------------------------

    async def put_many(self, request: Request) -> Response:
        """NDJSON, or a JSON array, of any length."""
        answer = await put_many(request, lambda some: self._write(partial(self.service.shop.update, some)))
        self._merge_if_due()
        return respond(answer)

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
        return respond({"rules": self.service.shop.kept_rules()})

    async def rule(self, request: Request) -> Response:
        rule_id = request.path_params["rule_id"]
        found = self.service.shop.kept_rule(rule_id)
        if found is None:
            raise _no_rule(rule_id)
        return respond(found)

    async def put_rule(self, request: Request) -> Response:
        rule_id = request.path_params["rule_id"]
        data = parse_object(await read_body(request))
        rule = await self._write(lambda: self.service.shop.put_rule(rule_id, data))
        return respond(without_told(data) | {"warnings": tell(self.service.shop.warnings(rule))})

    async def delete_rule(self, request: Request) -> Response:
        rule_id = request.path_params["rule_id"]
        if not await self._write(lambda: self.service.shop.remove_rule(rule_id)):
            raise _no_rule(rule_id)
        return respond({"deleted": rule_id})

    # --- clicks and the log -----------------------------------------------------------------------------------------

    async def clicks(self, request: Request) -> Response:
        clicks = read_clicks(parse(await read_body(request)))

        def keep() -> int:
            there = self.service.shop.live.snapshot.find
            known = [click for click in clicks if there(click.product_id) is not None]  # no training could use others
            self.service.shop.store.append_clicks(known)
            for click in known:
                self.service.statistics.note_click(click.query)
            return len(known)

        accepted = await self._write(keep)
        return respond({"accepted": accepted, "rejected": len(clicks) - accepted}, 201)

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
        try:
            for begin in range(0, len(due), AT_ONCE):
                anew += await self._write(partial(shop.live.code_anew, due[begin : begin + AT_ONCE]))
        except (OSError, sqlite3.Error) as error:
            kept = "the attribute stands, and sending it again codes the rest of its products"
            raise unforeseen(error, kept) from error
        self._merge_if_due()
        return respond({"attribute": str(attribute), "new": new, "coded_anew": anew}, 201 if new else 200)

    async def reload(self, _: Request) -> Response:
        """Takes in a segment that was written anew, once every file is known to be whole. One at a time, in a thread
        that no search waits for."""
        try:
            async with self._reloading:
                fresh = await anyio.to_thread.run_sync(self.service.shop.reload)
        except (IndexFolderError, ModelError) as error:  # what was read before goes on answering
            code = "no_model" if isinstance(error, ModelError) else "no_index"
            raise HTTPError(503, code, *split_fix(str(error)), RETRY) from None
        return respond({"reloaded": bool(fresh), "products": len(self.service.shop)})


def _id_of(request: Request) -> str:
    """The id in a product's path; an HTTPError where the path is one of codes, which takes other methods."""
    product_id = str(request.path_params["product_id"])
    if is_of_codes(product_id):
        allowed = "GET, HEAD" if product_id.endswith("/codes") else "DELETE, PUT"
        problem = f"an address of a product's codes takes {allowed} alone"
        raise HTTPError(405, "method_not_allowed", problem, "see /openapi.json", {"Allow": allowed})
    return product_id


def _unknown(product_id: str) -> HTTPError:
    return HTTPError(404, "unknown_product", f"there is no product {product_id!r:.80}", "PUT it")


def _no_rule(rule_id: str) -> HTTPError:
    return HTTPError(404, "unknown_rule", f"there is no rule {rule_id!r:.80}", "GET /rules lists them")
