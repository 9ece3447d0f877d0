"""The few messages of KEDA's external scaler, as bytes: ``externalscaler.proto`` is beside this file. Pure.

They are written here by hand, because a scaler that speaks four small messages should not need a code
generator and its runtime. Unknown fields are skipped, as the format asks; what is cut or too long is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

MOST_BYTES = 65536
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Asked:
    """What KEDA asks about: a ScaledObject, with the metadata of its trigger."""

    name: str = ""
    namespace: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    metric: str = ""


def read_ref(data: bytes) -> Asked:
    """Read a ``ScaledObjectRef``.

    Raises:
        ValueError: These bytes are none.

    >>> read_ref(b"\\x0a\\x03web\\x12\\x04prod").namespace
    'prod'
    """
    found, metadata = {1: "", 2: ""}, dict[str, str]()
    if len(data) > MOST_BYTES:
        raise ValueError("the message is too long")
    for number, value in fields(data):
        if number in found and isinstance(value, bytes):
            found[number] = value.decode()
        elif number == 3 and isinstance(value, bytes):
            pair = {1: "", 2: ""}
            for part, text in fields(value):
                if part in pair and isinstance(text, bytes):
                    pair[part] = text.decode()
            metadata[pair[1]] = pair[2]
    return Asked(found[1], found[2], metadata)


def read_metrics_request(data: bytes) -> Asked:
    """Read a ``GetMetricsRequest``.

    Raises:
        ValueError: These bytes are none.
    """
    ref, metric = b"", ""
    for number, value in fields(data):
        if number == 1 and isinstance(value, bytes):
            ref += value  # a message that comes in parts is one message
        elif number == 2 and isinstance(value, bytes):
            metric = value.decode()
    asked = read_ref(ref)
    return Asked(asked.name, asked.namespace, asked.metadata, metric)


def active(is_active: bool) -> bytes:
    """Write an ``IsActiveResponse``."""
    return b"\x08\x01" if is_active else b""


def metric(name: str, value: int) -> bytes:
    """Write a response with one ``MetricSpec`` or one ``MetricValue``: both have the same fields.

    The number goes into the field of older KEDA, a whole one, and into that of newer ones.
    """
    body = _text(1, name)
    if value:
        body += b"\x10" + _varint(value) + b"\x19" + struct.pack("<d", float(value))
    return b"\x0a" + _varint(len(body)) + body


def _text(number: int, text: str) -> bytes:
    data = text.encode()
    return _varint(number << 3 | _BYTES) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    made.append(value)
    return bytes(made)


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field of a message.

    Raises:
        ValueError: These bytes are none.
    """
    at, end = 0, len(data)
    while at < end:
        key, at = _read_varint(data, at)
        number, kind = key >> 3, key & 7
        value: int | bytes
        if not number:
            raise ValueError("a field without a number")
        if kind == _VARINT:
            value, at = _read_varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
            value, at = data[at : at + length], at + length
        elif kind == _BYTES:
            length, at = _read_varint(data, at)
            value, at = data[at : at + length], at + length
        else:
            raise ValueError(f"a field of an unknown kind: {kind}")
        if at > end:
            raise ValueError("the message is cut")
        yield number, value


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("the message is cut")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number that is too long")
