"""What was computed and may be asked for again, kept until it takes too much memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """Values by what they depend on; those that nobody asked for the longest go first. Safe to use from many threads.

    Args:
        most: values that are kept.
        most_bytes: what they take of memory in all, as `put` is told.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Value | None:
        """The value, if it is remembered."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: Hashable, value: Value, size: int) -> None:
        """Remembers a value that takes `size` bytes; those of its key are added."""
        size += 2 * len(repr(key))
        with self._lock:
            self._bytes += size - self._values.get(key, (value, 0))[1]
            self._values[key] = value, size
            self._values.move_to_end(key)
            while len(self._values) > self._most or self._bytes > self._most_bytes:
                self._bytes -= self._values.popitem(last=False)[1][1]
