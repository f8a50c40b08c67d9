"""Codes that a language model wrote already, by the text and the model that wrote them: writing them takes long."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gram.errors import DataError

log = logging.getLogger("gram.coder")

AT_ONCE = 500  # texts asked of SQLite in one statement


class TextCodes(NamedTuple):
    """The codes of one text, the likeliest first, with their log-probabilities."""

    code: NDArray[np.int32]
    log_prob: NDArray[np.float32]


class CodeCache:
    """A file of written codes, kept from run to run; two processes may share it. `path` None keeps nothing."""

    def __init__(self, path: Path | None, model: str) -> None:
        """`model` names the weights and the widths of the search: what another model wrote is not found.

        Raises DataError for a file that is no such cache.
        """
        self.path, self.model = path, model
        self._connection: sqlite3.Connection | None = None
        if path is None:
            return
        try:
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=60)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS written (key BLOB PRIMARY KEY, code BLOB NOT NULL, log_prob BLOB NOT NULL)"
                " WITHOUT ROWID"
            )
        except sqlite3.OperationalError as error:  # a folder that must not be written to
            log.warning("%s: written codes cannot be kept there (%s)", path, error)
            self._connection = None
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def _damaged(self, error: sqlite3.Error) -> DataError:
        path = self.path or "the cache"
        return DataError(path, f"no cache of written codes ({error}).", "remove it: codes are written anew")

    def key(self, prompt: str) -> bytes:
        return hashlib.sha256(f"{self.model}\n{prompt}".encode()).digest()[:16]

    def find(self, prompts: Sequence[str]) -> dict[str, TextCodes]:
        """What was written for these prompts, as far as it is known."""
        if self._connection is None:
            return {}
        by_key = {self.key(prompt): prompt for prompt in prompts}
        keys, found = list(by_key), {}
        for begin in range(0, len(keys), AT_ONCE):
            part = keys[begin : begin + AT_ONCE]
            marks = ",".join("?" * len(part))
            statement = f"SELECT key, code, log_prob FROM written WHERE key IN ({marks})"
            try:
                rows = self._connection.execute(statement, part).fetchall()
            except sqlite3.DatabaseError as error:
                raise self._damaged(error) from error
            for key, code, log_prob in rows:
                row = TextCodes(np.frombuffer(code, dtype=np.int32), np.frombuffer(log_prob, dtype=np.float32))
                found[by_key[key]] = row
        return found

    def keep(self, found: Mapping[str, TextCodes]) -> None:
        """Remembers the codes of some prompts, all or none of them."""
        if self._connection is None:
            return
        rows = [
            (self.key(prompt), row.code.astype(np.int32).tobytes(), row.log_prob.astype(np.float32).tobytes())
            for prompt, row in found.items()
        ]
        try:
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany("INSERT OR REPLACE INTO written VALUES (?, ?, ?)", rows)
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error
