"""A language model behind an OpenAI-compatible endpoint: one question, one answer, within a time."""

from __future__ import annotations

import http.client
import io
import json
import os
import socket
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gram.errors import DataError, SettingError

TRIES, WAIT = 4, 1.0  # of one request, and seconds before the second, doubled each time
LARGEST = 1 << 20  # bytes of an answer


@dataclass(frozen=True)
class Endpoint:
    """Where a language model answers: `url` ends before `/chat/completions`. The key is read from `key_variable`.

    `timeout` is the seconds that connecting takes at most, and that the answer takes, however slowly it comes in.
    """

    url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    temperature: float = 0.8
    timeout: float = 60.0

    def __post_init__(self) -> None:
        problem = _find_problem(self.url)
        if problem:
            fix = "give one such as http://127.0.0.1:8000/v1"
            raise SettingError(f"the endpoint's address {self.url!r} {problem}. Fix: {fix}")

    def ask(self, prompt: str) -> str:
        """What the model answers. Raises DataError where the endpoint does not, after some tries."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": self.temperature,
            "max_tokens": 200,
        }
        address = self.url.rstrip("/") + "/chat/completions"
        request = urllib.request.Request(address, json.dumps(body).encode(), self._headers())
        problem = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(WAIT * 2 ** (attempt - 1))
            try:
                with _OPENER.open(request, timeout=self.timeout) as answer:
                    return _read_content(answer.read(LARGEST + 1))
            except urllib.error.HTTPError as error:
                problem = f"answered {error.code} {error.reason}"
                error.close()
                if error.code < 500 and error.code not in (408, 429):
                    break
            except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, RecursionError) as error:
                problem = f"gave no answer ({error!r})"
        fix = f"see that the address, the model {self.model!r} and the key in {self.key_variable} are right"
        raise DataError(address, f"{problem}.", f"{fix}; then run again: what is written already is kept")

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        key = os.environ.get(self.key_variable, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise SettingError(f"the key in {self.key_variable} has characters that no key has. Fix: set it again")
        if key:
            headers["Authorization"] = f"Bearer {key}"
        return headers


def _find_problem(url: str) -> str:
    """What is wrong with an address, "" for nothing."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        return f"cannot be read ({error})"
    if parts.scheme not in ("http", "https"):
        return "does not begin with http:// or https://"
    if not parts.hostname:
        return "names no host"
    if not url.isascii() or not url.isprintable() or " " in url:
        return "has blanks or characters that no address has"
    if "@" in parts.netloc or "?" in url or "#" in url:
        return "has more than host, port and path"
    return ""


def _read_content(body: bytes) -> str:
    """The text of an answer. Raises ValueError, LookupError, TypeError or RecursionError for what is none."""
    if len(body) > LARGEST:
        raise ValueError(f"more than {LARGEST} bytes")
    content = json.loads(body)["choices"][0]["message"]["content"]
    if not isinstance(content, str | None):
        raise TypeError(f"its content is a {type(content).__name__}, not text")
    return (content or "").encode("utf-8", "ignore").decode()  # JSON may hold halves of characters


class _Timed(io.RawIOBase):
    """Reads a socket until a deadline; a timeout of the socket's own begins anew with every byte."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self.raw, self.sock = raw, sock
        seconds = sock.gettimeout()
        self.deadline = None if seconds is None else time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.deadline is not None:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the answer was not whole in time")
            self.sock.settimeout(left)
        return self.raw.readinto(buffer)

    def close(self) -> None:
        self.raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        self.fp = io.BufferedReader(_Timed(self.fp.detach(), sock))


class _Connection(http.client.HTTPConnection):
    response_class = _Response


class _SafeConnection(http.client.HTTPSConnection):
    response_class = _Response


class _Http(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, request)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_SafeConnection, request)


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: the key and the shop's texts go where they were meant to go, and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_Http, _Https, _Stay)
