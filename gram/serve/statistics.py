"""What is asked and how long it takes, for the team's page: counts of bounded size, forgotten at a restart."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections import Counter, deque
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

log = logging.getLogger("gram.serve")

MOST = 5_000
"""Different queries that are counted; the rarest half is forgotten when there are more."""
TIMED = 10_000
"""The last searches, whose time is told."""
UNTOLD = 1_000
"""The last searches that another process is yet to be told of."""
EVERY = 1.0
"""Seconds between one process's telling another, and for which either waits for the other."""


class Statistics:
    """Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.queries: Counter[str] = Counter()
        self.without_hits: Counter[str] = Counter()
        self.clicked: Counter[str] = Counter()
        self.searches = 0
        self.took_ms: deque[float] = deque(maxlen=TIMED)
        self.untold: deque[tuple[str, int, float]] = deque(maxlen=UNTOLD)

    def note_search(self, query: str, found: int, took_ms: float) -> None:
        """`found` of its products fit."""
        with self._lock:
            self.searches += 1
            self.took_ms.append(took_ms)
            self.untold.append((query[:200], found, took_ms))
            if query:
                self._count(self.queries, query)
                if not found:
                    self._count(self.without_hits, query)

    def note_click(self, query: str) -> None:
        with self._lock:
            self._count(self.clicked, query)

    def _count(self, counter: Counter[str], query: str) -> None:
        counter[query[:200]] += 1
        if len(counter) > MOST:
            for rare, _ in counter.most_common()[MOST // 2 :]:
                del counter[rare]

    def report(self, most: int = 50) -> dict[str, Any]:
        """The top queries, those without hits and without clicks, and percentiles of the time that the last searches
        took, `timed` of them."""
        with self._lock:
            unclicked = Counter({q: n for q, n in self.queries.items() if not self.clicked[q]})
            took = np.array(self.took_ms) if self.took_ms else np.zeros(1)
            p50, p95, p99 = np.percentile(took, [50, 95, 99]).tolist()
            return {
                "searches": self.searches,
                "timed": len(self.took_ms),
                "took_ms": {"p50": round(p50, 2), "p95": round(p95, 2), "p99": round(p99, 2)},
                "top": self.queries.most_common(most),
                "without_hits": self.without_hits.most_common(most),
                "without_clicks": unclicked.most_common(most),
            }


def tell(statistics: Statistics, address: Path, stopping: threading.Event) -> None:
    """Tells the process that hears at a socket's path of this one's searches, until `stopping`. While that one is away
    they wait."""
    while not stopping.wait(EVERY):
        searches = [statistics.untold.popleft() for _ in range(len(statistics.untold))]
        with suppress(OSError), socket.socket(socket.AF_UNIX) as speaking:
            speaking.settimeout(EVERY)
            if searches:
                speaking.connect(str(address))
                speaking.sendall(json.dumps(searches).encode())
                continue
        statistics.untold.extendleft(reversed(searches))


def hear(statistics: Statistics, address: Path, stopping: threading.Event) -> None:
    """Counts what other processes tell at a socket's path, until `stopping`."""
    address.unlink(missing_ok=True)  # of one that died
    with socket.socket(socket.AF_UNIX) as hearing:
        try:
            hearing.bind(str(address))
        except OSError as error:  # a long TMPDIR, say
            log.warning("/stats are of one process: %s: %s. Fix: name a shorter TMPDIR", address, error)
            return
        hearing.listen()
        hearing.settimeout(EVERY)
        while not stopping.wait(0.01):
            # nobody comes, or one that ends half way, or says something else
            with suppress(OSError, ValueError, TypeError, RecursionError):
                speaking = hearing.accept()[0]
                speaking.settimeout(EVERY)
                with speaking, speaking.makefile("rb") as said:
                    for query, found, took_ms in json.load(said):
                        statistics.note_search(str(query), int(found), float(took_ms))
