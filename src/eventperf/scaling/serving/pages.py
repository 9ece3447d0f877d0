"""Probes, metrics and the recommendation over HTTP: small, read only, and with a deadline each."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

from eventperf._core.errors import ConfigurationError

from .board import Board, NoRecommendation, NoSuchTarget

_DEADLINE_S = 5.0
_MOST_HEAD, _MOST_CONNECTIONS = 8192, 200
_TEXT, _JSON = "text/plain; charset=utf-8", "application/json"
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_WORDS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}

Answer = tuple[int, str, str]


def respond(board: Board, method: str, target: str) -> Answer:
    """Return status, content type and body for a request.

    >>> respond(Board([]), "GET", "/readyz")[0]
    200
    """
    if method not in ("GET", "HEAD"):
        return 405, _TEXT, "only GET and HEAD\n"
    try:
        parts = urlsplit(target)
        query = parse_qs(parts.query, max_num_fields=20)
    except ValueError:
        return 400, _TEXT, "no path that can be read\n"
    if parts.path in ("/healthz", "/readyz"):
        trouble = board.health() if parts.path == "/healthz" else board.unready()
        return (503, _TEXT, trouble + "\n") if trouble else (200, _TEXT, "ok\n")
    if parts.path == "/metrics":
        return 200, _PROMETHEUS, board.metrics()
    if parts.path != "/recommendation":
        return 404, _TEXT, "known: /healthz /readyz /metrics /recommendation?target=&namespace=\n"
    try:
        answer = board.answer(query.get("target", [""])[0], query.get("namespace", [""])[0])
    except NoSuchTarget as error:
        return 404, _JSON, json.dumps({"error": str(error)}) + "\n"
    except NoRecommendation as error:
        return 503, _JSON, json.dumps({"error": str(error)}) + "\n"
    return 200, _JSON, json.dumps(answer) + "\n"


class Pages:
    """The server of one process, on the loop it is started on."""

    def __init__(self, board: Board, host: str, port: int) -> None:
        self._board, self._host = board, host
        self.port: int = port
        self._server: asyncio.AbstractServer | None = None
        self._open = 0

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigurationError: The address is taken, or none.
        """
        try:
            self._server = server = await asyncio.start_server(
                self._connected, self._host, self.port, limit=_MOST_HEAD
            )
        except OSError as error:
            given = f"{self._host}:{self.port}"
            raise ConfigurationError("--listen", given, f"a free HOST:PORT ({error})") from error
        self.port = int(server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= _MOST_CONNECTIONS:
                await asyncio.wait_for(self._serve(reader, writer), _DEADLINE_S)
        except (asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            pass  # slow, gone, or no request: nothing is owed to it
        finally:
            self._open -= 1
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) == 3:
            status, kind, body = respond(self._board, words[0], words[1])
        else:
            status, kind, body = 400, _TEXT, "no request\n"
        data = body.encode("utf-8", "replace")
        lines = [
            f"HTTP/1.1 {status} {_WORDS[status]}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(data)}",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            "Connection: close",
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode() + (b"" if words[0] == "HEAD" else data))
        await writer.drain()
