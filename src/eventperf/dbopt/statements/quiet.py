"""The optimizer's own statements, kept out of what it records."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_muted: Final[contextvars.ContextVar[bool]] = contextvars.ContextVar("eventperf_dbopt_muted", default=False)
is_muted: Final = _muted.get


@contextmanager
def muted() -> Iterator[None]:
    """Keep the optimizer's own statements out of every recorder of this context."""
    token = _muted.set(True)
    try:
        yield
    finally:
        _muted.reset(token)
