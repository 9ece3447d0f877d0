"""Bytes from outside become no more objects than their bound allows, and what is over it is never made."""

from __future__ import annotations

import json
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventperf._core import objects
from eventperf._core.objects import LEAST, TooManyObjects, allowed, check_json, check_msgpack, read_json
from eventperf.cache.errors import ValueTooLarge
from eventperf.cache.values.envelope import open_payload, seal, unseal
from eventperf.cache.values.instances import Undecodable
from eventperf.cache.values.serializers import MsgpackSerializer
from eventperf.queues.backends.arq.wire import loads as arq_loads
from eventperf.queues.codec import Codec
from eventperf.queues.errors import PayloadError

MSGPACK = MsgpackSerializer()
LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
PLAIN = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=15)
TAGGED = st.recursive(
    LEAVES | st.binary() | st.integers() | st.decimals(allow_nan=False) | st.datetimes() | st.uuids(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.integers(), inner),
    max_leaves=10,
)


def count(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(count(key) + count(one) for key, one in value.items())
    return 1 + sum(map(count, value)) if isinstance(value, (list, tuple)) else 1


@settings(max_examples=60)
@given(PLAIN)
def test_msgpack_is_counted_to_the_object(value: Any) -> None:
    data, number = msgspec.msgpack.encode(value), count(value)
    check_msgpack(data, number)
    if number > 1:
        with pytest.raises(TooManyObjects):
            check_msgpack(data, number - 1)


@settings(max_examples=60)
@given(TAGGED | st.binary(max_size=300).map(lambda b: [b, "ü" * len(b)]))
def test_what_extensions_hold_is_counted_with_them(value: Any) -> None:
    data = MSGPACK.dumps(value)
    if count(value) > 1:
        with pytest.raises(TooManyObjects):
            MSGPACK.check_objects(data, count(value) - 1)
    MSGPACK.check_objects(data, 6 * count(value))


@st.composite
def mixed(draw: st.DrawFn) -> bytes:
    """Draw msgpack whose extensions hold msgpack, or heads that point far beyond their end."""
    insides = [b"\x90", b"\xc0", b"\xdb\xff\xff\xff", b"\xdc\x00\x02\x90\x90", b"\xc6"]
    parts = []
    for _ in range(draw(st.integers(0, 12))):
        inside = draw(st.sampled_from(insides))
        code = draw(st.sampled_from([1, 2, 10, 14, 15, 77, 0xFF]))
        wrapped = b"\xc7" + bytes([len(inside), code]) + inside
        fixed = b"\xd6" + bytes([code]) + inside[:1] * 4
        parts.append(draw(st.sampled_from([inside, wrapped, fixed, b"\x07", b"\xa2ab", b"\xc4\x01x"])))
    return b"\xdc" + len(parts).to_bytes(2, "big") + b"".join(parts)


@settings(max_examples=150)
@given(st.binary(max_size=60) | mixed(), st.integers(0, 40), st.booleans())
def test_bytes_that_pass_become_no_more_objects(data: bytes, most: int, of_the_cache: bool) -> None:
    check: Any = MSGPACK.check_objects if of_the_cache else check_msgpack
    loads: Any = MSGPACK.loads if of_the_cache else msgspec.msgpack.decode
    try:
        check(data, most)
    except TooManyObjects:
        return
    with suppress(msgspec.MsgspecError, RecursionError, ValueError, TypeError, Undecodable):
        assert count(loads(data)) <= most


@settings(max_examples=60)
@given(PLAIN, st.booleans())
def test_json_is_counted_from_above_and_texts_are_not(value: Any, indented: bool) -> None:
    data = json.dumps(value, indent=2 if indented else None, ensure_ascii=indented).encode()
    if count(value) > 1:
        with pytest.raises(TooManyObjects):
            check_json(data, count(value) - 1)
    check_json(data, 2 * count(value))
    check_json(json.dumps([data.decode(), '\\",[{:' * 40]).encode(), 3)


@pytest.mark.parametrize("text", ['"', '\\"', ',\\"', '"[,', '\\\\"', '["\\', ',""'])
def test_texts_that_do_not_end_are_counted_in_linear_time(text: str) -> None:
    def cost(times: int) -> float:
        started = time.process_time()
        with suppress(TooManyObjects):
            check_json(b'["' + text.encode() * times, 1 << 18)
        return time.process_time() - started

    assert cost(200_000) < 5.0 + 40 * cost(50_000), "quadratic would take minutes"


FEW = 1 << 14
N = 4 * FEW
HOSTILE: dict[str, bytes] = {
    "empty lists": b"\xdd" + N.to_bytes(4, "big") + b"\x90" * N,
    "empty dicts": b"\xdd" + N.to_bytes(4, "big") + b"\x80" * N,
    "dicts of one": b"\xdd" + (N // 3).to_bytes(4, "big") + b"\x81\xa0\xc0" * (N // 3),
    "small numbers": b"\xdd" + N.to_bytes(4, "big") + b"\xe0" * N,
    "tuples": b"\xdd" + (N // 3).to_bytes(4, "big") + b"\xd4\x01\x90" * (N // 3),
    "tuples in one": b"\xc9" + (N + 5).to_bytes(4, "big") + b"\x01\xdd" + N.to_bytes(4, "big") + b"\x90" * N,
    "a claim": b"\xdd\xff\xff\xff\xff" + b"\x90" * N,
    "pairs": b"\xdf" + (N // 2).to_bytes(4, "big") + b"\xa0\x90" * (N // 2),
    "deep": b"\x91" * N + b"\xc0",
}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A smaller least, as tracing memory is slow."""
    monkeypatch.setattr(objects, "LEAST", FEW)


PAYLOADS = [
    *(kind for kind in HOSTILE if kind != "tuples in one"),
    "json lists",
    "json dicts",
    "json numbers",
]


def peak(read: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_entry_of_the_cache_is_refused_before_it_is_made(kind: str) -> None:
    sealed = unseal(seal("M", zlib.compress(HOSTILE[kind], 1), created=0, soft=1, hard=1))
    assert sealed is not None
    assert len(sealed.payload) < 3000

    def read() -> None:
        with pytest.raises(ValueError, match="more than 16,384 objects"):
            open_payload(sealed, MSGPACK.loads, "m", 2 * N, MSGPACK.check_objects)

    assert peak(read) < 4 * N + 60_000, "in parts and as a whole; objects would be 60 times as much"


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    "kind",
    PAYLOADS,
)
@pytest.mark.parametrize("shape", [Any, list[list[int]], dict[str, list[int]]], ids=str)
def test_a_hostile_payload_of_a_queue_is_refused_before_it_is_made(kind: str, shape: Any) -> None:
    part = {"json lists": b"[],", "json dicts": b"{},", "json numbers": b"-9,"}.get(kind)
    data = b"m" + HOSTILE[kind] if part is None else b"j[" + part * (N // 3) + part[:-1] + b"]"

    def read() -> None:
        with pytest.raises(PayloadError, match="more than 16,384 objects"):
            Codec(FEW).decode(data, shape)

    assert peak(read) < 4 * N + 60_000


def test_payloads_have_a_largest_size_whoever_wrote_them() -> None:
    with pytest.raises(PayloadError, match="more than 67,108,864 bytes"):
        Codec(1000).decode(b"m\xc6" + (65 << 20).to_bytes(4, "big") + bytes(65 << 20))
    large = "x" * 2_000_000
    assert Codec(1000).decode(Codec(3_000_000).encode(large)) == large, "another's limit may be larger"


@dataclass
class Row:
    id: int
    name: str
    price: float
    at: datetime


ORDINARY: dict[str, Any] = {
    "a megabyte of numbers": list(range(350_000)),
    "a megabyte of small numbers": [7, -3] * 500_000,
    "rows": [{"id": i, "name": f"name {i}", "price": i * 1.5, "ok": True} for i in range(100_000)],
    "a text": "[{:," * 3_000_000,
    "bytes": b"\x90" * 12_000_000,
}


@pytest.mark.parametrize("kind", ORDINARY)
def test_ordinary_values_pass_with_the_limits_that_nobody_set(kind: str) -> None:
    value = ORDINARY[kind]
    data = MSGPACK.dumps(value)
    sealed = unseal(seal("m", data, created=0, soft=1, hard=1))
    assert sealed is not None
    assert open_payload(sealed, MSGPACK.loads, "m", 64 << 20, MSGPACK.check_objects) == value
    if kind not in ("bytes", "rows"):
        codec = Codec(len(data) + 10)
        assert codec.decode(codec.encode(value)) == value
        assert codec.decode(b"j" + json.dumps(value).encode()) == value


def test_what_is_refused_when_it_is_read_is_refused_when_it_is_written() -> None:
    many: list[Any] = [[]] * (LEAST + 1)
    with pytest.raises(PayloadError, match="more than 1,048,576 objects"):
        Codec(4 << 20).encode(many)
    error = ValueTooLarge("list", LEAST + 6, 4 << 20, LEAST)
    assert "1,048,576 objects that max_value_bytes=4194304 allows" in str(error)


def test_the_bound_follows_the_bytes_that_are_allowed() -> None:
    assert allowed(1) == allowed(8 << 20) == LEAST
    rows = [Row(i, str(i), 1.5, datetime.now(timezone.utc)) for i in range(1000)]
    data = MSGPACK.dumps([rows, [Decimal(i) for i in range(1000)]])
    check_msgpack(data, 20_000)
    assert sys.getsizeof([]) + 8 <= 80, "what SECURITY.md says that an object costs at most"


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("read", [read_json, arq_loads])
def test_facts_beside_a_payload_are_bounded_too(read: Callable[[bytes], Any]) -> None:
    data = b'{"a":[' + b"{}," * FEW + b"{}]}"

    def refused() -> None:
        with pytest.raises(TooManyObjects):
            read(data)

    assert peak(refused) < 4 * N + 60_000
    assert read(b'{"a":"' + b"," * 2 * FEW + b'"}') == {"a": "," * 2 * FEW}
