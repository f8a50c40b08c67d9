"""Pages of other sites that may ask from the browser (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol)."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import httpx

from gram.errors import SettingError

ANY = "*"
CORS: dict[str, Any] = {
    "allow_methods": ("GET", "POST", "PUT", "PATCH", "DELETE"),  # what a page may do of it is a matter of its key
    "allow_headers": ("Authorization", "Content-Type", "X-Typing"),
    "expose_headers": ("Allow", "Retry-After", "WWW-Authenticate"),
    "max_age": 7200,  # seconds; Chromium takes no more
}
"""What a browser is told that such a page may send and read. There are no cookies, so credentials stay forbidden."""
_AS_SENT = re.compile(r"https?://(?:[a-z0-9._-]+|\[[0-9a-f:]+\])(?::[0-9]+)?")


def check_origins(origins: Collection[str]) -> None:
    """Raises SettingError for what is no origin as a browser sends it: a scheme and a host in small letters, and a port
    where it is not the scheme's own."""
    for origin in origins:
        meant = _meant(origin)
        if origin != ANY and (not meant or origin != meant):
            fix = f"--allow-origin {meant or 'https://shop.example, or * for the pages of any site'}"
            raise SettingError(f"{origin!r:.200} is no origin as a browser sends it. Fix: {fix}")


def is_allowed(origin: str, origins: Collection[str]) -> bool:
    """Whether a page from there may ask."""
    return ANY in origins or origin in origins


def _meant(origin: str) -> str:
    """The origin that a text comes nearest to; nothing where it is not near to any, as `null`."""
    try:
        url = httpx.URL(origin if "://" in origin or origin == "null" else f"https://{origin}")
        meant = f"{url.scheme}://{url.netloc.decode('ascii')}"
    except httpx.InvalidURL:
        return ""
    return meant if _AS_SENT.fullmatch(meant) else ""
