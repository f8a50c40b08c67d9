"""Keys of the service: who may search, write or steer. Kept hashed; shown once, when they are made."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from typing import Any

import anyio

from gram.errors import SettingError
from gram.index.store import Store

ROLES = ("search", "write", "admin")
"""Each may do what those before it may."""
FRESH = 1.0
"""Seconds for which keys that were read hold: one that is made or removed counts within them."""


def make_key(store: Store, name: str, role: str) -> str:
    """Makes a key and keeps its hash; the key itself is returned this once. Raises SettingError for a name that is
    taken or a role that is none."""
    if role not in ROLES:
        raise SettingError(f"there is no role {role!r}. Fix: choose from {', '.join(ROLES)}")
    if not name.strip() or len(name) > 100:
        raise SettingError("a key needs a name of up to 100 characters. Fix: say who is to use it")
    if store.get("key", name) is not None:
        raise SettingError(f"there is a key {name!r} already. Fix: remove it first, or choose another name")
    key = f"gram_{secrets.token_urlsafe(32)}"
    store.put("key", name, {"role": role, "hash": _hash(key)})
    return key


class Keyring:
    """The keys of a store, kept in memory and read anew, off the event loop, once they are no longer fresh."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys: dict[str, dict[str, Any]] = {}
        self._read_at = float("-inf")
        self._reading = anyio.Lock()

    async def keys(self) -> Mapping[str, Mapping[str, Any]]:
        """Every key by its name."""
        if time.monotonic() - self._read_at >= FRESH:
            async with self._reading:  # one reads, those who come meanwhile wait for it
                if time.monotonic() - self._read_at >= FRESH:
                    self._keys = await anyio.to_thread.run_sync(self._store.all, "key")
                    self._read_at = time.monotonic()
        return self._keys


def role_of(keys: Mapping[str, Mapping[str, Any]], key: str) -> str:
    """The role of a key, empty for an unknown one. Takes as long whichever it is."""
    digest, found = _hash(key), ""
    for entry in keys.values():
        if hmac.compare_digest(digest, str(entry["hash"])):
            found = str(entry["role"])
    return found


def may(role: str, needed: str) -> bool:
    """Whether a role may do what another is needed for."""
    return role in ROLES and ROLES.index(role) >= ROLES.index(needed)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()  # 256 random bits: nothing to guess, so no slow hash is needed
