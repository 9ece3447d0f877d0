"""Keys: what is equal shares one, what differs never does."""

from __future__ import annotations

import collections
import dataclasses
import enum
import string
import sys
import types
from collections.abc import Hashable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventperf._core.errors import ConfigurationError
from eventperf.cache.keys import MAX_KEY, Space, Template, Unstable, encode, fit, fit_tag


class Color(enum.Enum):
    RED = "red"
    BLUE = 1


class Size(enum.Enum):
    RED = "red"


class Word(str, enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    ONE = 1


class Perm(enum.Flag):
    READ = 1
    WRITE = 2
    ADMIN = 4


class Day(date, enum.Enum):
    FIRST = (2026, 1, 2)


class Name(str):
    """A text of a kind of its own, equal to any other."""


class Count(int):
    """The same of a number."""


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclasses.dataclass(frozen=True)
class Filter:
    name: Any
    limit: Any = 10
    note: Any = dataclasses.field(default="", compare=False)


@dataclasses.dataclass(frozen=True)
class Other:
    name: Any
    limit: Any = 10


def twin_of(kind: type, module: str) -> type:
    """Return a class of the same name and fields that another module has."""
    home = sys.modules.setdefault(module, types.ModuleType(module))
    twin = dataclasses.make_dataclass(kind.__name__, ["name", "limit"], frozen=True)
    twin.__module__, twin.__qualname__ = module, kind.__qualname__
    setattr(home, kind.__name__, twin)
    return twin


Twin: Any = twin_of(Filter, "eventperf_test_other_module")

numbers = st.one_of(
    st.integers(-5, 5), st.booleans(), st.integers(), st.sampled_from([10**40, -(10**40)]),
    st.floats(allow_nan=False), st.sampled_from([-0.0, 1.0, 0.5, 1e300, float("inf"), 0.1]),
    st.decimals(allow_nan=False, allow_infinity=False, places=3), st.decimals(allow_nan=False),
    st.sampled_from([Decimal("1.10"), Decimal("1.1"), Decimal("0.5"), Decimal("1e30"), Decimal("Infinity")]),
    st.complex_numbers(allow_nan=False, max_magnitude=3), st.sampled_from([complex(1, 0), complex(-0.0, 2)]),
    st.sampled_from([Count(3), Level.ONE]),
)  # fmt: skip
texts = st.one_of(
    st.text(),
    st.sampled_from(["", "~", "1", "'1", "red", "%20", " 03", "\u2003", "\ud800", "%D800", "None"]),
    st.text(string.printable, max_size=4), st.sampled_from([Name("red"), Word.RED]),
)  # fmt: skip
zones = st.sampled_from(
    [None, timezone.utc, timezone(timedelta(hours=9)), timezone(timedelta(minutes=-90, seconds=7))]
)
moments = st.one_of(
    st.dates(), st.datetimes(timezones=zones), st.times(), st.times(timezones=zones), st.timedeltas(),
    st.sampled_from([date(2026, 1, 2), datetime(2026, 1, 2), datetime.min, time(), timedelta(1)]),
    st.sampled_from([datetime(2026, 1, 2, 9, tzinfo=ZoneInfo("Asia/Seoul")),
                     datetime(2026, 1, 2, 0, tzinfo=timezone.utc)]),
)  # fmt: skip
plain: st.SearchStrategy[Any] = st.one_of(
    st.none(), numbers, texts, st.binary(max_size=3), moments, st.uuids(),
    st.sampled_from([Color.RED, Color.BLUE, Size.RED, Perm(0), Perm.READ, Perm.READ | Perm.WRITE]),
    st.sampled_from([Perm.READ | Perm.ADMIN, int, str, Filter, Twin, Color, bytearray(b"a"), b"a"]),
)  # fmt: skip


def grouped(inside: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    hashable = inside.filter(lambda v: isinstance(v, Hashable) and not _is_deep(v))
    return st.one_of(
        st.lists(inside, max_size=3), st.lists(inside, max_size=3).map(tuple),
        st.dictionaries(hashable, inside, max_size=2), st.sets(hashable, max_size=3),
        st.frozensets(hashable, max_size=2), st.builds(Pair, inside, inside),
        *(st.builds(kind, inside, inside) for kind in (Filter, Other, Twin)),
    )  # fmt: skip


def _is_deep(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return True
    return False


arguments = st.recursive(plain, grouped, max_leaves=5)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@given(arguments, arguments)
@settings(max_examples=600, deadline=None)
def test_two_arguments_have_the_same_text_if_and_only_if_they_are_equal(one, other):
    try:
        texts = encode(one), encode(other)
    except Unstable:
        return
    assert (texts[0] == texts[1]) == (one == other), (one, other, texts)


@given(plain, plain)
@settings(max_examples=600, deadline=None)
def test_plain_arguments_have_the_same_text_if_and_only_if_they_are_equal(one, other):
    assert (encode(one) == encode(other)) == (one == other), (one, other)


@pytest.mark.parametrize("between", [":", "-", "/", "x", " and ", ",", "|"])
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_two_calls_have_the_same_key_of_a_template_if_and_only_if_their_arguments_are_equal(between, data):
    """Fields side by side, and with what separates them inside: ``("a-b", "c")`` is not ``("a", "b-c")``."""
    template = Template(f"page:{{a}}{between}{{b}}", strict=True)
    words = st.one_of(plain, st.sampled_from(["a", f"a{between}", f"a{between}b", between, -1, "-1", "1"]))
    one, other = (data.draw(st.tuples(words, words)) for _ in range(2))
    keys = [template.render({"a": a, "b": b}) for a, b in (one, other)]
    assert (keys[0] == keys[1]) == (one == other), (one, other, keys)


@pytest.mark.parametrize("text", ["{a}{b}", "{a}7{b}", "{a}A{b}", "{a}%{b}", "{a}~{b}"])
def test_a_template_whose_fields_cannot_be_told_apart_is_refused(text):
    with pytest.raises(ConfigurationError, match=r"separator between them, such as \{a\}:\{b\}"):
        Template(text, strict=True)


def test_readable_templates_stay_readable():
    template = Template("event:{event_id}:{lang}", strict=True)
    assert template.render({"event_id": 42, "lang": "ko"}) == "event:42:ko"
    assert template.render({"event_id": "42", "lang": None}) == "event:'42:~"
    tag = Template("event:{event_id}")
    assert tag.render({"event_id": 42}) == tag.render({"event_id": "42"}) == "event:42"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Decimal("1.1"), Decimal("1.10")), (Decimal("0.5"), 0.5), (Decimal("1E+2"), 100),
        (Fraction(1, 2), 0.5), (Decimal(10**3999), 10**3999),
        (True, 1), (b"a", bytearray(b"a")), ({1: 2, 3: 4}, {3: 4, 1: 2}), ({1, 2}, frozenset({2, 1})),
        (Name("red"), "red"), (Word.RED, "red"), (Level.ONE, 1), (Pair(1, 2), (1, 2)),
        (collections.defaultdict(int, a=1), {"a": 1}), (collections.Counter("a"), {"a": 1}),
        (time(12, tzinfo=timezone(timedelta(hours=1))), time(11, tzinfo=timezone.utc)),
        (Filter("a", note="x"), Filter("a", note="y")),
    ],
)  # fmt: skip
def test_equal_arguments_share_their_text(one, other):
    assert one == other
    assert encode(one) == encode(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, set()), (timedelta(days=999_999), timedelta(days=999_999, microseconds=1)),
        (Perm.READ | Perm.WRITE, Perm.READ | Perm.ADMIN), (Color.RED, "red"), (Color.RED, Size.RED),
        (collections.OrderedDict(a=1, b=2), collections.OrderedDict(b=2, a=1)),
        (datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin")),
         datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin"))),
    ],
)  # fmt: skip
def test_different_arguments_have_different_texts(one, other):
    assert encode(one) != encode(other)


def test_numbers_and_texts_of_numpy_count_as_what_they_equal():
    numpy = pytest.importorskip("numpy")
    assert encode(numpy.int64(7)) == "7"
    assert encode(numpy.float32(0.1)) == encode(float(numpy.float32(0.1)))
    assert encode(numpy.str_("a")) == "'a"
    for odd in (numpy.array([1]), numpy.datetime64("2026-01-01", "ns")):
        with pytest.raises(Unstable):
            encode(odd)


class Money(float):
    """Equal only with the same currency, which the number does not show."""

    def __new__(cls, value, currency):
        made = super().__new__(cls, value)
        made.currency = currency
        return made

    def __eq__(self, other):
        return isinstance(other, Money) and float(self) == float(other) and self.currency == other.currency

    __hash__ = float.__hash__


class Query(dict):
    """Several values to a key, of which the items show one: as the queries of web frameworks are."""

    def items(self):
        return ((key, values[-1]) for key, values in super().items())


@dataclasses.dataclass(frozen=True)
class Nick:
    """Equal by more, or by less, than its fields."""

    name: str

    def __eq__(self, other):
        return isinstance(other, Nick) and self.name.lower() == other.name.lower()

    def __hash__(self):
        return hash(self.name.lower())


class Mood(enum.Enum):
    GOOD = 1
    FINE = 2

    def __eq__(self, other):
        return isinstance(other, Mood)

    __hash__ = None


class Alike(type):
    def __eq__(cls, other):
        return isinstance(other, Alike)

    __hash__ = type.__hash__


class Knot(list):
    pass


def test_kinds_that_hide_what_they_are_equal_by_have_no_text():
    knot = Knot()
    knot.append(knot)
    for odd in (
        Money(1, "EUR"),
        Query(a=["1", "2"]),
        object(),
        Decimal("1e999999"),
        (x for x in ()),
        knot,
        Nick("a"),
        Mood.GOOD,
        Alike("A", (), {}),
    ):
        with pytest.raises((Unstable, RecursionError)):
            encode(odd)


@given(st.text(st.characters() | st.sampled_from("\x00\x01\x02\ud800\udfff"), max_size=600), st.data())
@settings(max_examples=300, deadline=None)
def test_odd_keys_fit_and_stay_apart(key, data):
    other = data.draw(
        st.sampled_from([key + "\x00", key + "\ud800", key.replace("\x00", "%00"), fit(key)[:-1]])
    )
    space = Space("shop")
    assert len(space.local(key)) <= MAX_KEY
    space.local(key).encode()
    if other != key:
        assert space.local(other) != space.local(key)


def test_no_key_of_one_namespace_is_one_of_another():
    home, tenant = Space("shop"), Space("tenant", home=False)
    assert home.local("\x00tenant:secret") != tenant.local("secret")
    assert not tenant.local("a").startswith("\x00tenant:")  # cannot be guessed


def test_tags_hold_nothing_that_separates_them():
    assert fit_tag("event:42") == "event:42"
    odd = {fit_tag(t) for t in ("a\x00", "a%00", "a\x01", "a\ud800", "a" * 600, "a" * 601)}
    assert len(odd) == 6
    assert not any(c in tag for tag in odd for c in "\x00\x01")


def test_a_class_that_its_name_does_not_lead_to_is_known_to_this_process_only():
    def make():
        @dataclasses.dataclass(frozen=True)
        class Local:
            n: int

        return Local

    one, other = make(), make()
    assert encode(one(1)) == encode(one(1)) != encode(other(1))
    assert "#" in encode(one(1))
    assert "#" not in encode("#") + encode(Filter("#")) + encode(UUID(int=1))
