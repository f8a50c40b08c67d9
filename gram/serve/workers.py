"""Several processes behind one address: one takes changes and searches, the others search and send it the changes that
come to them. Each takes in what was committed before a request came, so that what is answered is visible to all."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from tempfile import TemporaryDirectory
from types import FrameType

from gram.errors import GramError, SettingError
from gram.serve.run import Serving, listen, serve
from gram.serve.service import METRICS_FOLDER

log = logging.getLogger("gram.serve")

PAUSE = 1.0
"""Seconds between looks at whether it was told to stop, and before another process takes an ended one's place."""
CANNOT_START = 2


def serve_by_many(serving: Serving, workers: int) -> None:
    """Runs that many processes until it is told to stop, and starts another one for each that ends by itself. SIGTERM,
    SIGINT and SIGHUP are passed on to all.

    Raises SettingError where the system or the address does not allow it, or where a process cannot begin.
    """
    if serving.read_only:
        raise SettingError("one of --workers takes changes, which --read-only forbids. Fix: leave one of the two out")
    if sys.platform == "win32":
        raise SettingError("--workers needs Linux or macOS. Fix: leave it out")
    with ExitStack() as stack:
        public = stack.enter_context(listen(serving.host, serving.port))
        private = stack.enter_context(listen("127.0.0.1", 0))
        writer = f"http://127.0.0.1:{private.getsockname()[1]}"
        others = replace(serving, read_only=True, writer=writer), [public]
        stack.enter_context(_counting_together())
        _Workers([(serving, [public, private]), *[others] * (workers - 1)]).run()


@contextmanager
def _counting_together() -> Iterator[None]:
    """Processes that start in the body keep their metrics in one folder, so that each of them can tell of all."""
    with TemporaryDirectory(prefix="gram-metrics-") as folder:
        before = os.environ.get(METRICS_FOLDER)
        os.environ[METRICS_FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[METRICS_FOLDER]
            if before is not None:
                os.environ[METRICS_FOLDER] = before


class _Workers:
    """The processes, each of which is told what it serves and on which sockets; the one that writes comes first."""

    def __init__(self, tasks: list[tuple[Serving, list[socket.socket]]]) -> None:
        self._tasks = tasks
        self._processes: list[SpawnProcess] = []
        self._stopping = False

    def run(self) -> None:
        for told in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(told, self._pass_on)
        for number in range(len(self._tasks)):
            self._start(number)  # each is known, and told what comes, before the next begins
        begun, failed = self._processes[:], False
        while not self._stopping:
            wait([process.sentinel for process in self._processes], timeout=PAUSE)
            for number, process in enumerate(self._processes):
                if process.is_alive() or self._stopping:
                    continue
                if failed := process in begun and process.exitcode == CANNOT_START:
                    self._pass_on(signal.SIGTERM)
                    break
                log.error("process %d ended (%s); another takes its place", process.pid, process.exitcode)
                time.sleep(PAUSE)  # one that cannot begin does not take the machine
                if not self._stopping:
                    self._start(number)
        for process in self._processes:
            process.join()
        if failed:
            raise SettingError("the service cannot begin. Fix: mend what is told above")

    def _start(self, number: int) -> None:
        process = multiprocessing.get_context("spawn").Process(
            target=_work, args=(*self._tasks[number], logging.getLogger("gram").level)
        )
        told = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as it begins: until it heeds it, it is not to die of it
        process.start()
        signal.signal(signal.SIGHUP, told)
        self._processes[number : number + 1] = [process]
        if self._stopping:  # it was told while this one began
            process.terminate()

    def _pass_on(self, number: int, _: FrameType | None = None) -> None:
        self._stopping |= number != signal.SIGHUP
        for process in self._processes:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, number)


def _work(serving: Serving, sockets: list[socket.socket], level: int) -> None:
    """One process, which logs from `level` on. It has a group of its own, so that Ctrl-C comes to it once, and ends
    with its parent."""
    os.setpgrp()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("gram").setLevel(level)
    try:
        serve(serving, sockets)
    except GramError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(CANNOT_START)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
