"""What a sink may say about an event: bounded labels, durations, and never a key or a literal."""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Final

from eventperf._core.texts import one_line

LABELS: Final = ("queue", "type", "namespace", "target", "tier", "outcome", "direction", "state")
"""Fields that may become metric labels: names a program declares, never what its users type."""

_USERS_TYPE = (
    "key keys tag tags pattern sql statement sample parameters params data value values args kwargs "
    "payload result job_id id url error exception text headers"
)
PRIVATE: Final = frozenset(_USERS_TYPE.split())
"""Fields a log line leaves out unless asked: they may carry what users typed."""

MAX_LABEL_VALUES: Final = 500
OTHER: Final = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One event, ready for a metric.

    Attributes:
        room: ``cache``, ``dbopt``, ``scaling``, ``queues``, or the first part of a foreign module.
        event: Its ``kind`` where it has one, else the name of its class.
        labels: Bounded values by field name, for every name of :data:`LABELS` (empty text if absent).
        durations_s: Seconds by field name, for fields named ``seconds`` or ending in ``_s``.
    """

    room: str
    event: str
    labels: dict[str, str]
    durations_s: dict[str, float]


class Reader:
    """Read events of any room by the names of their fields; keeps label values bounded.

    After :data:`MAX_LABEL_VALUES` different values of one label, further ones are told as ``other``,
    so that a program that makes up queue names cannot fill a metrics server.
    """

    def __init__(self) -> None:
        self._known: dict[str, set[str]] = {name: set() for name in LABELS}

    def read(self, event: object) -> Facts:
        """Return the facts of ``event``; an event that is no dataclass has only its name."""
        room, field_names = _shape(event)
        labels = {label: "" for label in LABELS}
        durations: dict[str, float] = {}
        for field in field_names:
            value = getattr(event, field)
            if field in labels:
                labels[field] = self._bounded(field, value)
            elif (
                (field == "seconds" or field.endswith("_s"))
                and isinstance(value, (int, float))
                and not isinstance(value, bool)
            ):
                durations[field] = float(value)
        return Facts(room=room, event=name_of(event), labels=labels, durations_s=durations)

    def _bounded(self, label: str, value: Any) -> str:
        text = plain(value)
        known = self._known[label]
        if text not in known:
            if len(known) >= MAX_LABEL_VALUES:
                return OTHER
            known.add(text)
        return text


def name_of(event: object) -> str:
    """Return what an event is called: its ``kind`` where it has one, else the name of its class."""
    kind = getattr(event, "kind", None)
    return plain(kind) if isinstance(kind, (str, enum.Enum)) and kind else type(event).__name__


def plain(value: object) -> str:
    """Return a label value as text: the value of an enum, nothing for ``None``."""
    if value is None:
        return ""
    text = str(value.value if isinstance(value, enum.Enum) else value)
    # One half of a character would fail the whole scrape, and steer whoever reads it in a terminal.
    return text if text.isprintable() else one_line(text)


def _shape(event: object) -> tuple[str, tuple[str, ...]]:
    kind = type(event)
    shape = _shapes.get(kind)
    if shape is None:
        shape = _shapes[kind] = _read_shape(kind)
    return shape


_shapes: dict[type, tuple[str, tuple[str, ...]]] = {}


def _read_shape(kind: type) -> tuple[str, tuple[str, ...]]:
    parts = kind.__module__.split(".")
    room = parts[1] if parts[0] == "eventperf" and len(parts) > 1 else parts[0]
    names = tuple(f.name for f in fields(kind)) if is_dataclass(kind) else ()
    return room, names


def numbers(record: object) -> dict[str, float]:
    """Return the numeric fields and properties of a statistics record, by name.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Stats:
    ...     hits: int
    ...     note: str
    >>> numbers(Stats(3, "x"))
    {'hits': 3.0}
    """
    if not is_dataclass(record):
        return {}
    out: dict[str, float] = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, (int, float)):
            out[field.name] = float(value)
    return out


def fields_of(event: object, *, private: bool) -> dict[str, object]:
    """Return the fields of ``event`` for a log record, without :data:`PRIVATE` ones unless asked."""
    _, names = _shape(event)
    return {name: getattr(event, name) for name in names if private or name not in PRIVATE}
