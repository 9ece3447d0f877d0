"""The text of an argument inside a key: equal arguments have the same, different ones never.

"Equal" is Python's own word for it, as in ``lru_cache``: 1, ``True``, ``1.0`` and ``Decimal("1.00")`` are one
argument, and so are two ``datetime`` of one moment in two zones; ``"1"`` and 1 are not, nor ``(1,)`` and
``[1]``. What has no text that every process would agree on raises :class:`Unstable`.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import field, fields, make_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from functools import lru_cache
from numbers import Integral, Rational
from typing import Any, Final
from uuid import UUID

from .names import class_text, quote

DIGITS_MAX: Final = 4_000
"""Longest whole number, in digits, that a ``Decimal`` is written out as."""
_SHORT: Final = 1 << 1000  # longer numbers in hexadecimal: Python limits the decimal digits of a text
_WHOLE: Final = re.compile(r"-?[0-9]+")
_TAKEN: Final = ("'", "~")


class Unstable(TypeError):
    """An object without stable text; the caller turns it into an error that names the argument."""

    def __init__(self, type_name: str, argument: str = "") -> None:
        super().__init__(type_name)
        self.argument = argument


def encode(value: Any) -> str:
    """Return the text of an argument inside a key.

    Raises:
        Unstable: The value has no text that every process would agree on.

    >>> encode(42), encode("42"), encode((1, "a b")), encode(None)
    ('42', "'42", "(1,'a%20b)", '~')
    """
    kind = type(value)
    if kind is str:
        return "'" + quote(value)
    if kind is int and -_SHORT < value < _SHORT:
        return str(value)
    if value is None:
        return "~"
    if isinstance(value, Enum) and kind._member_type_ is object and is_plain(kind, object):
        return _encode_member(value)
    for base, text in _TEXTS:
        if isinstance(value, base):
            if is_plain(kind, base):
                return text(value)
            break
    return _encode_other(value, kind)


def is_plain(kind: type, base: type) -> bool:
    """Tell whether objects of ``kind`` are equal, and are read, as those of its ``base`` are."""
    return kind is base or all(getattr(kind, n) is getattr(base, n) for n in _ACCESS if hasattr(base, n))


_ACCESS: Final = ("__eq__", "__iter__", "__getitem__", "items")


def _encode_member(value: Enum) -> str:
    # Python 3.10 has no name for a combination of flags, later ones have one for some.
    if isinstance(value, Flag) or value.name is None:
        return f"{class_text(type(value))}.{encode(value.value)}"
    return f"{class_text(type(value))}.{quote(value.name)}"


def _encode_other(value: Any, kind: type) -> str:
    if kind is OrderedDict:
        return "{o" + ",".join(f"{encode(k)}={encode(v)}" for k, v in value.items()) + "=}"
    if kind is Counter:
        return _mapping({k: n for k, n in value.items() if n})
    if isinstance(value, type) and is_plain(kind, type):
        return class_text(value)
    params = getattr(kind, "__dataclass_params__", None)
    if params is not None and params.frozen and params.eq:
        if not _goes_by_fields(kind):
            raise Unstable(f"{kind.__name__} with an __eq__ of its own")
        parts = [f"{f.name}={encode(getattr(value, f.name))}" for f in fields(value) if f.compare]
        return f"{class_text(kind)}({','.join(parts)})"
    if kind.__module__ == "numpy" and getattr(getattr(value, "dtype", None), "kind", "") in "biufcSU":
        plain = value.item() if getattr(value, "ndim", 1) == 0 else None
        if type(plain) in _SCALARS:
            return encode(plain)
    elif isinstance(value, Rational) and not isinstance(value, Integral):
        return _fraction(value)
    raise Unstable(kind.__name__)


@lru_cache(maxsize=1024)
def _goes_by_fields(kind: Any) -> bool:
    """Tell whether objects of a dataclass are equal by their fields: ``dataclass`` wrote its ``__eq__``."""
    alike = make_dataclass("Alike", [(f.name, Any, field(compare=f.compare)) for f in fields(kind)])
    code, written = getattr(kind.__eq__, "__code__", None), alike.__eq__.__code__
    return code is not None and (code.co_code, code.co_names, code.co_consts) == (
        written.co_code, written.co_names, written.co_consts
    )  # fmt: skip


# -- numbers -----------------------------------------------------------------------------------------


def _whole(value: int) -> str:
    value = int.__pos__(value)
    return str(value) if -_SHORT < value < _SHORT else f"x{value:x}"


def _real(value: float) -> str:
    value = float.__pos__(value)
    if value != value or value in (float("inf"), float("-inf")):
        return f"f{value}"
    return _whole(int(value)) if value.is_integer() else f"f{value!r}"


def _decimal(value: Decimal) -> str:
    if value.is_nan():
        return "D" + Decimal.__str__(value).lower()
    if value.is_infinite():
        return _real(float(value))
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits)).rstrip("0")
    if not text:
        return "0"
    exponent += len(digits) - len(text)
    if exponent >= 0:
        if value.adjusted() > DIGITS_MAX:
            raise Unstable(f"Decimal of over {DIGITS_MAX} digits")
        return _whole(int(value))
    if value == (near := float(value)):
        return _real(near)
    return f"D{'-' if sign else ''}{text.lstrip('0')}e{exponent}"


def _fraction(value: Rational) -> str:
    over, under = int(value.numerator), int(value.denominator)
    if under == 1:
        return _whole(over)
    if under & (under - 1) == 0 and abs(over) < 1 << 53 and under < _SHORT:
        return _real(over / under)  # a power of two below the line: a float is exactly that
    return f"q{_whole(over)}/{_whole(under)}"


def _complex(value: complex) -> str:
    if value.imag == 0:
        return _real(value.real)
    return f"c{value.real + 0.0!r};{value.imag!r}"  # + 0.0: minus zero is zero


# -- moments -----------------------------------------------------------------------------------------


def _moment(value: datetime) -> str:
    offset = value.utcoffset()
    local = datetime.replace(value, tzinfo=None, fold=0)
    if offset is None:
        return "d" + quote(datetime.isoformat(local))
    try:
        return "d" + quote(datetime.isoformat(local - offset)) + "Z"
    except OverflowError:  # the first and the last day there are
        return f"d{quote(datetime.isoformat(local))}Z{_span(offset)}"


def _clock(value: time) -> str:
    offset = value.utcoffset()
    if offset is None:
        return "t" + quote(time.isoformat(time.replace(value, tzinfo=None, fold=0)))
    since = timedelta(
        hours=value.hour, minutes=value.minute, seconds=value.second, microseconds=value.microsecond
    )
    return f"t{_span(since - offset)}Z"


def _span(value: timedelta) -> str:
    return f"p{value.days}.{value.seconds}.{value.microseconds}"


# -- groups ------------------------------------------------------------------------------------------


def _mapping(value: Any) -> str:
    # "=" also in the empty one: a mapping is never taken for a set.
    return "{" + ",".join(sorted(f"{encode(k)}={encode(v)}" for k, v in dict.items(value))) + "=}"


def _set(value: Any) -> str:
    return "{" + ",".join(sorted(map(encode, value))) + "}"


_TEXTS: Final[tuple[tuple[type, Callable[[Any], str]], ...]] = (
    (str, lambda v: "'" + quote(str.__str__(v))),
    (int, _whole),
    (float, _real),
    (Decimal, _decimal),
    (complex, _complex),
    (bytes, lambda v: "b" + bytes.hex(v)),
    (bytearray, lambda v: "b" + bytearray.hex(v)),
    (UUID, lambda v: f"u{v.hex}"),
    (datetime, _moment),
    (date, lambda v: "d" + date.isoformat(v)),
    (time, _clock),
    (timedelta, _span),
    (tuple, lambda v: "(" + ",".join(map(encode, v)) + ")"),
    (list, lambda v: "[" + ",".join(map(encode, v)) + "]"),
    (dict, _mapping),
    (frozenset, _set),
    (set, _set),
)
_SCALARS: Final = frozenset({bool, int, float, complex, str, bytes})


def is_fixed(value: Any) -> bool:
    """Tell whether nothing inside ``value`` can change."""
    if isinstance(value, (list, dict, set, bytearray)):
        return False
    if isinstance(value, (tuple, frozenset)):
        return all(map(is_fixed, value))
    if hasattr(type(value), "__dataclass_fields__") and not isinstance(value, type):
        return all(is_fixed(getattr(value, f.name)) for f in fields(value))
    return True


# -- inside templates --------------------------------------------------------------------------------


def field_text(value: Any, *, strict: bool) -> str:
    """Return the text of an argument in a template such as ``"event:{event_id}"``.

    Plain text and whole numbers stay readable; what separates or matches in a pattern is percent-encoded, so
    that ``"a:b"`` in one field never looks like two fields. Everything else begins with ``~``.

    Args:
        value: The argument.
        strict: A text that could be taken for something else gets a ``'`` in front (keys); without, the text
            "42" and the number 42 look the same (tags: dropping too much is safe, missing one is not).

    >>> field_text("PyCon", strict=True), field_text(42, strict=True), field_text("42", strict=True)
    ('PyCon', '42', "'42")
    """
    text = encode(value)
    if text[0] == "'":
        plain = text[1:]
        return text if strict and (plain.startswith(_TAKEN) or _WHOLE.fullmatch(plain)) else plain
    return text if text == "~" or _WHOLE.fullmatch(text) else "~" + text
