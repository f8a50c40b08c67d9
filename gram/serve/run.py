"""Starting and stopping the service."""

from __future__ import annotations

import contextlib
import errno
import gc
import ipaddress
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from threadpoolctl import threadpool_limits

from gram.coder.memory import give_memory_back, share_arenas
from gram.errors import GramError, SettingError
from gram.serve.app import make_app
from gram.serve.origins import check_origins
from gram.serve.service import METRICS_FOLDER, ServeSettings, Service
from gram.serve.statistics import hear, tell
from gram.shop import Shop

log = logging.getLogger("gram.serve")

GRACE = 10
"""Seconds that requests have to end once the service stops."""
EVERY = 1.0
"""Seconds between looks for what other processes wrote."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Server(uvicorn.Server):
    """Told to stop by SIGTERM it goes on answering for `drain` seconds, while /ready says that it is stopping, so that
    whoever sends it requests can turn elsewhere. Ctrl-C does without that; either leaves requests that run `GRACE`
    seconds to end. A second signal stops it at once."""

    def __init__(self, config: uvicorn.Config, service: Service, drain: float) -> None:
        super().__init__(config)
        self._service, self._drain = service, drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        was_ready, self._service.ready = self._service.ready, False
        self.force_exit = not was_ready
        if sig != signal.SIGTERM or not was_ready:
            super().handle_exit(sig, frame)
            return
        timer = threading.Timer(self._drain, self._stop)
        timer.daemon = True
        timer.start()

    def _stop(self) -> None:
        self.should_exit = True


@dataclass(frozen=True)
class Serving:
    """What is served, and where. `model` is where the model is, if not where the index says; for `drain` seconds it
    goes on after SIGTERM; `writer` is the address of the process that takes changes, where this is another one; `only`
    names the groups of features that it searches by, where not all are; pages of `origins` may ask from a browser.

    Raises SettingError for an origin that is none."""

    index: Path
    model: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    read_only: bool = False
    drain: float = 0.0
    writer: str = ""
    only: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_origins(self.origins)

    @property
    def address(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def serve(serving: Serving, sockets: list[socket.socket] | None = None) -> None:
    """Serves an index folder until it is told to stop (see `Server`), and takes in a new segment at SIGHUP; where it is
    told to, on sockets that listen already.

    Raises SettingError for an address that other machines can reach while there is no key, and as of `listen`.
    """
    share_arenas()
    if sockets is None:
        listen(serving.host, serving.port).close()  # uvicorn asks for it later, and says less where it is taken
    with _nothing_collected():
        shop = Shop.open(serving.index, serving.model, read_only=serving.read_only, only=serving.only)
    with shop:
        public = not is_loopback(serving.host)
        if public and not shop.store.all("key"):
            fix = f"gram keys {serving.index} add NAME --role admin"
            raise SettingError(f"{serving.host} can be reached from other machines, and there is no key. Fix: {fix}")
        at_once = max(2, os.cpu_count() or 1)
        app = make_app(shop, ServeSettings(at_once, public=public, writer=serving.writer, origins=serving.origins))
        config = uvicorn.Config(
            app, host=serving.host, port=serving.port, log_level="warning", access_log=False,
            timeout_graceful_shutdown=GRACE, limit_concurrency=1000, h11_max_incomplete_event_size=64_000,
            server_header=False,
        )  # fmt: skip
        server = Server(config, app.state.service, serving.drain)
        if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=_take_in, args=(shop.reload,)).start())
        stopping = threading.Event()
        threading.Thread(target=_watch, args=(shop, stopping), daemon=True).start()
        if METRICS_FOLDER in os.environ:  # one of several processes
            share, counted = tell if serving.writer else hear, Path(os.environ[METRICS_FOLDER], "searches")
            args = app.state.service.statistics, counted, stopping
            threading.Thread(target=share, args=args, daemon=True).start()
        log.info("%d products at %s", len(shop), serving.address)
        with threadpool_limits(1):  # threads of one small product spin for each other: half of a busy service's time
            server.run(sockets)
        stopping.set()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises SettingError for an address that is taken or not this machine's."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        problem, fix = (error.strerror or str(error)).partition(" (while")[0], "choose another --host or --port"
        if error.errno == errno.EADDRINUSE:
            with socket.create_server((host, 0), family=family) as free:
                fix = f"end what listens there, or choose another port: --port {free.getsockname()[1]} is free"
        raise SettingError(f"port {port} of {host}: {problem}. Fix: {fix}") from None


@contextlib.contextmanager
def _nothing_collected() -> Iterator[None]:
    """Runs the body without the garbage collector. What a start makes, modules and tables, stays: going through it
    again and again for what could go takes an eighth of the start."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _watch(shop: Shop, stopping: threading.Event) -> None:
    """Takes in what a merge, `gram index` or, where this process only reads, another one wrote; gives memory back once
    something changed."""
    problem, version = "", -1
    while not stopping.wait(EVERY):
        problem = _take_in(shop.refresh, problem)
        if shop.live.snapshot.version != version:
            version = shop.live.snapshot.version
            give_memory_back()


def _take_in(take: Callable[[], bool], told: str = "") -> str:
    """What was wrong, which is logged unless it was `told` before."""
    try:
        if take():
            log.info("what was written anew is taken in")
    except Exception as error:  # the old segment goes on answering
        if repr(error) != told:  # an error of our own says what to do; of another one it is told where it came from
            log.error("what was written anew cannot be taken in: %s", error, exc_info=not isinstance(error, GramError))
        return repr(error)
    return ""


def answer_once(index: Path, model: Path | None, path: str, only: Sequence[str] = ()) -> tuple[int, str]:
    """Runs one GET request in this process, without a key: status and body. For scripts, and to try things."""
    from starlette.testclient import TestClient

    with Shop.open(index, model, read_only=True, only=only) as shop:
        app = make_app(shop, ServeSettings(keyless=True))
        client: Any = TestClient(app, "http://127.0.0.1", raise_server_exceptions=False)
        response = client.get(path)
        return response.status_code, response.text
