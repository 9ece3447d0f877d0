"""Objects of the host's classes as their fields, and back, without a constructor or a property of theirs.

A class is found among the modules that are already loaded, and must still have the fields it had.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from enum import Enum
from functools import lru_cache
from typing import Any, Final

from eventperf.cache.errors import SerializationError
from eventperf.cache.keys.names import find


class Undecodable(Exception):
    """Bytes that are not what this serializer wrote, or of a type that has changed since."""


@lru_cache(maxsize=1024)
def path_of(kind: Any) -> tuple[str, str]:
    if find(kind.__module__, kind.__qualname__) is not kind:
        why = (
            "made inside a function" if "<locals>" in kind.__qualname__ else "that its name does not lead to"
        )
        raise SerializationError(f"{kind.__module__}.{kind.__qualname__} (a class {why})")
    return kind.__module__, kind.__qualname__


def find_class(module: str, qualname: str) -> Any:
    at = find(module, qualname)
    if not isinstance(at, type):
        raise Undecodable(f"{module}.{qualname} is not loaded here")
    return at


@lru_cache(maxsize=1024)
def fields_of(kind: Any) -> tuple[str, ...] | None:
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


def state_of(value: Any, kind: Any, names: tuple[str, ...]) -> tuple[list[Any], dict[str, Any]]:
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
def shape_of(kind: Any) -> str:
    """Return a digest of a class's field names and annotations: it changes when the schema does."""
    notes: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        notes.update(inspect.get_annotations(base))
    fields = fields_of(kind) or ()
    text = ";".join(f"{name}:{_note(notes.get(name))}" for name in fields)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _note(note: Any) -> str:
    return note if isinstance(note, str) else getattr(note, "__qualname__", None) or repr(note)


def make_enum(module: str, qualname: str, name: str | None, value: Any) -> Any:
    kind = find_class(module, qualname)
    if not issubclass(kind, Enum) or (name is not None and name not in kind.__members__):
        raise Undecodable(f"{module}.{qualname}.{name} is not a member here")
    return kind(value) if name is None else kind[name]


def make_object(
    module: str, qualname: str, shape: str, body: list[Any], beside: dict[str, Any] | None
) -> Any:
    kind: Any = find_class(module, qualname)
    names = fields_of(kind)
    is_model = _is_model(kind)
    if names is None or shape_of(kind) != shape or len(names) + 3 * is_model != len(body):
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
