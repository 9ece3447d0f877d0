"""Errors of this room."""

from __future__ import annotations

from eventperf._core.errors import EventPerfError

__all__: list[str] = []
