"""The bytes around a value in the second tier.

A fixed head that scripts on the server can read (kind, waiters, lease), the times, the versions of the
tags, and the payload. The same key holds the lease of its loader, so that deleting the key is all it takes
to fence a load that began before.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, Final, NamedTuple

from eventperf._core.objects import allowed

MAGIC: Final = b"E1"
HEAD: Final = 34  # magic 2, kind 1, waiters 1, token 16, lease end 13, codec 1
NO_LEASE: Final = b"0" + b"0" * 16 + b"0" * 13
_TIMES: Final = struct.Struct(">dddfI")
_CHUNK: Final = 1 << 20  # inflated at a time, so that a bomb costs no more than the limit
BODY: Final = HEAD + _TIMES.size

OTHER_TYPE: Final = b"\0another type"
"""What a store returns for a key that holds no bytes at all but, say, a list."""

VALUE = b"V"
LEASE = b"L"
SETTLING = b"T"


class Sealed(NamedTuple):
    """An envelope taken apart; times are wall-clock seconds.

    Attributes:
        codec: The serializer's name; upper case means compressed.
        created: When its load began.
        soft: Until when it is fresh.
        hard: Until when it may be kept.
        load_s: How long its load took.
        tags: Tags with their versions at the load.
        payload: The serialised value.
    """

    codec: str
    created: float
    soft: float
    hard: float
    load_s: float
    tags: dict[str, str]
    payload: bytes


def seal(
    codec: str,
    payload: bytes,
    *,
    created: float,
    soft: float,
    hard: float,
    load_s: float = 0.0,
    tags: dict[str, str] | None = None,
    compress_over: int | None = None,
) -> bytes:
    """Return the envelope of ``payload``."""
    if compress_over is not None and len(payload) > compress_over:
        smaller = zlib.compress(payload, 1)
        if len(smaller) < len(payload):
            codec, payload = codec.upper(), smaller
    record = "\x00".join(f"{t}\x01{v}" for t, v in tags.items()).encode() if tags else b""
    times = _TIMES.pack(created, soft, hard, load_s, len(record))
    return b"".join((MAGIC, VALUE, NO_LEASE, codec.encode(), times, record, payload))


def kind(blob: bytes) -> bytes:
    """Return the kind of an envelope, or ``b""`` for foreign bytes."""
    if blob[:2] != MAGIC or len(blob) < HEAD - 1:
        return b""
    return blob[2:3]


def renewed(blob: bytes, soft: float, hard: float) -> bytes | None:
    """Return the envelope of a value with another life; ``None`` for anything else."""
    if blob[:3] != b"E1V" or len(blob) < BODY:
        return None
    at = HEAD + 8
    return blob[:at] + struct.pack(">dd", soft, hard) + blob[at + 16 :]


def times_of(blob: bytes) -> bytes:
    """Return the bytes of an envelope that tell one value of a key from another."""
    return blob[HEAD : HEAD + 24]


def settling_mark() -> bytes:
    """Return what stands under a key whose loads must not be stored for a while."""
    return MAGIC + b"T0" + b"0" * 29 + b"-"


def unseal(blob: bytes) -> Sealed | None:
    """Take an envelope of a value apart; ``None`` for anything else."""
    if blob[:3] != b"E1V" or len(blob) < BODY:
        return None
    created, soft, hard, load_s, size = _TIMES.unpack_from(blob, HEAD)
    codec = chr(blob[HEAD - 1])
    start = BODY + size
    tags: dict[str, str] = {}
    if size:
        try:
            record = blob[BODY:start].decode()
            tags = dict(part.split("\x01", 1) for part in record.split("\x00"))
        except ValueError:
            return None
    return Sealed(codec, created, soft, hard, load_s, tags, blob[start:])


def open_payload(sealed: Sealed, loads: Any, name: str, limit: int, check: Any = None) -> Any:
    """Return the value of ``sealed``, whose payload may have, or inflate to, ``limit`` bytes.

    Args:
        check: Counts the objects that the bytes would become, where the serializer can.

    Raises:
        ValueError: Another serializer wrote it, it is too large, or the compressed data is damaged.
    """
    payload = sealed.payload
    if sealed.codec.lower() != name:
        raise ValueError(f"written by serializer {sealed.codec!r}")
    if len(payload) > limit:
        raise ValueError(f"{len(payload)} bytes where max_value_bytes is {limit}")
    if sealed.codec != name:
        payload = _inflate(payload, limit)
    if check is not None and len(payload) > (most := allowed(limit)):
        check(payload, most)
    return loads(payload)


def _inflate(data: bytes, limit: int) -> bytes:
    inflater, parts, size = zlib.decompressobj(), [], 0
    try:
        while data and not inflater.eof:
            parts.append(inflater.decompress(data, min(_CHUNK, limit + 1)))
            size, data = size + len(parts[-1]), inflater.unconsumed_tail
            if size > limit:
                raise ValueError(f"inflates to more than max_value_bytes, {limit}")
        parts.append(inflater.flush())
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not inflater.eof:
        raise ValueError("compressed data without its end")
    return b"".join(parts)
