"""What every endpoint leans on: the shop, who may do what, how many at once, errors in our form."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from gram.errors import DataError, GramError, IndexFolderError, MissingExtra
from gram.serve.bodies import RETRY, HTTPError, respond_error, split_fix, unforeseen
from gram.serve.forwarding import Following, Forwarding
from gram.serve.keys import Keyring, may, role_of
from gram.serve.origins import is_allowed
from gram.serve.statistics import Statistics
from gram.shop import Shop

log = logging.getLogger("gram.serve")

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus_client is told, before it is imported, where processes keep what they count."""
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HOST = re.compile(r"(\[[^\[\]]*\]|[^:]*)(?::[0-9]*)?")

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class ServeSettings:
    """`at_once` searches run at a time, one change does, and of each kind `waiting` wait; more are told to come again.
    `public`: other machines can reach the service, so that a key is always needed. `writer`: the address of the process
    that takes changes, where this one sends them there. `keyless`: whoever asks has the files, so that none is needed.
    `origins`: whose pages may ask from a browser, as `gram.serve.origins` has them.
    """

    at_once: int = 2
    waiting: int = 64
    public: bool = False
    writer: str = ""
    keyless: bool = False
    origins: tuple[str, ...] = ()


class Service:
    """Holds the shop, lets requests in by their keys and at most so many at once."""

    def __init__(self, shop: Shop, settings: ServeSettings | None = None) -> None:
        self.shop, self.settings = shop, settings or ServeSettings()
        self.keyring = Keyring(shop.store)
        self.statistics = Statistics()
        self.reading = anyio.CapacityLimiter(self.settings.at_once)
        self.writing = anyio.CapacityLimiter(1)  # changes do not stand behind searches, nor are they counted with them
        self.there = {"reads": 0, "writes": 0}  # that run or wait
        self.ready = True
        self.following = Following(shop) if shop.live.read_only else None
        self.forwarding = Forwarding(self.settings.writer) if self.settings.writer else None
        registry = self.registry = CollectorRegistry()
        self.requests = Counter("gram_requests", "Requests answered", ["route", "status"], registry=registry)
        self.seconds = Histogram("gram_seconds", "Seconds a request took", ["route"], registry=registry)
        registry.register(_LookedUp(shop))

    def metrics(self) -> bytes:
        """What is counted, in Prometheus's form; of all processes where several serve one address."""
        if METRICS_FOLDER not in os.environ:
            return generate_latest(self.registry)
        every, now = CollectorRegistry(), CollectorRegistry()
        MultiProcessCollector(every)
        now.register(_LookedUp(self.shop))
        return generate_latest(every) + generate_latest(now)

    async def work(self, task: Callable[[], Any], writes: bool = False) -> Any:
        """Runs a task in a thread when it is its turn; 503 where too many wait already."""
        kind, limiter = ("writes", self.writing) if writes else ("reads", self.reading)
        if self.there[kind] >= self.settings.waiting + limiter.total_tokens:
            raise HTTPError(503, "busy", f"too many {kind} at once", "come again in a second", RETRY)
        self.there[kind] += 1
        try:
            return await anyio.to_thread.run_sync(task, limiter=limiter)
        finally:
            self.there[kind] -= 1

    def by_writer(self, handler: Handler) -> Handler:
        """The same, or what sends the request to the process that takes changes."""
        return handler if self.forwarding is None else self.forwarding.send

    async def check_key(self, request: Request, needed: str) -> None:
        """Raises HTTPError 401 or 403 unless the request's key may do what is needed.

        Where no key exists and only this machine can reach the service none is needed, but a page of another site must
        not write: it can make a browser send requests here. One of an allowed origin, which can read the answers too,
        may do there what a key for search may.
        """
        keys = await self.keyring.keys()
        if self.settings.keyless or (not keys and not self.settings.public):
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

    def _check_origin(self, request: Request, needed: str) -> None:
        named, origin = request.headers.get("host", ""), request.headers.get("origin")
        host = _HOST.fullmatch(named)
        if host is None or host[1] not in LOOPBACK:
            problem = f"this service does not answer to the name {named!r:.60}"
            raise HTTPError(403, "bad_host", problem, "call it 127.0.0.1, or make a key: gram keys INDEX add NAME")
        if origin is None or origin.split("://")[-1] == named:
            return
        if is_allowed(origin, self.settings.origins):
            refused, problem = not may("search", needed), "without a key pages of other sites may only search and click"
        else:
            refused = request.method not in ("GET", "HEAD") and request.url.path != "/search"
            problem = "pages of other sites may not write here"
        if refused:
            raise HTTPError(403, "bad_origin", problem, "make a key: gram keys INDEX add NAME")

    def endpoint(self, route: str, needed: str, handler: Handler) -> Handler:
        """A handler with its key checked, its errors in our form, and its time measured."""

        async def run(request: Request) -> Response:
            begin = time.perf_counter()
            try:
                if _CONTROL.search(request.scope["path"]):  # routes would read "a\n" as "a"
                    raise HTTPError(400, "bad_path", "a control character in the address", "take it out")
                if needed:
                    await self.check_key(request, needed)
                    if self.following is not None:
                        await self.following.catch_up()
                response = await handler(request)
            except HTTPError as error:
                if error.__cause__ is not None:  # by `unforeseen`, where it is known what is kept
                    log.exception("%s %s", request.method, route)
                response = respond_error(error)
            except MissingExtra as error:
                response = respond_error(HTTPError(501, "missing_extra", *split_fix(str(error))))
            except IndexFolderError as error:  # no fault of the request's
                log.error("%s %s: %s", request.method, route, error)
                response = respond_error(HTTPError(503, "index_unusable", *split_fix(str(error)), RETRY))
            except DataError as error:
                response = respond_error(HTTPError(400, "bad_product", error.problem, error.fix))
            except GramError as error:
                response = respond_error(HTTPError(400, _code_of(error), *split_fix(str(error))))
            except asyncio.CancelledError:  # the service stops, and waits for nothing more
                response = respond_error(HTTPError(503, "stopping", "the service stops", "send it again", RETRY))
            except Exception as error:  # answered in our form, counted, and told in full where the service is run
                log.exception("%s %s", request.method, route)
                response = respond_error(unforeseen(error))
            self.requests.labels(route, response.status_code).inc()
            self.seconds.labels(route).observe(time.perf_counter() - begin)
            return response

        return run


def _code_of(error: GramError) -> str:
    """Such as bad_filter of a FilterError."""
    return f"bad_{type(error).__name__.removesuffix('Error').lower()}"


class _LookedUp(Collector):
    """What is not counted but looked up: how many products there are, and what the processes that answer take of
    memory, where the system tells (Linux)."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("gram_products", "Products", len(self._shop))
        counted = Path(os.environ[METRICS_FOLDER]).glob("counter_*.db") if METRICS_FOLDER in os.environ else ()
        pids = {os.getpid(), *(int(path.stem.rpartition("_")[2]) for path in counted)}
        if memory := sum(map(_resident, pids)):
            yield GaugeMetricFamily("process_resident_memory_bytes", "Resident memory of all processes", memory)


def _resident(pid: int) -> int:
    """Bytes of memory that a process has resident; 0 for one that ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _unauthorised(code: str, problem: str) -> HTTPError:
    fix = "send the header Authorization: Bearer KEY; gram keys INDEX add NAME makes one"
    return HTTPError(401, code, problem, fix, {"WWW-Authenticate": "Bearer"})
