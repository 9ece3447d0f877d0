"""KEDA's external scaler over gRPC: the recommendation as a metric whose target is one per replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require

from . import wire
from .board import Board, NoRecommendation, NoSuchTarget

METRIC = "eventperf-replicas"
_SERVICE = "externalscaler.ExternalScaler"
_OWN = frozenset({"target"})
# what KEDA itself reads of an external trigger, and passes on
_KEDA = frozenset(
    {"scalerAddress", "tlsCertFile", "caCert", "tlsClientCert", "tlsClientKey", "unsafeSsl", "enableTLS"}
)
_MOST_CALLS = 1000
_LOOK_S = 30.0  # a stream also ends when its target is not decided about any more


class ExternalScaler:
    """The service of one process, on the loop it is started on.

    A trigger's metadata names the ``target`` (``deployment/web``); without it the only target of the
    namespace is meant. What is not known is ``NOT_FOUND``, what cannot be answered now ``UNAVAILABLE``, so
    that KEDA falls back as its ScaledObject says; metadata that nothing reads is ``INVALID_ARGUMENT``, by
    name.
    """

    def __init__(self, board: Board, address: str) -> None:
        self._grpc: Any = require("grpc", extra="keda", needed_by="the gRPC service for KEDA")
        self._aio: Any = require("grpc.aio", extra="keda", needed_by="the gRPC service for KEDA")
        self._board, self._address = board, address
        self._server: Any = None
        self._waiting: set[asyncio.Event] = set()
        self._stop_listening: Callable[[], None] = lambda: None
        self.port: int = 0

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigurationError: The address is taken, or none.
        """
        limits = [("grpc.max_receive_message_length", wire.MOST_BYTES), ("grpc.so_reuseport", 0)]
        self._server = self._aio.server(options=limits, maximum_concurrent_rpcs=_MOST_CALLS)
        one, many = self._grpc.unary_unary_rpc_method_handler, self._grpc.unary_stream_rpc_method_handler
        handlers = {
            "IsActive": one(self._is_active),
            "StreamIsActive": many(self._stream),
            "GetMetricSpec": one(self._spec),
            "GetMetrics": one(self._metrics),
        }
        self._server.add_generic_rpc_handlers(
            (self._grpc.method_handlers_generic_handler(_SERVICE, handlers),)
        )
        try:
            self.port = self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            text = f"a free HOST:PORT ({error})"
            raise ConfigurationError("--grpc", self._address, text) from error
        await self._server.start()
        loop = asyncio.get_running_loop()
        self._stop_listening = self._board.listen(lambda name: loop.call_soon_threadsafe(self._wake))

    def _wake(self) -> None:
        for event in self._waiting:
            event.set()

    async def stop(self) -> None:
        """End streams and calls, within two seconds."""
        self._stop_listening()
        if self._server is not None:
            await self._server.stop(2.0)

    async def _refuse(self, context: Any, error: Exception) -> None:
        code = self._grpc.StatusCode
        kinds: dict[type, Any] = {NoSuchTarget: code.NOT_FOUND, NoRecommendation: code.UNAVAILABLE}
        await context.abort(kinds.get(type(error), code.INVALID_ARGUMENT), str(error))

    def _name(self, asked: wire.Asked) -> str:
        unread = sorted(key for key in asked.metadata if key not in _OWN and key not in _KEDA)
        if unread:
            names = ", ".join(repr(key[:80]) for key in unread[:5])
            raise ValueError(
                f"metadata of the trigger has {names}, which nothing reads; allowed are target "
                f"(such as deployment/web) and what KEDA reads itself: {', '.join(sorted(_KEDA))}"
            )
        return self._board.name_of(asked.metadata.get("target", ""), asked.namespace)

    async def _is_active(self, data: bytes, context: Any) -> bytes:
        try:
            return wire.active(self._board.decision(self._name(wire.read_ref(data))).after > 0)
        except (ValueError, NoSuchTarget, NoRecommendation) as error:
            await self._refuse(context, error)
            raise

    async def _stream(self, data: bytes, context: Any) -> AsyncIterator[bytes]:
        """Tell at once, and whenever it changes."""
        changed, told = asyncio.Event(), None
        self._waiting.add(changed)
        try:
            name = self._name(wire.read_ref(data))
            while True:
                changed.clear()
                is_active = self._board.decision(name).after > 0
                if is_active is not told:
                    told = is_active
                    yield wire.active(is_active)
                try:
                    await asyncio.wait_for(changed.wait(), _LOOK_S)
                except asyncio.TimeoutError:
                    continue
        except (ValueError, NoSuchTarget, NoRecommendation) as error:
            await self._refuse(context, error)
        finally:
            self._waiting.discard(changed)

    async def _spec(self, data: bytes, context: Any) -> bytes:
        try:
            self._name(wire.read_ref(data))
        except (ValueError, NoSuchTarget) as error:
            await self._refuse(context, error)
        return wire.metric(METRIC, 1)

    async def _metrics(self, data: bytes, context: Any) -> bytes:
        try:
            asked = wire.read_metrics_request(data)
            if asked.metric not in ("", METRIC):
                raise NoSuchTarget(f"there is no metric {asked.metric[:200]!r}, only {METRIC}")
            return wire.metric(METRIC, self._board.decision(self._name(asked)).after)
        except (ValueError, NoSuchTarget, NoRecommendation) as error:
            await self._refuse(context, error)
            raise
