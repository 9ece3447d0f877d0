"""What comes back from the second tier is what was stored; what could not come back is not stored."""

from __future__ import annotations

import collections
import dataclasses
import enum
import math
from datetime import datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventperf.cache import PickleSerializer, SerializationError
from eventperf.cache.values.envelope import seal, unseal
from eventperf.cache.values.instances import Undecodable
from eventperf.cache.values.serializers import MsgpackSerializer
from eventperf.errors import ConfigurationError


class Perm(enum.Flag):
    READ = 1
    WRITE = 2


class Mask(enum.IntFlag):
    A = 1
    B = 2


@dataclasses.dataclass
class Order:
    lines: list[int]

    def __post_init__(self):
        self.total = sum(self.lines)
        self._note = {"seen": (1, 2)}


class Base:
    __slots__ = ("__hidden", "plain")


@dataclasses.dataclass
class Slotted(Base):
    name: str

    def mark(self, value):
        self.plain = value
        self.__hidden = value
        self._Base__hidden = value
        return self


class Row(NamedTuple("Row", [("a", int)])):
    """A named tuple that takes attributes."""


@dataclasses.dataclass
class Late:
    name: str
    made: str = dataclasses.field(init=False)


class Ticket(msgspec.Struct):
    seat: int
    extras: list[str] = []


class Bag(msgspec.Struct, frozen=True, array_like=True, dict=True, rename="camel"):
    seat_no: int


class Checked(msgspec.Struct):
    seat: int

    def __post_init__(self) -> None:
        self.seat += 1


@dataclasses.dataclass
class Mapped(dict[str, int]):
    tag: str = "x"


@dataclasses.dataclass
class Listed(list[int]):
    tag: str = "x"


@dataclasses.dataclass
class Failed(Exception):
    code: int = 1


@dataclasses.dataclass
class Counted(int):
    tag: str = "x"


codec = MsgpackSerializer()


def bag() -> Bag:
    made = Bag(1)
    made.__dict__["note"] = "kept"
    return made


def state(value: Any) -> Any:
    return {
        **getattr(value, "__dict__", {}),
        **{n: getattr(value, n, None) for n in ("plain", "_Base__hidden")},
    }


def row() -> Row:
    made = Row(1)
    made.note = "kept"  # type: ignore[attr-defined]
    return made


WHOLE = [
    Order([1, 2]), Slotted("a").mark((1,)), row(), Perm.READ | Perm.WRITE, Perm(0), Mask.A | Mask.B, Mask(8),
    10**5000, -(2**63) - 1, 2**64, datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=9), "KST")),
    Ticket(1, ["b"]), [Ticket(2)], bag(),
    time(1, tzinfo=timezone(timedelta(0), "GMT")), {"a": (1, {2: Decimal("1.10")})}, {(1, "a"): b""},
]  # fmt: skip


@pytest.mark.parametrize("value", WHOLE, ids=range(len(WHOLE)))
def test_a_value_comes_back_with_everything_it_had(value):
    back = codec.loads(codec.dumps(value))
    assert type(back) is type(value)
    assert back == value
    assert state(back) == state(value)
    if isinstance(value, (datetime, time)):
        assert back.tzname() == value.tzname()


class Subclassed(dict[str, int]):
    pass


Made = collections.namedtuple("Elsewhere", "a")  # its name leads nowhere


REFUSED = [
    Made(1), collections.namedtuple("Row", "a b")(1, 2), Late("a"), "\ud800", {"\ud800": 1}, ["a\udfff"],
    type("Order", (Order,), {})([1]), Subclassed(), collections.OrderedDict(), object(), lambda: 1,
    range(3), Mapped(), Listed(), Failed(3), Counted(), Checked(1),
]  # fmt: skip


@pytest.mark.parametrize("value", REFUSED, ids=range(len(REFUSED)))
def test_what_would_not_come_back_as_it_was_is_refused_when_it_is_written(value):
    with pytest.raises(SerializationError, match=r"cannot store a .*serializer"):
        codec.dumps([value])


class Refuses:
    def __reduce__(self):
        raise ZeroDivisionError("mine")


def test_pickle_refuses_in_words_whatever_an_object_raises():
    with pytest.raises(SerializationError, match=r"Refuses .*mine"):
        PickleSerializer().dumps(Refuses())


leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(),
    st.decimals(allow_nan=False),
    st.datetimes(timezones=st.just(timezone.utc)), st.timedeltas(), st.sampled_from(list(Perm)), st.uuids(),
    st.builds(Order, st.lists(st.integers(0, 9), max_size=3)), st.builds(Ticket, st.integers()),
    st.sampled_from([Mapped, Listed, Failed, Counted]).map(lambda kind: kind()),
)  # fmt: skip


def groups(inner: Any) -> Any:
    return st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner)


@given(st.recursive(leaves, groups))
@settings(max_examples=200, deadline=None)
def test_every_value_comes_back_or_is_refused_in_words(value):
    try:
        data = codec.dumps(value)
    except SerializationError:
        return
    assert codec.loads(data) == value


def test_tags_of_any_number_and_length_are_kept_beside_a_value():
    tags = {f"{n}:{'x' * 400}": "v" * 16 for n in range(1_000)}
    blob = seal("m", b"value", created=0.0, soft=1.0, hard=math.inf, tags=tags)
    sealed = unseal(blob)
    assert sealed is not None
    assert (sealed.tags, sealed.payload) == (tags, b"value")


@pytest.mark.parametrize(
    "secret", [b"", b"fifteen bytes !", "a text of more than 16", None, 5, [], bytearray()]
)
def test_a_secret_that_protects_nothing_is_refused_and_not_shown(secret):
    with pytest.raises(ConfigurationError, match="secret") as caught:
        PickleSerializer(secret=secret)
    assert "at least 16 bytes" in caught.value.allowed
    assert "fifteen" not in str(caught.value)
    assert "text of" not in str(caught.value)


def test_a_signed_pickle_is_for_one_key():
    ours = PickleSerializer(secret=b"0123456789abcdef")
    data = ours.dumps_for("admin", "role:alice")
    assert ours.loads_for(data, "role:alice") == "admin"
    for other in ("role:bob", "", "role:alic", "1:role:alice"):
        with pytest.raises(Undecodable, match="signature"):
            ours.loads_for(data, other)
    with pytest.raises(Undecodable, match="signature"):
        ours.loads(data)


def test_what_pickle_cannot_keep_is_not_answered_with_unsigned_pickles():
    with pytest.raises(SerializationError) as caught:
        PickleSerializer(secret=b"0123456789abcdef").dumps(lambda: 1)
    assert 'serializer="pickle"' not in str(caught.value)
