"""HTTP with servers one does not trust: an answer has one deadline, a header value holds no line end.

A time-out of a socket bounds the wait for each byte; a server that sends one now and then holds its reader
for ever. Here the time-out bounds the whole answer, its status line and headers included.
"""

from __future__ import annotations

import http.client
import io
import math
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from eventperf._core.errors import ConfigurationError

if TYPE_CHECKING:
    from typing_extensions import Buffer


class _Timed(io.RawIOBase):
    """Reads from a socket until a moment, whatever drips in before it."""

    def __init__(self, raw: Any, sock: Any) -> None:
        self._raw, self._sock = raw, sock
        self._timeout_s: float | None = sock.gettimeout()
        self._until = math.inf if self._timeout_s is None else time.monotonic() + self._timeout_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int | None:
        if self._until < math.inf:
            left = self._until - time.monotonic()
            if left <= 0:
                raise TimeoutError("the answer took too long")
            self._sock.settimeout(left)
        found: int | None = self._raw.readinto(buffer)
        return found

    def relax(self, silence_s: float) -> None:
        self._until = math.inf
        self._sock.settimeout(silence_s)

    def close(self) -> None:
        if not self.closed:
            with suppress(OSError):  # it may be closed by now; else the next request has its own time
                self._sock.settimeout(self._timeout_s)
            self._raw.close()
        super().close()


class TimedResponse(http.client.HTTPResponse):
    """A response that must be complete within its socket's time-out."""

    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        assert isinstance(self.fp, io.BufferedReader)
        self._timed = _Timed(self.fp.detach(), sock)
        self.fp: io.BufferedReader = io.BufferedReader(self._timed)

    def relax(self, silence_s: float) -> None:
        """Let the answer go on as long as it likes, with at most this between two of its bytes: a watch."""
        self._timed.relax(silence_s)


class Timed:
    """Mix-in of an ``http.client.HTTPConnection``: its time-out counts for the whole of each answer."""

    response_class: type[http.client.HTTPResponse] = TimedResponse


class TimedHTTPConnection(Timed, http.client.HTTPConnection):
    """HTTP with a deadline for each answer."""


class TimedHTTPSConnection(Timed, http.client.HTTPSConnection):
    """HTTPS with a deadline for each answer."""


class TimedHTTPHandler(urllib.request.HTTPHandler):
    """For an opener of ``urllib.request``."""

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(TimedHTTPConnection, req)


class TimedHTTPSHandler(urllib.request.HTTPSHandler):
    """For an opener of ``urllib.request``; certificate and host name are checked as ``context`` says, or the
    standard library's default.
    """

    def __init__(self, context: Any = None) -> None:
        super().__init__(context=context)
        self._given = context

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(TimedHTTPSConnection, req, context=self._given)


def checked_headers(headers: Mapping[str, str] | None, argument: str = "headers") -> dict[str, str]:
    """Return ``headers`` without blanks and line ends around the values, as a token from a file has them.

    Raises:
        ConfigurationError: A name or value that no header can have; the value is not shown.
    """
    found = {}
    for name, value in (headers or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigurationError(argument, f"{name!s}: {type(value).__name__}", "text by name")
        name, value = name.strip(), value.strip()
        if any(ord(c) < 32 or ord(c) == 127 or ord(c) > 255 for c in name + value):
            raise ConfigurationError(argument, f"{name!r}: ***", "one line, without control characters")
        found[name] = value
    return found
