"""A lock for a folder or file that is written: one process at a time, given back by the system when it dies."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gram.errors import DataError

if sys.platform != "win32":
    import fcntl

log = logging.getLogger("gram.locks")

NEIGHBOURS = ("lock", "draft", "old")
"""What a writer has beside the path that it writes."""


@contextmanager
def lock_folder(path: str | Path, wait: bool = False) -> Iterator[None]:
    """Keeps the folder, or what is to become one, from every other process that asks for its lock, until the block ends
    or the process dies.

    The lock is a file beside it, held by `flock`; where a file system or Windows has none, nothing is kept from anyone.
    Raises DataError, which names the process that holds the lock, unless it is to `wait`.
    """
    final = resolve(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    lock = beside(final, "lock")
    handle = _take(lock, final, wait)
    try:
        yield
    finally:
        if sys.platform != "win32":
            lock.unlink(missing_ok=True)  # while it is held: one who waits for it then sees that it is gone
        os.close(handle)


def resolve(path: str | Path) -> Path:
    """The path without links; one that leads back to itself stays, where `Path.resolve` raises RuntimeError."""
    return Path(os.path.realpath(path))


def beside(final: Path, kind: str) -> Path:
    """The hidden neighbour of a path that its writer uses, one of NEIGHBOURS."""
    return final.with_name(f".{kind}.{final.name}")


def is_beside(name: str) -> bool:
    """Whether it is the name of such a neighbour, which a writer may remove."""
    return name.startswith(tuple(f".{kind}." for kind in NEIGHBOURS))


def _take(lock: Path, final: Path, wait: bool) -> int:
    """Opens and locks a file; closing it gives the lock back."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _try_lock(handle):
                pid = os.pread(handle, 20, 0).decode() or "unknown"
                if not wait:
                    fix = f"wait for process {pid} or stop it, or name another folder"
                    raise DataError(final, f"process {pid} is writing it.", fix)
                log.info("waiting for process %s, which is writing %s", pid, final)
                fcntl.flock(handle, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), lock.stat()):  # its last holder may have removed it by now
                    os.ftruncate(handle, 0)
                    os.pwrite(handle, str(os.getpid()).encode(), 0)
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _try_lock(handle: int) -> bool:
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):  # the file system knows no locks
            raise
    return True
