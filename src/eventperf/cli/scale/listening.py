"""Where a running scaler answers: probes, metrics, the recommendation."""

from __future__ import annotations

from eventperf._core.errors import ConfigurationError
from eventperf._core.texts import whole
from eventperf.scaling import ScalingDecision
from eventperf.scaling.serving.board import Board
from eventperf.scaling.serving.service import Service

from .config import Plan


def listening(plan: Plan, listen: str, *, grpc: str | None = None) -> Service:
    """Return a service, not started, that offers what the scalers of ``plan`` decide."""
    board = Board([s.target.name for s in plan.scalers], interval_s=plan.interval_s)
    for scaler in plan.scalers:
        scaler.on(board.put, ScalingDecision)
    return Service(board, listen=address(listen, "--listen"), grpc=grpc)


def address(text: str, option: str) -> tuple[str, int]:
    """Read ``HOST:PORT``; an IPv6 address stands in brackets.

    Raises:
        ConfigurationError: It is none.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or (number := whole(port)) is None or number > 65535:
        raise ConfigurationError(option, text, "HOST:PORT, such as 0.0.0.0:8080")
    return host.strip("[]"), number
