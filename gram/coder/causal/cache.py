"""Codes that a language model wrote already, by the text and the model that wrote them: writing them takes long."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gram.errors import DataError

log = logging.getLogger("gram.coder")

AT_ONCE = 500  # texts asked of SQLite in one statement
WAIT = 60.0  # seconds for another process that writes
LARGEST_LOG_PROB = 1e-3  # what rounding may make of 0


class TextCodes(NamedTuple):
    """The codes of one text, the likeliest first, with their log-probabilities."""

    code: NDArray[np.int32]
    log_prob: NDArray[np.float32]


class CodeCache:
    """A file of written codes, kept from run to run; threads and processes may share it. `path` None keeps nothing."""

    def __init__(self, path: Path | None, model: str, n_codes: int) -> None:
        """`model` names the weights and the widths of the search: what another model wrote is not found.

        `n_codes` is the size of the space of codes. Raises DataError for a file that is no such cache.
        """
        self.path, self.model, self.n_codes = path, model, n_codes
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()  # one connection has one transaction at a time
        self._refused = "the model has no folder"
        if path is None:
            return
        try:
            connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=WAIT)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS written (key BLOB PRIMARY KEY, code BLOB NOT NULL, log_prob BLOB NOT NULL)"
                " WITHOUT ROWID"
            )
            columns = [row[1] for row in connection.execute("PRAGMA table_info(written)")]
            if columns != ["key", "code", "log_prob"]:
                raise sqlite3.DatabaseError(f"its columns are {', '.join(columns)}")
            self._connection = connection
        except sqlite3.OperationalError as error:  # a folder that must not be written to
            log.warning("%s: written codes cannot be kept there (%s)", path, error)
            self._refused = str(error)
        except sqlite3.DatabaseError as error:
            raise self._failed(error) from error

    def check_writable(self) -> None:
        """Raises DataError where nothing can be kept: to be asked before hours of writing that would be lost."""
        if self._connection is None:
            raise self._refuse(self._refused)
        try:
            with self._lock, self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.DatabaseError as error:
            raise self._failed(error) from error

    def key(self, prompt: str) -> bytes:
        return hashlib.sha256(f"{self.model}\n{prompt}".encode()).digest()[:16]

    def find(self, prompts: Sequence[str]) -> dict[str, TextCodes]:
        """What was written for these prompts, as far as it is known; a damaged row is as good as none."""
        if self._connection is None:
            return {}
        by_key = {self.key(prompt): prompt for prompt in prompts}
        keys, found = list(by_key), {}
        for begin in range(0, len(keys), AT_ONCE):
            part = keys[begin : begin + AT_ONCE]
            marks = ",".join("?" * len(part))
            statement = f"SELECT key, code, log_prob FROM written WHERE key IN ({marks})"
            try:
                with self._lock:
                    rows = self._connection.execute(statement, part).fetchall()
            except sqlite3.DatabaseError as error:
                raise self._failed(error) from error
            for key, code, log_prob in rows:
                row = self._read(code, log_prob)
                if row is not None:
                    found[by_key[key]] = row
        return found

    def keep(self, found: Mapping[str, TextCodes]) -> None:
        """Remembers the codes of some prompts, all or none of them. Raises DataError where they cannot be written."""
        if self._connection is None:
            return
        rows = [
            (self.key(prompt), row.code.astype(np.int32).tobytes(), row.log_prob.astype(np.float32).tobytes())
            for prompt, row in found.items()
        ]
        try:
            with self._lock, self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany("INSERT OR REPLACE INTO written VALUES (?, ?, ?)", rows)
        except sqlite3.DatabaseError as error:
            raise self._failed(error) from error

    def _read(self, code: object, log_prob: object) -> TextCodes | None:
        """A row of the file; None for a damaged one."""
        if not isinstance(code, bytes) or not isinstance(log_prob, bytes) or len(code) != len(log_prob):
            return None
        if len(code) % 4:
            return None
        row = TextCodes(np.frombuffer(code, dtype=np.int32), np.frombuffer(log_prob, dtype=np.float32))
        known = (row.code >= 0) & (row.code < self.n_codes) & (row.log_prob <= LARGEST_LOG_PROB)
        return row if known.all() and np.isfinite(row.log_prob).all() else None

    def _failed(self, error: sqlite3.DatabaseError) -> DataError:
        if isinstance(error, sqlite3.OperationalError):  # locked, read-only, a full disk: the file itself is sound
            return self._refuse(str(error))
        path = self.path or "the cache"
        return DataError(path, f"no cache of written codes ({error}).", "remove it: codes are written anew")

    def _refuse(self, problem: str) -> DataError:
        fix = "make room on its disk, get the permission to write there, and stop who else holds it; then run again"
        return DataError(self.path or "the cache", f"written codes cannot be kept or read there ({problem}).", fix)
