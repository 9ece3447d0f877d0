"""Values to bytes and back without pickle: MessagePack, with tags for the types it does not know.

Plain data (text, numbers, bytes, lists, dicts) goes straight through msgspec. Everything else is tagged:
tuples, sets, ``datetime``, ``Decimal``, ``UUID``, enums, dataclasses, named tuples and pydantic models come
back as what they were. Decoding never imports a module and never calls a constructor of the host: a class is
found among the modules that are already loaded, and must still have the fields it had.
"""

from __future__ import annotations

import hmac
import pickle
import weakref
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag
from typing import Any, Final, cast
from uuid import UUID

from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require
from eventperf._core.hashing import SHORT, check_maps, filled
from eventperf._core.objects import check_msgpack
from eventperf.cache.errors import SerializationError
from eventperf.cache.options import check_serializer
from eventperf.cache.protocols import Serializer

from .instances import Undecodable, fields_of, make_enum, make_object, path_of, shape_of, state_of

_TUPLE, _SET, _FROZENSET, _DECIMAL, _UUID, _DATETIME, _DATE, _TIME, _DELTA = range(1, 10)
_OBJECT, _ENUM, _BIGINT, _PAIRS, _COMPLEX, _BYTEARRAY = range(10, 16)

_OPAQUE: Final = frozenset({_BIGINT, 0xFF})
"""Extensions with other things inside than msgpack: a large number, and a time of msgspec's own."""

_EXTENSIONS: Final = frozenset({0xC7, 0xC8, 0xC9, *range(0xD4, 0xD9)})

_DEPTH: Final = 32
"""Large values in large values that are taken to pieces: each level is looked through once more."""

_LEAVES: Final = frozenset({str, float, bool, type(None), bytes})


class MsgpackSerializer:
    """The default: compact, fast, and safe with bytes written by somebody else."""

    name = "m"

    def __init__(self) -> None:
        msgspec = require("msgspec", extra="cache", needed_by="the second tier's serializer")
        packer = require("msgspec.msgpack", extra="cache", needed_by="the second tier's serializer")
        self._ext = packer.Ext
        self._pack = packer.Encoder().encode
        self._unpack = packer.Decoder(ext_hook=self._untag).decode
        scalar: Any = bool | int | float | str | None
        self._scalars = packer.Decoder(list[scalar] | dict[str, scalar] | scalar).decode
        raw: Any = msgspec.Raw
        self._parts = packer.Decoder(list[raw] | dict[str, raw]).decode
        self._invalid: type[Exception] = msgspec.DecodeError
        self._proven: weakref.WeakSet[type] = weakref.WeakSet()
        self._errors: tuple[type[BaseException], ...] = (
            msgspec.MsgspecError, Undecodable, ValueError, TypeError, ArithmeticError, RecursionError,
            LookupError, OSError, AttributeError,
        )  # fmt: skip

    def dumps(self, value: Any, /) -> bytes:
        """Return ``value`` as bytes.

        Raises:
            SerializationError: A type that would not come back as it was.
        """
        try:
            return bytes(self._pack(self._tag(value)))
        except RecursionError:
            raise SerializationError("structure that contains itself or is nested too deep") from None
        except UnicodeEncodeError:
            raise SerializationError("text with lone surrogates") from None
        except (OverflowError, ValueError) as error:  # beyond 4 GB
            raise SerializationError(f"value of this size ({error})") from error

    def loads(self, data: bytes, /) -> Any:
        """Return the value.

        Raises:
            Undecodable: Foreign or damaged bytes, or a class that has changed.
        """
        try:
            return self._unpack(data) if len(data) <= SHORT else self._large(data)
        except self._errors as error:
            raise Undecodable(str(error)) from error

    def check_objects(self, data: bytes, most: int, /) -> None:
        """Refuse bytes that would become more than ``most`` objects, before any is made.

        Raises:
            TooManyObjects: They would.
        """
        check_msgpack(data, most, opaque=_OPAQUE)

    def _tag(self, value: Any) -> Any:
        kind = type(value)
        if kind in _LEAVES:
            return value
        if kind is int:
            if -(2**63) <= value < 2**64:
                return value
            return self._ext(_BIGINT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
        if kind is dict:
            return self._tag_dict(value)
        if kind is list:
            return [v if type(v) in _SAFE else self._tag(v) for v in value]
        tag = _TAGGERS.get(kind)
        if tag is not None:
            code, plain = tag
            return self._ext(code, self._pack(self._tag(plain(value))))
        if isinstance(value, Enum):
            # A combination of flags is no member: its number makes it.
            member, held = (None, self._tag(value.value)) if isinstance(value, Flag) else (value.name, None)
            return self._proved(kind, _ENUM, [*path_of(cast("Any", kind)), member, held])
        known: Any = kind
        names = fields_of(known)
        if names is None:
            raise SerializationError(f"{kind.__module__}.{kind.__qualname__}")
        fields, extra = state_of(value, known, names)
        body = [self._tag(part) for part in fields]
        beside = self._tag(extra) if extra else None
        return self._proved(known, _OBJECT, [*path_of(known), shape_of(known), body, beside])

    def _proved(self, kind: type, code: int, body: list[Any]) -> Any:
        """Return an object as it is stored; the first one of each class must come back from there.

        Raises:
            SerializationError: It would be written again and again, and never read.
        """
        tagged = self._ext(code, self._pack(body))
        if kind not in self._proven:
            try:
                made = self.loads(self._pack(tagged))
            except Undecodable as error:
                raise SerializationError(f"{kind.__module__}.{kind.__qualname__} ({error})") from error
            if type(made) is not kind:
                raise SerializationError(f"{kind.__module__}.{kind.__qualname__}")
            self._proven.add(kind)
        return tagged

    def _tag_dict(self, value: dict[Any, Any]) -> Any:
        if all(type(k) is str for k in value):
            return {k: v if type(v) in _SAFE else self._tag(v) for k, v in value.items()}
        return self._ext(_PAIRS, self._pack([[self._tag(k), self._tag(v)] for k, v in value.items()]))

    def _large(self, data: bytes, depth: int = 0) -> Any:
        """Decode what could hold many keys that collide: in pieces, none of which could.

        Plain maps have texts for keys, which cannot; a decoder that is told so stops at any other.
        """
        if len(data) <= SHORT or data[0] in _EXTENSIONS:
            return self._unpack(data)
        for read in (self._scalars, self._parts) if depth < _DEPTH else ():
            try:
                found = read(data)
            except self._invalid:
                continue
            if read is self._scalars:
                return found
            if type(found) is dict:
                return dict(zip(found, self._each(list(found.values()), len(data), depth), strict=True))
            return self._each(found, len(data), depth)
        check_maps(data, self._unpack, opaque=_OPAQUE)
        return self._unpack(data)

    def _each(self, parts: list[Any], size: int, depth: int) -> list[Any]:
        """Return what undecoded ``parts`` say, some at a time."""
        out: list[Any] = []
        step = max(1, len(parts) * SHORT // size)
        for at in range(0, len(parts), step):
            some = parts[at : at + step]
            together = b"\xdd%b%b" % (len(some).to_bytes(4, "big"), b"".join(some))
            if len(together) <= 2 * SHORT:
                out += self._unpack(together)
            else:
                out += [self._large(bytes(part), depth + 1) for part in some]
        return out

    def _untag(self, code: int, data: Any) -> Any:
        if code == _BIGINT:
            return int.from_bytes(bytes(data), "big", signed=True)
        body = self._unpack(data) if len(data) <= SHORT else self._large(bytes(data))
        if (make := _HASHED.get(code)) is not None:
            made = filled(make, _of(list, body), len(data))
            return frozenset(made) if code == _FROZENSET else made
        maker = _MAKERS.get(code)
        if maker is None:
            raise Undecodable(f"unknown tag {code}")
        return maker(body)


_SAFE: Final = frozenset({float, bool, type(None), bytes})


def _zone(value: datetime | time) -> Any:
    offset = value.utcoffset() if value.tzinfo is not None else None
    if value.tzinfo is None:
        return None
    key = getattr(value.tzinfo, "key", None)
    if isinstance(key, str):
        return key
    if isinstance(value.tzinfo, timezone) and offset is not None:
        called = value.tzinfo.tzname(None)
        return (
            offset.total_seconds()
            if called == timezone(offset).tzname(None)
            else [offset.total_seconds(), called]
        )
    raise SerializationError(f"{type(value.tzinfo).__module__}.{type(value.tzinfo).__qualname__}")


def _from_zone(zone: Any) -> Any:
    if zone is None:
        return None
    if isinstance(zone, str):
        from zoneinfo import ZoneInfo

        return ZoneInfo(zone)
    if isinstance(zone, list):
        return timezone(timedelta(seconds=zone[0]), zone[1])
    return timezone.utc if zone == 0 else timezone(timedelta(seconds=zone))


def _moment(value: datetime) -> list[Any]:
    return [value.replace(tzinfo=None, fold=0).isoformat(), value.fold, _zone(value)]


def _clock_time(value: time) -> list[Any]:
    return [value.replace(tzinfo=None, fold=0).isoformat(), value.fold, _zone(value)]


_TAGGERS: Final[dict[type, tuple[int, Callable[[Any], Any]]]] = {
    tuple: (_TUPLE, list),
    set: (_SET, list),
    frozenset: (_FROZENSET, list),
    Decimal: (_DECIMAL, str),
    UUID: (_UUID, lambda v: v.bytes),
    datetime: (_DATETIME, _moment),
    date: (_DATE, date.isoformat),
    time: (_TIME, _clock_time),
    timedelta: (_DELTA, lambda v: [v.days, v.seconds, v.microseconds]),
    complex: (_COMPLEX, lambda v: [v.real, v.imag]),
    bytearray: (_BYTEARRAY, bytes),
}


def _of(kind: type, body: Any) -> Any:
    """Return ``body`` if it is what was packed: a number in its place would be taken for a size."""
    if type(body) is not kind:
        raise Undecodable(f"{type(body).__name__} where {kind.__name__} belongs")
    return body


_HASHED: Final[dict[int, Any]] = {_SET: set, _FROZENSET: set, _PAIRS: dict}

_MAKERS: Final[dict[int, Callable[[Any], Any]]] = {
    _TUPLE: lambda b: tuple(_of(list, b)),
    _DECIMAL: Decimal,
    _UUID: lambda b: UUID(bytes=b),
    _DATETIME: lambda b: datetime.fromisoformat(b[0]).replace(fold=b[1], tzinfo=_from_zone(b[2])),
    _DATE: date.fromisoformat,
    _TIME: lambda b: time.fromisoformat(b[0]).replace(fold=b[1], tzinfo=_from_zone(b[2])),
    _DELTA: lambda b: timedelta(days=b[0], seconds=b[1], microseconds=b[2]),
    _COMPLEX: lambda b: complex(b[0], b[1]),
    _BYTEARRAY: lambda b: bytearray(_of(bytes, b)),
    _ENUM: lambda b: make_enum(*b),
    _OBJECT: lambda b: make_object(*b),
}


SECRET_LEAST: Final = 16
"""A secret has so many bytes at least: a shorter one can be found by trying."""
UNSIGNED: Final[Any] = object()


class PickleSerializer:
    """Pickle, for hosts that choose it knowing that whoever can write to the server can run code here.

    Args:
        secret: When given, values are signed with HMAC-SHA256 together with the key they are kept under, and
            those that are unsigned, altered or copied from another key are misses. At least 16 bytes, such as
            ``secrets.token_bytes(32)`` makes them. An older value of the same key is still one of ours.

    Raises:
        ConfigurationError: An empty or short secret, text, or ``None`` (a setting that is not there).
    """

    name = "p"

    def __init__(self, secret: bytes = UNSIGNED) -> None:
        self._secret: bytes | None = None if secret is UNSIGNED else _strong(secret)

    def dumps(self, value: Any, /) -> bytes:
        """Return ``value`` as bytes, signed for no key when there is a secret."""
        return self.dumps_for(value, "")

    def loads(self, data: bytes, /) -> Any:
        """Return the value that was signed for no key."""
        return self.loads_for(data, "")

    def dumps_for(self, value: Any, key: str, /) -> bytes:
        """Return ``value`` as bytes, signed for ``key`` when there is a secret."""
        try:
            data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # what an object refuses with is its own business
            raise SerializationError(f"{type(value).__qualname__} ({error})") from error
        return data if self._secret is None else _mark(self._secret, key, data) + data

    def loads_for(self, data: bytes, key: str, /) -> Any:
        """Return the value that was signed for ``key``; anything that cannot be loaded is a miss."""
        if self._secret is not None:
            mark, data = data[:32], data[32:]
            if not hmac.compare_digest(mark, _mark(self._secret, key, data)):
                raise Undecodable("signature does not match")
        try:
            return pickle.loads(data)
        except Exception as error:  # unpickling may raise anything at all
            raise Undecodable(f"{type(error).__name__}: {error}") from error


def _mark(secret: bytes, key: str, data: bytes) -> bytes:
    """Return the signature of ``data`` under ``key``; the key's length keeps the two apart."""
    name = key.encode("utf-8", "surrogatepass")
    return hmac.digest(secret, b"%d:%b%b" % (len(name), name, data), "sha256")


def _strong(secret: object) -> bytes:
    allowed = (
        f"at least {SECRET_LEAST} bytes that nobody can guess: bytes.fromhex(os.environ['CACHE_SECRET'])"
        " of what `python -c 'import secrets; print(secrets.token_hex(32))'` printed"
    )
    if not isinstance(secret, (bytes, bytearray)):  # neither value nor length of a secret is shown
        raise ConfigurationError("secret", type(secret).__name__, allowed)
    if len(secret) < SECRET_LEAST:
        raise ConfigurationError("secret", "no bytes" if not secret else "fewer bytes", allowed)
    return bytes(secret)


def make(choice: str | Serializer | None) -> Serializer:
    """Return the serializer of a name, or the object itself."""
    if choice is None or choice == "msgpack":
        return MsgpackSerializer()
    if choice == "pickle":
        return PickleSerializer()
    check_serializer(choice)
    return cast("Serializer", choice)
