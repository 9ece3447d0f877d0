"""Values of parameters as what they are: without the wrappers of drivers and ORMs, and as JSON."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import enum
import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

_TYPES: Final[dict[type, tuple[str, Callable[[Any], Any]]]] = {
    dt.datetime: ("datetime", dt.datetime.isoformat),
    dt.date: ("date", dt.date.isoformat),
    dt.time: ("time", dt.time.isoformat),
    dt.timedelta: ("seconds", dt.timedelta.total_seconds),
    decimal.Decimal: ("decimal", str),
    uuid.UUID: ("uuid", str),
    bytes: ("bytes", lambda v: base64.b64encode(v).decode()),
}
_BACK: Final[dict[str, Callable[[Any], Any]]] = {
    "datetime": dt.datetime.fromisoformat,
    "date": dt.date.fromisoformat,
    "time": dt.time.fromisoformat,
    "seconds": lambda v: dt.timedelta(seconds=v),
    "decimal": decimal.Decimal,
    "uuid": uuid.UUID,
    "bytes": base64.b64decode,
    "list": lambda v: list(decode(v)),
    "text": str,
}


def plain(values: Iterable[Any]) -> tuple[Any, ...]:
    """Take values out of what drivers and ORMs wrap them in, so that they can be sent again.

    JSON becomes its text, whichever driver's adapter held it; members of enums become their values.
    """
    return tuple(map(_plain, values))


def _plain(value: Any) -> Any:
    if value is None or type(value) in (bool, int, float, str, bytes) or type(value) in _TYPES:
        return value
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, Mapping):
        return json.dumps(value, default=str)
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (str, int, float, bytes)):  # a subclass, such as a text that is marked safe
        base: Any = next(k for k in (str, int, float, bytes) if isinstance(value, k))
        return base(value)
    if isinstance(value, tuple(_TYPES)):
        return value
    return _unwrapped(value)


def _unwrapped(value: Any) -> Any:
    """Open the adapters of psycopg (``Json``, ``Jsonb``) and psycopg2, and write ranges as text."""
    kind = type(value).__name__
    for name in ("obj", "adapted"):
        if kind.lower().startswith("json") and hasattr(value, name):
            inner = getattr(value, name)
            dumps = getattr(value, "dumps", None)
            text = dumps(inner) if callable(dumps) else json.dumps(inner, default=str)
            return text.decode() if isinstance(text, bytes) else text
    if hasattr(value, "adapted"):  # Django's adapters for psycopg2
        return _plain(value.adapted)
    if hasattr(value, "lower_inc") and hasattr(value, "upper_inc"):
        if getattr(value, "isempty", False):
            return "empty"
        low, high = ("" if v is None else str(v) for v in (value.lower, value.upper))
        return f"{'[' if value.lower_inc else '('}{low},{high}{']' if value.upper_inc else ')'}"
    return value


def encode(values: Iterable[Any]) -> list[Any]:
    """Write values as JSON's own; others as ``{type: text}``."""
    out: list[Any] = []
    for value in plain(values):
        if value is None or type(value) in (bool, int, float, str):
            out.append(value)
        elif isinstance(value, list):
            out.append({"list": encode(value)})
        else:
            name, write = next((t for k, t in _TYPES.items() if isinstance(value, k)), ("text", str))
            out.append({name: write(value)})
    return out


def decode(values: Iterable[Any]) -> tuple[Any, ...]:
    """Read what :func:`encode` wrote."""
    out: list[Any] = []
    for value in values:
        if isinstance(value, dict):
            ((name, text),) = value.items()
            value = _BACK[name](text)
        out.append(value)
    return tuple(out)
