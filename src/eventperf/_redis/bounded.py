"""Connections whose answers are bounded in time and in size, of whatever kind redis-py makes them."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from .answers import Answers
from .patience import Call, current

_STEP: Final = 65_536


class BoundedSocket:
    """A socket that reads and writes within the time of the call, and looks at what it reads.

    Attributes:
        plain: The socket itself.
    """

    def __init__(self, plain: Any) -> None:
        self.plain: Any = plain
        self._answers = Answers()
        self._wanted: float | None = plain.gettimeout()
        self._set = self._wanted

    def _in_time(self) -> Call | None:
        call, wanted = current.get(), self._wanted
        if call is not None and wanted != 0 and (left := call.left_s()) is not None:
            if left <= 0:
                raise TimeoutError("no whole answer in time")
            wanted = left if wanted is None else min(left, wanted)
        if wanted != self._set:
            self.plain.settimeout(wanted)
            self._set = wanted
        return call

    def _came(self, call: Call | None, data: bytes | memoryview) -> None:
        if call is not None:
            call.moved(len(data))
        self._answers.look(data)

    def recv(self, *args: Any) -> bytes:
        call = self._in_time()
        data: bytes = self.plain.recv(*args)
        self._came(call, data)
        return data

    def recv_into(self, buffer: Any, *args: Any) -> int:
        call = self._in_time()
        size: int = self.plain.recv_into(buffer, *args)
        self._came(call, memoryview(buffer)[:size])
        return size

    def sendall(self, data: Any, *args: Any) -> None:
        rest = memoryview(data)
        call = current.get()
        if call is not None:
            call.moved(len(rest))
        while rest:
            # A step at a time: over TLS the time-out would hold for each record, not for all of them.
            self._in_time()
            rest = rest[self.plain.send(rest[:_STEP], *args) :]

    def settimeout(self, wanted: float | None) -> None:
        self._wanted = self._set = wanted
        self.plain.settimeout(wanted)

    def gettimeout(self) -> float | None:
        return self._wanted

    def setblocking(self, flag: bool) -> None:
        self.settimeout(None if flag else 0.0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)


class BoundedReader:
    """A stream of asyncio that looks at what is read; whoever asks ends the waiting."""

    def __init__(self, plain: Any) -> None:
        self._plain = plain
        self._answers = Answers()

    def _came(self, data: bytes) -> bytes:
        call = current.get()
        if call is not None:
            call.moved(len(data))
        self._answers.look(data)
        return data

    async def read(self, *args: Any) -> bytes:
        return self._came(await self._plain.read(*args))

    async def readline(self) -> bytes:
        return self._came(await self._plain.readline())

    async def readexactly(self, size: int) -> bytes:
        return self._came(await self._plain.readexactly(size))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)


def plain_socket(connection: Any) -> Any:
    """Return the socket of a connection of redis-py, whether its answers are bounded or not."""
    return getattr(connection._sock, "plain", connection._sock)


@cache
def bounded(kind: Any) -> Any:
    """Return connections for threads like ``kind``, with bounds."""

    class Bounded(kind):  # type: ignore[misc]
        def _connect(self) -> Any:
            return BoundedSocket(super()._connect())

    return _named(Bounded, kind)


@cache
def abounded(kind: Any) -> Any:
    """Return connections for tasks like ``kind``, with bounds."""

    class Bounded(kind):  # type: ignore[misc]
        async def _connect(self) -> None:
            await super()._connect()
            this: Any = self
            this._reader = BoundedReader(this._reader)

    return _named(Bounded, kind)


def _named(made: Any, kind: Any) -> Any:
    made.__name__, made.__qualname__ = kind.__name__, kind.__qualname__
    return made
