"""Payloads as bytes: msgpack through msgspec when it is installed, else JSON from the standard library.

The first byte names the format (``m`` msgpack, ``j`` JSON), so either end may lack msgspec as long as
the sender used JSON.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, MutableMapping, MutableSet
from collections.abc import Set as AbstractSet
from contextlib import suppress
from functools import partial
from math import isfinite
from pathlib import PurePath
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from typing_extensions import NotRequired, Required, is_typeddict

from eventperf._core.hashing import FEW, SHORT, check_maps, filled
from eventperf._core.objects import allowed, check_json, check_msgpack

from .errors import PayloadError, PayloadTooLarge

_READABLE = 64 << 20
_NO_JSON = "which only msgpack keeps, and that has no whole numbers beyond 64 bits (and needs msgspec)"


class Codec:
    """Encode, check and decode payloads and results.

    Args:
        max_bytes: Largest encoded payload. What others have sent is read up to 64 MiB, as their limit may be
            another, unless it would become more objects than ``max_bytes`` may hold.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._most_read, self._most_objects = max(max_bytes, _READABLE), allowed(max_bytes)
        self._shapes: dict[Any, Callable[[bytes], Any]] = {}
        try:
            import msgspec
        except ModuleNotFoundError:
            self._msgspec: Any = None
            self._misfits: tuple[type[Exception], ...] = ()
            self._fit: Callable[[Any, Any], Any] = lambda value, shape: fit(shape, value)
            self._pack: Callable[[Any], bytes] = _json_bytes
        else:
            self._msgspec = msgspec
            self._misfits, self._fit = (msgspec.ValidationError,), partial(msgspec.convert, strict=False)
            self._encoder = msgspec.msgpack.Encoder(enc_hook=_plain_object)
            self._pack = self._msgpack_bytes

    def encode(self, value: Any, shape: Any = Any, *, argument: str = "data") -> bytes:
        """Return ``value`` as bytes after checking that it fits ``shape``.

        Raises:
            PayloadError: It does not fit, or has no encoding.
            PayloadTooLarge: Longer than the limit.
        """
        try:
            data = _model_bytes(value, shape) if has_model(shape) else self._pack(value)
            if len(data) <= self._max_bytes:
                self._fits(data, shape)
            if shape is Any and data[:1] == b"j":
                self._check_same(value)
        except PayloadError as error:
            raise PayloadError(argument, _short(value), f"{_name(shape)} ({error.allowed})") from error
        except Exception as error:
            raise PayloadError(argument, _short(value), f"{_name(shape)} ({error})") from error
        if len(data) > self._max_bytes:
            size = f"{len(data)} encoded bytes"
            raise PayloadTooLarge(argument, size, f"at most {self._max_bytes} bytes (max_payload_bytes)")
        return data

    def _fits(self, data: bytes, shape: Any) -> None:
        if shape is not Any:
            self.decode(data, shape)
        elif len(data) > self._most_objects:
            self._check(data)

    def _msgpack_bytes(self, value: Any) -> bytes:
        try:
            return b"m" + bytes(self._encoder.encode(value))
        except OverflowError:  # msgpack has no whole numbers beyond 64 bits, JSON has
            return b"j" + bytes(self._msgspec.json.encode(value, enc_hook=_plain_object))

    def _check_same(self, value: Any) -> None:
        """Refuse what JSON would change without a word, where no type says what it was."""
        plain = value
        if self._msgspec is not None:
            plain = self._msgspec.to_builtins(
                value, builtin_types=(bytes,), str_keys=False, enc_hook=_plain_object
            )
        left = [plain]
        while left:
            one = left.pop()
            if isinstance(one, dict):
                if not all(isinstance(key, str) for key in one):
                    raise ValueError(f"keys that are no text, {_NO_JSON}")
                left += one.values()
            elif isinstance(one, (list, tuple)):
                left += one
            elif isinstance(one, bytes) or (isinstance(one, float) and not isfinite(one)):
                raise ValueError(f"{'bytes' if isinstance(one, bytes) else one}, {_NO_JSON}")

    def decode(self, data: bytes, shape: Any = Any) -> Any:
        """Return the value of ``data`` as ``shape``.

        Raises:
            PayloadError: Not decodable, or of another shape.
        """
        try:
            read = self._shapes.get(shape)
        except TypeError:  # an annotation that cannot be hashed
            read = self._reader(shape)
        else:
            if read is None:
                read = self._shapes[shape] = self._reader(shape)
        try:
            if len(data) > self._most_objects:
                self._check(data)
            if len(data) > SHORT:
                self._check_keys(data, shape)
            return read(data)
        except Exception as error:
            # What was stored may be secret, and this text is stored and logged: its size says enough.
            raise PayloadError("payload", f"{len(data)} bytes", f"{_name(shape)} ({_why(error)})") from None

    def _check(self, data: bytes) -> None:
        if len(data) > self._most_read:
            raise ValueError(f"more than {self._most_read:,} bytes")
        (check_msgpack if data[:1] == b"m" else check_json)(data[1:], self._most_objects)

    def _check_keys(self, data: bytes, shape: Any) -> None:
        """Refuse data whose dicts and sets would have keys that collide, before any is made."""
        if data[:1] == b"m" and self._msgspec is not None:
            check_maps(bytes(data[1:]), self._msgspec.msgpack.decode)
        if not (kinds := key_kinds(shape)):
            return
        left = [self._plain(data)]
        while left:
            one = left.pop()
            if not isinstance(one, (list, dict)):
                continue
            left += one if isinstance(one, list) else one.values()
            for kind in kinds if len(one) > FEW else ():
                with suppress(TypeError, *self._misfits):  # another list than that of the keys
                    keys = self._fit(list(one), list[kind])  # type: ignore[valid-type]
                    filled(dict, [(key, None) for key in keys], len(data))

    def _reader(self, shape: Any) -> Callable[[bytes], Any]:
        if has_model(shape):
            of_json, of_plain = _validators(shape)
            return lambda data: of_json(bytes(data[1:])) if data[:1] == b"j" else of_plain(self._plain(data))
        if self._msgspec is not None:
            unpack = self._msgspec.msgpack.Decoder(shape).decode
            unjson = self._msgspec.json.Decoder(shape).decode
            return lambda data: unpack(memoryview(data)[1:]) if data[:1] == b"m" else unjson(_json_part(data))
        return lambda data: fit(shape, json.loads(_json_part(data)))

    def _plain(self, data: bytes) -> Any:
        if data[:1] == b"m":
            if self._msgspec is None:
                raise ValueError("msgpack data needs msgspec: pip install 'eventperf[queues]'")
            return self._msgspec.msgpack.decode(memoryview(data)[1:])
        return json.loads(_json_part(data))


def _json_part(data: bytes) -> bytes:
    if data[:1] == b"m":
        raise ValueError("msgpack data needs msgspec: pip install 'eventperf[queues]'")
    if data[:1] != b"j":
        raise ValueError("neither msgpack nor JSON of this library")
    return bytes(data[1:])


def has_model(shape: Any) -> bool:
    """Tell whether a pydantic model stands anywhere in an annotation."""
    if isinstance(shape, type) and hasattr(shape, "model_validate") and hasattr(shape, "model_dump_json"):
        return True
    return any(has_model(part) for part in get_args(shape))


_SETS = (set, frozenset, AbstractSet, MutableSet)
_MAPS = (dict, Mapping, MutableMapping, defaultdict, OrderedDict)


def key_kinds(shape: Any) -> list[Any]:
    """Return what dicts and sets of an annotation have for keys, but texts and bytes: those cannot collide.

    >>> key_kinds(dict[str, list[set[int]]])
    [<class 'int'>]
    """
    found, seen, left = [], [], [shape]
    while left:
        one = left.pop()
        if one in seen:
            continue
        seen.append(one)
        kind, args = get_origin(one) or one, get_args(one)
        if kind in _SETS or (kind in _MAPS and args):
            found.append(args[0] if args else Any)
        left += args
        if isinstance(kind, type) and kind.__module__ != "builtins":
            with suppress(Exception):  # names that lead nowhere: the decoder says so
                left += get_type_hints(kind).values()
    return [kind for kind in found if kind not in (str, bytes)]


def _model_bytes(value: Any, shape: Any) -> bytes:
    from pydantic import TypeAdapter

    adapter: Any = TypeAdapter(shape)
    checked, (read, _) = adapter.validate_python(value), _validators(shape)
    # Aliases of reading and of writing may differ: what is written is what can be read.
    for by_alias in (True, False):
        data = bytes(adapter.dump_json(checked, by_alias=by_alias, round_trip=True, warnings="error"))
        try:
            if read(data) == checked:
                return b"j" + data
        except ValueError:
            continue
    raise ValueError("the model does not come back from its own JSON as it was")


def _validators(shape: Any) -> tuple[Callable[[bytes], Any], Callable[[Any], Any]]:
    """Return readers of JSON and of plain data that take fields by their aliases and by their names."""
    from pydantic import TypeAdapter

    adapter: Any = TypeAdapter(shape)
    if "by_name" not in inspect.signature(adapter.validate_python).parameters:  # before pydantic 2.11
        return adapter.validate_json, adapter.validate_python
    both = {"by_alias": True, "by_name": True}
    return partial(adapter.validate_json, **both), partial(adapter.validate_python, **both)


def _plain_object(value: Any) -> Any:
    """Return what msgspec cannot write in a form that it can."""
    if hasattr(type(value), "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, PurePath):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} has no encoding")


def _json_bytes(value: Any) -> bytes:
    return b"j" + json.dumps(value, default=_plain_json, separators=(",", ":"), allow_nan=False).encode()


def _plain_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, (set, frozenset)):
        return list(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(type(value), "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form; install 'eventperf[queues]' for more types")


def fit(shape: Any, value: Any) -> Any:
    """Return plain JSON ``value`` as ``shape``: dataclasses, typed dicts, containers, unions, scalars.

    Raises:
        ValueError: It does not fit.

    >>> fit(list[float], [1, 2.5])
    [1.0, 2.5]
    """
    origin, args = get_origin(shape), get_args(shape)
    if shape is Any:
        return value
    if origin in (NotRequired, Required):
        return fit(args[0], value)
    if origin in (Union, types.UnionType):
        return _fit_union(args, value)
    if origin is Literal:
        return _require(value in args, value, shape, value)
    if dataclasses.is_dataclass(shape) or is_typeddict(shape):
        return _fit_fields(shape, value)
    kind = origin or shape
    if kind in (list, set, frozenset, tuple) and isinstance(value, list):
        return _fit_items(kind, args, value)
    if kind is dict and isinstance(value, dict):
        return {fit(args[0], k): fit(args[1], v) for k, v in value.items()} if args else value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in (None, type(None)):
        return _require(value is None, value, shape, None)
    if isinstance(value, str) and hasattr(kind, "fromisoformat"):
        return kind.fromisoformat(value)
    good = (
        isinstance(kind, type)
        and isinstance(value, kind)
        and (kind is not int or not isinstance(value, bool))
    )
    return _require(good, value, shape, value)


def _fit_union(args: tuple[Any, ...], value: Any) -> Any:
    for arg in args:
        try:
            return fit(arg, value)
        except (ValueError, TypeError):
            continue
    raise ValueError(f"{_short(value)} fits none of {', '.join(map(_name, args))}")


def _fit_items(kind: Any, args: tuple[Any, ...], value: list[Any]) -> Any:
    if kind is tuple and args and args[-1] is not Ellipsis:
        if len(args) != len(value):
            raise ValueError(f"{len(args)} items expected, got {len(value)}")
        return tuple(fit(a, v) for a, v in zip(args, value, strict=True))
    return kind(fit(args[0], v) for v in value) if args else kind(value)


def _fit_fields(shape: Any, value: Any) -> Any:
    hints = get_type_hints(shape)
    if not isinstance(value, dict):
        raise ValueError(f"an object with fields {', '.join(hints)} expected, got {type(value).__name__}")
    if is_typeddict(shape):
        needed: set[str] = set(shape.__required_keys__)
    else:
        free = (dataclasses.MISSING, dataclasses.MISSING)
        needed = {f.name for f in dataclasses.fields(shape) if (f.default, f.default_factory) == free}
    if missing := sorted(needed - value.keys()):
        raise ValueError(f"missing field {missing[0]!r}")
    found = {name: fit(hint, value[name]) for name, hint in hints.items() if name in value}
    return found if is_typeddict(shape) else shape(**found)


def _require(good: bool, value: Any, shape: Any, result: Any) -> Any:
    if not good:
        raise ValueError(f"{_name(shape)} expected, got {type(value).__name__}")
    return result


def _why(error: Exception) -> str:
    """Return what did not fit and where, without the values: pydantic quotes them in its own text."""
    faults: Any = getattr(error, "errors", None)
    if callable(faults):
        found = faults(include_url=False, include_context=False, include_input=False)
        return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found[:5])
    return str(error)


def _name(shape: Any) -> str:
    return "data with an encoding" if shape is Any else getattr(shape, "__name__", None) or str(shape)


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:  # a value nested too deeply, or a repr of the user's own
        return f"<{type(value).__name__} without a repr: {type(error).__name__}>"
    return text if len(text) <= 80 else text[:77] + "..."
