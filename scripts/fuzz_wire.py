"""HTTP as `fuzz_test.py` speaks it: any bytes go out, and answers come in with little work."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import NamedTuple

PATIENCE = 60.0
"""Seconds after which no answer is waited for."""


class Answer(NamedTuple):
    """`head` is in small letters."""

    status: int
    head: bytes
    body: bytes

    def header(self, name: bytes) -> bytes:
        found = self.head.find(b"\r\n" + name + b":")
        return self.head[found + len(name) + 3 : self.head.index(b"\r\n", found + 2)].strip() if found >= 0 else b""


class Connection:
    """A connection that is kept, as long as the service keeps it."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._socket: socket.socket | None = None
        self._came = bytearray()

    @property
    def kept(self) -> bool:
        return self._socket is not None

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._came.clear()

    def send(self, data: bytes) -> None:
        if self._socket is None:
            self._socket = socket.create_connection(self._address)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(PATIENCE)
        self._socket.sendall(data)

    def receive(self, without_body: bool = False, patience: float = PATIENCE) -> Answer:
        """The next answer, and interim ones passed over. Raises OSError, TimeoutError among them, where there is
        none."""
        if self._socket is None:
            raise ConnectionError("there is no connection")
        self._socket.settimeout(patience)
        status = 100
        while status < 200:
            head = self._take_line(b"\r\n\r\n").lower()
            status = int(head[9:12])
        answer = Answer(status, head, b"")
        if without_body or status in (204, 304):
            return answer
        if answer.header(b"transfer-encoding") == b"chunked":
            return answer._replace(body=self._take_chunks())
        length = answer.header(b"content-length")
        return answer._replace(body=self._take(int(length)) if length else self._take_rest())

    def _take_chunks(self) -> bytes:
        body = b""
        while size := int(self._take_line(b"\r\n"), 16):
            body += self._take(size + 2)[:-2]
        self._take_line(b"\r\n")
        return body

    def _take_rest(self) -> bytes:
        with suppress(ConnectionError):  # it ends with the connection
            while True:
                self._read_on()
        return self._take(len(self._came))

    def _take_line(self, end: bytes) -> bytes:
        while (found := self._came.find(end)) < 0:
            self._read_on()
        return self._take(found + len(end))

    def _take(self, size: int) -> bytes:
        while len(self._came) < size:
            self._read_on()
        taken = bytes(self._came[:size])
        del self._came[:size]
        return taken

    def _read_on(self) -> None:
        part = self._socket.recv(1 << 18) if self._socket is not None else b""
        if not part:
            raise ConnectionError("closed without an answer")
        self._came += part
