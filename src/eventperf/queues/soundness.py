"""Whether a record out of a store is what was enqueued: whoever can write there may have changed it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, Final

from .job import JobRecord


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and isfinite(value)


def _is_flow(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("after"), list) and _is_text(value.get("when"))


_SOUND: Final[tuple[tuple[str, Callable[[Any], bool]], ...]] = (
    ("id", _is_text), ("type", _is_text), ("queue", _is_text), ("priority", _is_count), ("key", _is_text),
    ("payload", lambda v: isinstance(v, bytes)), ("attempts", _is_count), ("version", _is_count),
    ("created_at", _is_time), ("timeout_s", lambda v: v is None or (_is_time(v) and v > 0)),
    ("deadline_at", lambda v: v is None or _is_time(v)), ("unique_key", lambda v: v is None or _is_text(v)),
    ("tags", lambda v: isinstance(v, (list, tuple)) and all(map(_is_text, v))),
    ("unique_for", lambda v: _is_text(v) or _is_time(v)), ("flow", lambda v: v is None or _is_flow(v)),
    ("tags", lambda v: isinstance(v, (list, tuple)) and all(map(_is_text, v))),
    (
        "headers",
        lambda v: v is None or (isinstance(v, Mapping) and all(map(_is_text, (*v, *v.values())))),
    ),
)  # fmt: skip


def fault(record: JobRecord) -> str:
    """Return what of a record out of a store is not as it was enqueued; empty when all of it may be.

    >>> fault(JobRecord(id="1", type="t", queue="q", priority=5, payload=b"", attempts="x"))
    "its attempts are 'x'"
    """
    for name, is_sound in _SOUND:
        value = getattr(record, name)
        if not is_sound(value):
            return f"its {name} {'are' if name.endswith('s') else 'is'} {value!r:.80}"
    return ""


def unreadable(job_id: str, queue: str, data: bytes, created_at: float = 0.0) -> JobRecord:
    """Return what stands for a record that cannot be read: its bytes are the payload.

    >>> unreadable("1", "normal", b"{").payload
    b'{'
    """
    return JobRecord(id=job_id, type="", queue=queue, priority=0, payload=data, created_at=created_at)
