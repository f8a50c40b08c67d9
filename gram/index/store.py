"""The store of a live shop in one SQLite file: what changed since its segment was written, rules, codes given to
products and taken away, keys and clicks.

A change is durable when a call returns: write-ahead log, `synchronous=FULL`. Products that stand in the segment's files
stay there; the store holds each product that came or went since, with its representation, so that nothing is coded
twice. A merge writes a new segment, which says up to which change it goes (`merged`), and forgets those.
"""

from __future__ import annotations

import json
import sqlite3
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from gram.apart import STORE
from gram.data.columns import find_lone_surrogate
from gram.errors import IndexFolderError
from gram.locks import resolve

SCHEMA = """
CREATE TABLE IF NOT EXISTS change (
    number INTEGER PRIMARY KEY AUTOINCREMENT, product_id TEXT NOT NULL UNIQUE, product TEXT, representation BLOB);
CREATE TABLE IF NOT EXISTS entry (kind TEXT, key TEXT, value TEXT NOT NULL, PRIMARY KEY (kind, key));
CREATE TABLE IF NOT EXISTS click (
    number INTEGER PRIMARY KEY, query TEXT NOT NULL, product_id TEXT NOT NULL, kind TEXT NOT NULL,
    weight REAL NOT NULL, user_id TEXT NOT NULL, timestamp TEXT NOT NULL);
"""

TABLES = ("change", "entry", "click")
WAIT = 5.0
"""Seconds to wait for tables that another process is making."""

PENDING = "pending"
"""What an entry is called that says that a product came or changed and no language model coded it since."""
FROM_MODEL = "from_model"
"""The same of the codes that a language model gave to a product."""
MERGED = "merged"
"""In a segment's `meta.json`: the number of the last change that it holds."""
HOLDS_LIVE = "holds_live"
"""The same: the ids of the products that changed live and were merged into it (`changed`), and that went (`gone`)."""

NO_SPACE = ("disk I/O error", "database or disk is full")
"""What SQLite says where a disk is full."""

Entry: TypeAlias = tuple[str, str, dict[str, Any] | None]
"""Kind, key and value of a rule, a key and the like; None takes it out."""


class Change(NamedTuple):
    """A product as it is now: `product` is its fields as JSON, None where it is gone."""

    product_id: str
    product: str | None = None
    representation: bytes = b""
    number: int = 0


class Click(NamedTuple):
    """What a searcher did: `kind` is click or purchase."""

    query: str
    product_id: str
    kind: str = "click"
    weight: float = 1.0
    user_id: str = ""
    timestamp: str = ""
    number: int = 0


def store_path(index: str | Path) -> Path:
    """Where the store of an index folder lies: beside it, so that a new segment takes the folder's place whole."""
    folder = resolve(index)
    return folder.with_name(folder.name + STORE)


class Store:
    """One connection, shared by the threads of a process."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self.path = connection, path
        self._watching: sqlite3.Connection | None = None
        self._lock = threading.RLock()
        self._file = _file_of(path)

    @classmethod
    def open(cls, path: str | Path, read_only: bool = False) -> Store:
        """Opens the file, or makes it; ":memory:" keeps nothing. Raises IndexFolderError for one that is no store, and
        for one that another process has not made whole within WAIT."""
        path = Path(path)
        return cls(cls._connect(path, read_only), path)

    @staticmethod
    def _connect(path: Path, read_only: bool) -> sqlite3.Connection:
        in_memory = str(path) == ":memory:"
        try:
            uri = "file::memory:" if in_memory else f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
            connection = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None, timeout=30)
            connection.execute("PRAGMA synchronous=FULL")
            end, ready = time.monotonic() + WAIT, _is_whole if read_only else _make
            while not (whole := ready(connection)) and time.monotonic() < end:
                time.sleep(WAIT / 100)
            if not whole:
                connection.close()
                fix = "open it again once the process that makes it has begun; where it was put back from a copy, first"
                fix += " stop every process of this index, those that only read it too, and put it back again"
                raise IndexFolderError(f"{path}: the store has no tables yet. Fix: {fix}")
            connection.execute("SELECT count(*) FROM change").fetchone()
        except sqlite3.Error as error:
            fix = "restore it from a copy, or move it away and lose what changed since the index was written"
            if str(error) in NO_SPACE:
                fix = "free some space on its disk (SQLite makes a file beside it even to read)"
            elif isinstance(error, sqlite3.OperationalError):  # it is no worse for it
                fix = "see that this process may read and write it and its folder, or be the user who serves it"
            raise IndexFolderError(f"{path}: the store cannot be used ({error}). Fix: {fix}") from None
        return connection

    def close(self) -> None:
        with self._lock:
            self._connection.close()
            if self._watching is not None:
                self._watching.close()

    def renew(self) -> bool:
        """For who only reads: opens the file that stands in the place of the one that was opened. Whether one does."""
        found = _file_of(self.path)
        if found is None or found == self._file:
            return False
        connection = self._connect(self.path, read_only=True)
        with self._lock:
            self._connection.close()
            self._connection, self._watching, self._file = connection, None, found
        return True

    def copy(self, path: Path) -> None:
        """Writes what is committed at this moment into a new file, which needs none beside it; nobody waits for it.
        Raises IndexFolderError for a store that is damaged, and where the copy cannot be written."""
        path.touch(stat.S_IRUSR | stat.S_IWUSR)  # who may read keys and clicks there is for its owner to say
        try:
            with closing(sqlite3.connect(path)) as copy:
                with self._lock:
                    self._connection.backup(copy)
                copy.execute("PRAGMA journal_mode=DELETE")
                problem = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
                if problem != "ok":
                    raise sqlite3.DatabaseError(problem)
        except sqlite3.Error as error:
            fix = "see that there is space for the copy; a store that is damaged is to be restored from an older one"
            raise IndexFolderError(f"{self.path}: the store cannot be copied ({error}). Fix: {fix}") from None

    def version(self) -> int:
        """A number that changes when another process has committed something. It has a connection of its own, so that
        it waits for nothing that this one reads; one thread may ask."""
        if str(self.path) == ":memory:":
            return 0
        try:
            if self._watching is None:
                uri = f"{self.path.absolute().as_uri()}?mode=ro"
                self._watching = sqlite3.connect(
                    uri, uri=True, check_same_thread=False, isolation_level=None, timeout=30
                )
            return int(self._watching.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.OperationalError:  # it was taken away: what is known of it goes on
            return -1

    def stands(self) -> bool:
        """Whether the file that was opened is still in its place: what is written into another one nobody opens."""
        return _file_of(self.path) == self._file

    def check(self) -> None:
        """Raises IndexFolderError for a store that is damaged."""
        problem = self._read("PRAGMA quick_check(1)")[0][0]
        if problem != "ok":
            raise self._damage(problem)

    def _damage(self, problem: object) -> IndexFolderError:
        fix = "stop every process of this index, and put the store back from a copy (gram backup)"
        return IndexFolderError(f"{self.path}: the store is damaged ({problem}). Fix: {fix}")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        if not self.stands():
            fix = "stop every process of this index before its store is put back, and start again"
            raise IndexFolderError(f"{self.path}: the store was taken away or replaced while it is open. Fix: {fix}")
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk makes SQLite roll back by itself
                    self._connection.execute("ROLLBACK")
                raise

    def _read(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        try:
            with self._lock:
                return self._connection.execute(sql, values).fetchall()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise self._damage(error) from None

    # --- products ---------------------------------------------------------------------------------------------------

    def write(self, changes: Iterable[Change], *entries: Entry) -> int:
        """Writes changes, and entries (kind, key, value) with them, all or none; the number of the last change. A
        product's newest change replaces its older one."""
        with self._writing() as connection:
            for entry in entries:
                _put(connection, *entry)
            for change in changes:
                connection.execute(
                    "INSERT OR REPLACE INTO change (product_id, product, representation) VALUES (?, ?, ?)", change[:3]
                )
            return self._last(connection)

    def number_from(self, number: int) -> None:
        """Has the next change a greater number than this one: a segment passes over what its own merge counted, and a
        store that is new, or put back from a copy, would count from below."""
        if self.last() < number:
            with self._writing() as connection:
                if not connection.execute(
                    "UPDATE sqlite_sequence SET seq = ? WHERE name = 'change'", (number,)
                ).rowcount:
                    connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('change', ?)", (number,))

    def changes(self, after: int = 0) -> list[Change]:
        """All changes behind a number, in their order."""
        sql = "SELECT product_id, product, representation, number FROM change WHERE number > ? ORDER BY number"
        return [Change(*row) for row in self._read(sql, (after,))]

    def last(self) -> int:
        """The number of the last change ever written; 0 for none."""
        with self._lock:
            return self._last(self._connection)

    def forget(self, upto: int) -> None:
        """Takes out changes that a segment holds."""
        with self._writing() as connection:
            connection.execute("DELETE FROM change WHERE number <= ?", (upto,))

    @staticmethod
    def _last(connection: sqlite3.Connection) -> int:
        row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'change'").fetchone()
        return int(row[0]) if row else 0

    # --- rules, keys and the like -----------------------------------------------------------------------------------

    def put(self, kind: str, key: str, value: dict[str, Any]) -> None:
        """Keeps an entry, a rule or a key say, in place of one of the same name."""
        with self._writing() as connection:
            _put(connection, kind, key, value)

    def remove(self, kind: str, key: str) -> bool:
        """Takes an entry out; whether there was one."""
        if find_lone_surrogate(key):  # which no store can hold
            return False
        with self._writing() as connection:
            return connection.execute("DELETE FROM entry WHERE kind = ? AND key = ?", (kind, key)).rowcount > 0

    def get(self, kind: str, key: str) -> dict[str, Any] | None:
        """One entry; None where there is none."""
        if find_lone_surrogate(key):
            return None
        rows = self._read("SELECT value FROM entry WHERE kind = ? AND key = ?", (kind, key))
        return json.loads(rows[0][0]) if rows else None

    def all(self, kind: str) -> dict[str, dict[str, Any]]:
        """Every entry of a kind by its name."""
        rows = self._read("SELECT key, value FROM entry WHERE kind = ? ORDER BY key", (kind,))
        return {key: json.loads(value) for key, value in rows}

    # --- clicks -----------------------------------------------------------------------------------------------------

    def append_clicks(self, clicks: Iterable[Click]) -> None:
        """Keeps clicks and purchases for the next training."""
        sql = "INSERT INTO click (query, product_id, kind, weight, user_id, timestamp) VALUES (?, ?, ?, ?, ?, ?)"
        with self._writing() as connection:
            connection.executemany(sql, (click[:6] for click in clicks))

    def clicks(self, after: int = 0, page: int = 10_000) -> Iterator[Click]:
        """All clicks behind a number, in their order, read page by page."""
        sql = "SELECT query, product_id, kind, weight, user_id, timestamp, number FROM click"
        while rows := self._read(f"{sql} WHERE number > ? ORDER BY number LIMIT ?", (after, page)):
            yield from (Click(*row) for row in rows)
            after = rows[-1][-1]

    def last_click(self) -> int:
        """The number of the last click; 0 for none."""
        return int(self._read("SELECT coalesce(max(number), 0) FROM click")[0][0])


def _file_of(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one of its name; None for none, and where nothing is kept."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_whole(connection: sqlite3.Connection) -> bool:
    """Whether every table is there."""
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    return names.issuperset(TABLES)


def _make(connection: sqlite3.Connection) -> bool:
    """Makes the tables, all at once, where there are none; whether they are there, and no other process is at it."""
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        if not _is_whole(connection):
            connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
        return False
    return True


def _put(connection: sqlite3.Connection, kind: str, key: str, value: dict[str, Any] | None) -> None:
    if value is None:
        connection.execute("DELETE FROM entry WHERE kind = ? AND key = ?", (kind, key))
        return
    text = json.dumps(value, ensure_ascii=False)
    connection.execute("INSERT OR REPLACE INTO entry VALUES (?, ?, ?)", (kind, key, text))
