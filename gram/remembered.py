"""Answers that are remembered until something changes, so that a query that many ask is answered once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

from gram.answer import SearchResult

MOST = 2_000
"""Answers that are remembered."""
MOST_BYTES = 64_000_000
"""What they take of memory in all."""


class Remembered:
    """Answers by what they depend on; those that nobody asked for the longest go first. Safe to use from many
    threads."""

    def __init__(self, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._answers: OrderedDict[Hashable, tuple[SearchResult, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> SearchResult | None:
        """The answer, if it is remembered."""
        with self._lock:
            if key not in self._answers:
                return None
            self._answers.move_to_end(key)
            return self._answers[key][0]

    def put(self, key: Hashable, answer: SearchResult) -> None:
        """Remembers an answer."""
        size = _bytes_of(answer) + 2 * len(repr(key))
        with self._lock:
            self._bytes += size - self._answers.get(key, (answer, 0))[1]
            self._answers[key] = answer, size
            self._answers.move_to_end(key)
            while len(self._answers) > self._most or self._bytes > self._most_bytes:
                self._bytes -= self._answers.popitem(last=False)[1][1]


def _bytes_of(answer: SearchResult) -> int:
    """What an answer takes of memory, about: measured of CPython's tuples, dicts, floats and texts."""
    hits = sum(400 + len(hit.title) + 300 * len(hit.codes) + 80 * len(hit.features) for hit in answer.hits)
    values = sum(len(found["values"]) + 5 * len(found.get("ranges", ())) for found in answer.facets.values())
    warnings = sum(100 + len(warning) for warning in answer.warnings)
    return 3_000 + hits + 100 * values + 300 * (len(answer.codes) + len(answer.refinements)) + warnings
