"""Keys chosen to collide are refused, whatever holds them; all others come back as they were."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventperf._core import hashing
from eventperf._core.hashing import CollidingKeys, check_maps, filled
from eventperf.cache.values import serializers
from eventperf.cache.values.instances import Undecodable
from eventperf.cache.values.serializers import MsgpackSerializer
from eventperf.queues.codec import Codec, key_kinds
from eventperf.queues.errors import PayloadError

P = 2**61 - 1
"""Whole numbers that differ by multiples of it have one hash."""
N = 20_000
MSGPACK, CODEC = MsgpackSerializer(), Codec(1 << 22)
PACK, EXT = MSGPACK._pack, MSGPACK._ext
UUIDS = [UUID(int=n * P) for n in range(5_000)]  # comparing these takes longer


def listed(items: list[Any]) -> bytes:
    return b"\xdd" + len(items).to_bytes(4, "big") + b"".join(PACK(MSGPACK._tag(item)) for item in items)


def mapped(keys: list[Any]) -> bytes:
    return (
        b"\xdf" + len(keys).to_bytes(4, "big") + b"".join(PACK(MSGPACK._tag(key)) + b"\x00" for key in keys)
    )


NUMBERS = listed([n * P for n in range(N)])
BLOBS = {
    "set": PACK(EXT(serializers._SET, NUMBERS)),
    "frozenset of UUIDs": PACK(EXT(serializers._FROZENSET, listed(UUIDS))),
    "dict": PACK(EXT(serializers._PAIRS, listed([[n * P, 0] for n in range(N)]))),
    "plain map": mapped(UUIDS),
    "plain map in lists": b"\x92\x07\x91" + mapped(UUIDS),
    "plain map in a map": b"\x82\xa1a\x01\xa1b" + mapped(UUIDS),
    "plain map in a set's extension": PACK(EXT(serializers._TUPLE, b"\x91" + mapped(UUIDS))),
    "behind many rows": b"\xdc\x01\x01" + PACK({"id": 7}) * 256 + mapped(UUIDS),
    "deep down": b"\x91" * 60 + mapped(UUIDS),
}


@pytest.mark.parametrize("blob", BLOBS.values(), ids=BLOBS)
def test_a_value_with_colliding_keys_cannot_be_decoded(blob: bytes) -> None:
    with pytest.raises(Undecodable, match="collide"):
        MSGPACK.loads(blob)


@dataclass
class Ids:
    name: str
    ids: dict[UUID, int]


TEXTS = list(map(str, UUIDS))
JOBS: dict[str, tuple[bytes, Any]] = {
    "set of UUIDs": (b"j" + json.dumps(TEXTS).encode(), set[UUID]),
    "dict of UUIDs": (b"m" + msgspec.msgpack.encode(dict.fromkeys(TEXTS, 0)), dict[UUID, int]),
    "inside of a class": (b"j" + json.dumps({"name": "a", "ids": dict.fromkeys(TEXTS, 0)}).encode(), Ids),
    "in a list": (b"j" + json.dumps([["1"], TEXTS]).encode(), list[frozenset[UUID]]),
    "a map of whatever": (b"m" + b"\xdf" + N.to_bytes(4, "big") + b"".join(
        msgspec.msgpack.encode((k * P, n)) + b"\x00" for k in range(4) for n in range(N // 4)
    ), Any),
}  # fmt: skip


@pytest.mark.parametrize("kind", [kind for kind in JOBS if kind != "a map of whatever"])
def test_a_job_with_colliding_keys_is_refused(kind: str) -> None:
    data, shape = JOBS[kind]
    with pytest.raises(PayloadError, match="collide"):
        CODEC.decode(data, shape)


def test_a_plain_map_of_a_job_is_judged_by_the_time_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    data, shape = JOBS["a map of whatever"]
    assert len(CODEC.decode(data, shape)) == N, "tuples that share no hash"
    monkeypatch.setattr(hashing, "_LEAST_S", -1.0)
    with pytest.raises(PayloadError, match="collide"):
        CODEC.decode(data, shape)


@pytest.mark.parametrize(("late", "is_refused"), [({1}, False), ({1, 3}, True)])
def test_one_slow_moment_is_no_collision(late: set[int], is_refused: bool) -> None:
    """The garbage collector may run while a dict is built; it does not do so twice."""
    calls, now = count(), 0.0

    def clock() -> float:
        nonlocal now
        now += 9.0 if next(calls) in late else 0.001
        return now

    items = list(range(2_000))
    if is_refused:
        with pytest.raises(CollidingKeys, match="2,000"):
            filled(set, items, 6_000, clock)
    else:
        assert filled(set, items, 6_000, clock) == set(items)


def test_large_values_of_every_kind_come_back() -> None:
    for value in (
        {n * 7: str(n) for n in range(50_000)},
        set(range(0, 10**9, 20_000)),
        {uuid4(): n for n in range(5_000)},
        {(n, str(n)): n for n in range(5_000)},
        [{"id": n, "at": 1.5, "tags": {n}, "more": [None, b"x", "y"]} for n in range(2_000)],
        {str(n): {"n": n, "pair": (n, n)} for n in range(2_000)},
        ["x" * 9_000, b"x" * 9_000, {"y" * 9_000: ["z" * 9_000]}, list(range(9_000)), "tail"],
    ):
        assert MSGPACK.loads(MSGPACK.dumps(value)) == value
    wide = {n * 7: str(n) for n in range(50_000)}
    assert CODEC.decode(b"m" + msgspec.msgpack.encode(wide)) == wide
    assert CODEC.decode(CODEC.encode(set(wide)), set[int]) == set(wide)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
KEYS = st.text() | st.integers() | st.tuples(st.integers(), st.text()) | st.uuids() | st.binary()
VALUES = st.recursive(
    LEAVES | st.datetimes() | st.sets(KEYS, max_size=4),
    lambda inner: (
        st.lists(inner, max_size=5) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=150)
@given(VALUES)
def test_what_is_decoded_in_pieces_is_what_was_encoded(value: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serializers, "SHORT", 4)
        patch.setattr(serializers, "_DEPTH", 2)
        found = MSGPACK.loads(MSGPACK.dumps(value))
    assert repr(found) == repr(MSGPACK.loads(MSGPACK.dumps(value)))
    assert found == value


@settings(max_examples=150)
@given(VALUES.map(MSGPACK.dumps), st.integers(0, 10**6), st.binary(max_size=5))
def test_bytes_are_undecodable_in_pieces_as_they_are_in_one(data: bytes, at: int, odd: bytes) -> None:
    at %= len(data)
    data = data[:at] + odd + data[at + len(odd) :]
    found: list[str] = []
    for short in (4, 1 << 20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(serializers, "SHORT", short)
            try:
                found.append(repr(MSGPACK.loads(data)))
            except Undecodable:
                found.append("undecodable")
    assert found[0] == found[1]


@settings(max_examples=60)
@given(st.lists(VALUES, max_size=4), st.lists(VALUES, max_size=4), st.integers(256, 300))
def test_large_maps_are_found_wherever_they_stand(before: list[Any], behind: list[Any], number: int) -> None:
    large = msgspec.msgpack.encode({n: n for n in range(number)})
    parts = [PACK(MSGPACK._tag(value)) for value in before], [PACK(MSGPACK._tag(value)) for value in behind]
    filler = [bytes(n) for n in (0xDE, 0xDF)] + [0xDEFF, 0xDFDFDFDF, 1.5, -1e300, "ߞ" * 40, "߿" * 40]
    front = b"".join(parts[0]) + PACK(filler)
    data = b"\xdc%b" % (len(parts[0]) + len(parts[1]) + 2).to_bytes(2, "big")
    at = len(data) + len(front)
    data += front + large + b"".join(parts[1])
    assert list(hashing._large_maps(data, serializers._OPAQUE)) == [at]
    keys, end = hashing._keys(data, at)
    assert (len(keys), end) == (number, at + len(large))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "SHORT", 4)
        check_maps(data, MSGPACK._unpack, opaque=serializers._OPAQUE)


def test_the_keys_of_an_annotation_are_found() -> None:
    assert key_kinds(dict[str, set[bytes]]) == []
    assert key_kinds(Ids) == [UUID]
    assert key_kinds(list[dict[int, tuple[frozenset[float], ...]]] | None) == [int, float]
    assert key_kinds(set) == [Any]
