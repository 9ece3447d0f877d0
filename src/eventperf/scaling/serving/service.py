"""Pages and gRPC of a process on one loop in a thread of its own, started anew if that ever ends."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

from typing_extensions import Self

from eventperf._core.logs import logger

from .board import Board
from .keda import ExternalScaler
from .pages import Pages

_log = logger("eventperf.scaling.serving")

_REST_S = 1.0


class Service:
    """Offers what is on a board while the process lives.

    Args:
        listen: Host and port of the pages; port 0 takes a free one.
        grpc: ``HOST:PORT`` of KEDA's external scaler; not served when not given (needs the extra ``keda``).
    """

    def __init__(self, board: Board, *, listen: tuple[str, int], grpc: str | None = None) -> None:
        self._board, self._listen = board, listen
        self._keda = ExternalScaler(board, grpc) if grpc else None
        self._pages = Pages(board, *listen)
        self._thread = threading.Thread(target=self._run, name="eventperf-serving", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = threading.Event()
        self._end: asyncio.Event | None = None
        self._ready: Future[None] = Future()

    @property
    def port(self) -> int:
        """Of the pages."""
        return self._pages.port

    @property
    def grpc_port(self) -> int:
        """Of the gRPC service, 0 without one."""
        return self._keda.port if self._keda is not None else 0

    def start(self) -> Self:
        """Listen; returns when requests are served.

        Raises:
            ConfigurationError: An address is taken, or none.
        """
        self._thread.start()
        self._ready.result()
        return self

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                asyncio.run(self._main())
            except Exception as error:
                if not self._ready.done():
                    self._ready.set_exception(error)
                    return
                _log.exception("serving ended and is started anew")
                self._stopping.wait(_REST_S)

    async def _main(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        if self._stopping.is_set():
            return
        try:
            await self._pages.start()
            if self._keda is not None:
                await self._keda.start()
            if not self._ready.done():
                self._ready.set_result(None)
            await self._end.wait()
        finally:
            await self._pages.stop()
            if self._keda is not None:
                await self._keda.stop()

    def close(self) -> None:
        """Stop listening and end what is open."""
        self._stopping.set()
        loop, end = self._loop, self._end
        if loop is not None and end is not None and not loop.is_closed():
            loop.call_soon_threadsafe(end.set)
        self._thread.join(5.0)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()
