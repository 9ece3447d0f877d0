"""Values to bytes and back without pickle: MessagePack, with tags for the types it does not know.

Plain data (text, numbers, bytes, lists, dicts) goes straight through msgspec. Everything else is tagged:
tuples, sets, ``datetime``, ``Decimal``, ``UUID``, enums, dataclasses, named tuples and pydantic models come
back as what they were. Decoding never imports a module and never calls a constructor of the host: a class is
found among the modules that are already loaded, and must still have the fields it had.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import inspect
import pickle
import weakref
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag
from functools import lru_cache
from typing import Any, Final, cast
from uuid import UUID

from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require
from eventperf._core.hashing import SHORT, check_maps, filled
from eventperf._core.objects import check_msgpack
from eventperf.cache.errors import SerializationError
from eventperf.cache.keys.names import find
from eventperf.cache.options import check_serializer
from eventperf.cache.protocols import Serializer


class Undecodable(Exception):
    """Bytes that are not what this serializer wrote, or of a type that has changed since."""


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
            return self._proved(kind, _ENUM, [*_path(cast("Any", kind)), member, held])
        known: Any = kind
        names = _fields(known)
        if names is None:
            raise SerializationError(f"{kind.__module__}.{kind.__qualname__}")
        fields, extra = _state(value, known, names)
        body = [self._tag(part) for part in fields]
        beside = self._tag(extra) if extra else None
        return self._proved(known, _OBJECT, [*_path(known), _shape(known), body, beside])

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
    _ENUM: lambda b: _make_enum(*b),
    _OBJECT: lambda b: _make_object(*b),
}


@lru_cache(maxsize=1024)
def _path(kind: Any) -> tuple[str, str]:
    if find(kind.__module__, kind.__qualname__) is not kind:
        why = (
            "made inside a function" if "<locals>" in kind.__qualname__ else "that its name does not lead to"
        )
        raise SerializationError(f"{kind.__module__}.{kind.__qualname__} (a class {why})")
    return kind.__module__, kind.__qualname__


def _find(module: str, qualname: str) -> Any:
    at = find(module, qualname)
    if not isinstance(at, type):
        raise Undecodable(f"{module}.{qualname} is not loaded here")
    return at


@lru_cache(maxsize=1024)
def _fields(kind: Any) -> tuple[str, ...] | None:
    """Return the names of the fields of a dataclass, named tuple, msgspec Struct or pydantic model."""
    if dataclasses.is_dataclass(kind):
        return tuple(f.name for f in dataclasses.fields(kind))
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return tuple(kind._fields)
    names = getattr(kind, "__struct_fields__", None)
    if names is None and _is_model(kind):
        names = kind.__pydantic_fields__
    return tuple(names) if names is not None else None


def _is_model(kind: Any) -> bool:
    """Tell whether ``kind`` is a pydantic model (of version 2); pydantic itself is not imported."""
    return isinstance(getattr(kind, "__pydantic_fields__", None), dict) and hasattr(kind, "model_construct")


def _state(value: Any, kind: Any, names: tuple[str, ...]) -> tuple[list[Any], dict[str, Any]]:
    """Return the fields of an object, of a model with what pydantic notes, and what it holds beside them."""
    beside = {name: part for name, part in getattr(value, "__dict__", {}).items() if name not in names}
    for name in _slots(kind):
        if name not in names and hasattr(value, name):
            beside[name] = getattr(value, name)
    absent = [name for name in names if not hasattr(value, name)]
    if absent:
        raise SerializationError(f"{kind.__module__}.{kind.__qualname__} without its field {absent[0]!r}")
    fields = [getattr(value, name) for name in names]
    if _is_model(kind):
        fields += [sorted(value.model_fields_set), value.__pydantic_extra__, value.__pydantic_private__]
    elif hasattr(kind, "__struct_fields__") and hasattr(kind, "__post_init__"):
        raise SerializationError(f"{kind.__module__}.{kind.__qualname__} (its __post_init__ would run again)")
    return fields, beside


_NOTES: Final = ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")


@lru_cache(maxsize=1024)
def _slots(kind: Any) -> tuple[str, ...]:
    """Return the attributes that objects of a class hold in slots; those of msgspec are its fields."""
    if hasattr(kind, "__struct_fields__") or issubclass(kind, tuple):
        return ()
    out: list[str] = []
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            hidden = name.startswith("__") and not name.endswith("__")
            out.append(f"_{base.__name__.lstrip('_')}{name}" if hidden else name)
    known = ("__dict__", "__weakref__") if not _is_model(kind) else ("__dict__", *_NOTES)
    return tuple(name for name in out if name not in known)


@lru_cache(maxsize=1024)
def _shape(kind: Any) -> str:
    """Return a digest of a class's field names and annotations: it changes when the schema does."""
    notes: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        notes.update(inspect.get_annotations(base))
    fields = _fields(kind) or ()
    text = ";".join(f"{name}:{_note(notes.get(name))}" for name in fields)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _note(note: Any) -> str:
    return note if isinstance(note, str) else getattr(note, "__qualname__", None) or repr(note)


def _make_enum(module: str, qualname: str, name: str | None, value: Any) -> Any:
    kind = _find(module, qualname)
    if not issubclass(kind, Enum) or (name is not None and name not in kind.__members__):
        raise Undecodable(f"{module}.{qualname}.{name} is not a member here")
    return kind(value) if name is None else kind[name]


def _make_object(
    module: str, qualname: str, shape: str, body: list[Any], beside: dict[str, Any] | None
) -> Any:
    kind: Any = _find(module, qualname)
    names = _fields(kind)
    is_model = _is_model(kind)
    if names is None or _shape(kind) != shape or len(names) + 3 * is_model != len(body):
        raise Undecodable(f"{module}.{qualname} has changed")
    if issubclass(kind, tuple):
        row = tuple.__new__(kind, body)
        if beside:
            row.__dict__.update(beside)
        return row
    made: Any
    if is_model:
        *body, given, more, private = body
        if len(given) > len(names) + len(more or ()):  # numbers that collide, perhaps
            raise Undecodable(f"{module}.{qualname} with more fields set than it has")
        made = kind.__new__(kind)
        notes = dict(zip(_NOTES, (set(given), more, private), strict=True))
        made.__setstate__({"__dict__": dict(zip(names, body, strict=True)), **notes})
    elif hasattr(kind, "__struct_fields__") and not hasattr(
        kind, "__post_init__"
    ):  # in C: no code of the host's
        made = kind(**dict(zip(names, body, strict=True)))
        if beside:
            vars(made).update(beside)
        return made
    else:
        made = kind.__new__(kind) if hasattr(kind, "__struct_fields__") else object.__new__(kind)
        for name, value in zip(names, body, strict=True):
            object.__setattr__(made, name, value)
    slots = _slots(kind)
    for name, value in (beside or {}).items():
        if name in slots:
            object.__setattr__(made, name, value)
        else:  # not as an attribute: a property of that name would run code of the host's
            made.__dict__[name] = value
    return made


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
