"""A small HTTP/1.1 server on asyncio: keep-alive, streams, and answers that break on purpose.

Only what the Kubernetes API needs, because the point is to be fast: one request costs a few dozen
microseconds, so that a test measures the client and not the server.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import parse_qsl, unquote

_REASONS = {
    200: "OK", 201: "Created", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 409: "Conflict", 410: "Gone", 411: "Length Required",
    413: "Request Entity Too Large", 415: "Unsupported Media Type", 422: "Unprocessable Entity",
    429: "Too Many Requests", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip
_HEAD_BYTES = 1 << 20  # as Go's server
_BODY_BYTES = 3 << 20  # as the real server


class _Unreadable(Exception):
    """Bytes that are no request; the connection ends with the answer."""

    def __init__(self, status: int, text: str) -> None:
        self.status = status
        self.text = text
        super().__init__(text)

    def body(self) -> bytes:
        reasons = {413: "RequestEntityTooLarge"}
        return json.dumps(
            {
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "code": self.status, "message": self.text, "reason": reasons.get(self.status, "BadRequest"),
            }
        ).encode()  # fmt: skip


@dataclass(slots=True)
class Request:
    """One request, body included."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Response:
    """One answer; ``cut`` says how it is broken, ``delay_s`` how late it comes.

    ``cut`` is ``"silent"`` (never answered), ``"reset"`` (RST), ``"half"`` (half of the body, then the
    sending side is closed) or None.
    """

    status: int
    body: bytes = b"{}"
    headers: str = ""
    delay_s: float = 0.0
    cut: str | None = None
    content_type: str = "application/json"
    is_head: bool = False

    def encode(self) -> bytes:
        head = (
            f"HTTP/1.1 {self.status} {_REASONS.get(self.status, 'Status')}\r\n"
            f"Content-Type: {self.content_type}\r\nContent-Length: {len(self.body)}\r\n{self.headers}\r\n"
        )
        return head.encode() if self.is_head else head.encode() + self.body


class Stream(Protocol):
    """An answer without an end: told when it may write and when the peer is gone."""

    def start(self, write: Callable[[bytes], None], finish: Callable[[], None], /) -> None:
        """Begin; ``write`` sends one chunk, ``finish`` ends the answer (both on the server's loop)."""
        ...

    def stop(self) -> None:
        """The peer left."""
        ...


Handler = Callable[[Request], "Response | Stream"]


@dataclass(slots=True)
class Connections:
    """The connections of one server."""

    open: set[Connection] = field(default_factory=set)
    accepted: int = 0


class Connection(asyncio.Protocol):
    """One client connection."""

    def __init__(self, handler: Handler, registry: Connections) -> None:
        self._handler = handler
        self._registry = registry
        self._buffer = b""
        self._busy = False
        self._stream: Stream | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    @property
    def is_idle(self) -> bool:
        return not self._busy

    @property
    def stream(self) -> Stream | None:
        return self._stream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._registry.open.add(self)
        self._registry.accepted += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._registry.open.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._stream is not None:
            self._stream.stop()
            self._stream = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._serve()

    def _serve(self) -> None:
        while not self._busy:
            try:
                request = self._parse()
            except _Unreadable as error:
                self._busy = True  # whatever follows cannot be told from the rest of this
                self._transport.write(Response(error.status, error.body(), "Connection: close\r\n").encode())
                self._transport.close()
                return
            if request is None:
                return
            self._busy = True
            answer = self._handler(request)
            if isinstance(answer, Response):
                answer.is_head = request.method == "HEAD"
                self._answer(answer)
            else:
                self._begin(answer)

    def _parse(self) -> Request | None:
        head, gap, rest = self._buffer.partition(b"\r\n\r\n")
        if len(head) > _HEAD_BYTES:
            raise _Unreadable(431, "the head of the request is too large")
        if not gap:
            return None
        line, *fields = head.decode("latin-1").split("\r\n")
        words = line.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise _Unreadable(400, "malformed HTTP request")
        method, target, _ = words
        headers = {}
        for item in fields:
            name, _, value = item.partition(":")
            headers[name.lower()] = value.strip()
        if "transfer-encoding" in headers:
            raise _Unreadable(411, "a body needs a Content-Length here")
        given = headers.get("content-length", "0")
        if not (given.isascii() and given.isdecimal() and len(given) < 16):
            raise _Unreadable(400, f'bad Content-Length "{given[:80]}"')
        length = int(given)
        if length > _BODY_BYTES:
            raise _Unreadable(413, f"Request entity too large: limit is {_BODY_BYTES}")
        if len(rest) < length:
            return None
        self._buffer = rest[length:]
        path, _, query = target.partition("?")
        if "%" in path:
            path = unquote(path)
        try:
            pairs = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
        except ValueError as error:
            raise _Unreadable(400, f"the query of the request cannot be read: {error}") from error
        return Request(method, path, pairs, headers, rest[:length])

    def _answer(self, response: Response) -> None:
        if response.delay_s:
            loop = asyncio.get_running_loop()
            delay, response.delay_s = response.delay_s, 0.0
            self._timer = loop.call_later(delay, self._late, response)
            return
        if response.cut is None:
            self._transport.write(response.encode())
            self._busy = False
        elif response.cut == "reset":
            self.reset()
        elif response.cut == "half":
            whole = response.encode()
            self._transport.write(whole[: len(whole) - max(1, len(response.body) // 2)])
            self._transport.write_eof()
        # "silent": the connection stays open and busy, and nothing is ever said

    def _late(self, response: Response) -> None:
        self._answer(response)
        self._serve()

    def _begin(self, stream: Stream) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        self._stream = stream

        def write(chunk: bytes) -> None:
            if not self._transport.is_closing():
                self._transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))

        def finish() -> None:
            if self._stream is stream:
                self._stream = None
                self._busy = False
                if not self._transport.is_closing():
                    self._transport.write(b"0\r\n\r\n")
                    self._serve()

        stream.start(write, finish)

    def reset(self) -> None:
        """Close with RST, as a crashed peer or a strict firewall does."""
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def close(self) -> None:
        """Close in order."""
        self._transport.close()
