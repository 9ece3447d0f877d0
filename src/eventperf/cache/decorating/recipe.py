"""How the calls of one function map to keys and tags."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from eventperf._core.errors import ConfigurationError
from eventperf.cache.errors import NotCacheable, UnstableKey
from eventperf.cache.following import followed, note_reads
from eventperf.cache.keys import Identity, Template, Unstable, encode
from eventperf.cache.keys.names import OURS, class_text

from .manager import Tags


class Recipe:
    """How the calls of one function map to keys and tags; made once, when it is decorated."""

    def __init__(
        self,
        function: Callable[..., Any],
        key: str | Callable[..., str] | None,
        tags: Sequence[str] | Callable[..., Sequence[str]],
        self_key: str | Callable[[Any], Any] | None,
        follows: Any = (),
    ) -> None:
        self.function: Callable[..., Any] = function
        self.identity: Identity = Identity(function)
        self.name: str = self.identity.label
        self.signature: inspect.Signature = _signature(function, self.name)
        self.parameters: list[str] = list(self.signature.parameters)
        self.takes_self: str = _takes_self(function, self.parameters)
        self.self_key: str | Callable[[Any], Any] | None = self_key
        if self.takes_self == "self" and key is None and self_key is None:
            raise UnstableKey(self.name, "self", "method's own object", "key= or self_key=")
        names = set(self.parameters)
        self._key = Template(key, strict=True) if isinstance(key, str) else key
        if isinstance(self._key, Template):
            self._key.check(names, argument="key", where=self.name)
        elif self._key is not None and not callable(self._key):
            raise ConfigurationError("key", key, "a template such as 'event:{event_id}', or a function")
        self.key_function: Callable[..., Any] | None = None if isinstance(self._key, Template) else self._key
        self.tags_of_result: Callable[..., Sequence[str]] | None = tags if callable(tags) else None
        self._tags: list[Template] = []
        self._follows, notes = followed(follows)
        self.loader: Callable[..., Any] = _noting(function) if notes else function
        if not callable(tags):
            if isinstance(tags, (str, bytes)) or not isinstance(tags, Iterable):
                raise ConfigurationError("tags", tags, 'a list of texts, such as ["event:{event_id}"]')
            self._tags = [Template(tag, argument="tags") for tag in tags]
            for tag in self._tags:
                tag.check(names, argument="tags", where=self.name)
        self.steady_tags: list[str] | None = (
            [t.text for t in self._tags] if all(not t.fields for t in self._tags) else None
        )

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments by name, defaults included.

        Raises:
            TypeError: They do not fit the signature, as the function itself would say.
            ConfigurationError: A verb of a class method without its class: since Python 3.13 nobody adds it.
        """
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments: dict[str, Any] = bound.arguments
        if self.takes_self == "cls" and not isinstance(arguments["cls"], type):
            raise ConfigurationError(
                "cls", arguments["cls"], f"the class, as in {self.name}.invalidate(cls, ...)"
            )
        return arguments

    def key_of(
        self, bound: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, is_shared: bool
    ) -> str:
        """Return the key of a call.

        Args:
            bound: All arguments by name.
            args: Those given by position; ``kwargs`` by name.
            is_shared: Whether other processes look under it: then nothing may stand in it that only this
                process can tell apart.
        """
        made = self._key
        if made is None:
            return self._own_key(bound, is_shared)
        try:
            key: Any = made.render(bound) if isinstance(made, Template) else made(*args, **kwargs)
        except Unstable as error:
            raise UnstableKey(self.name, error.argument or "key", str(error)) from None
        if not isinstance(key, str):
            raise ConfigurationError(f"key of {self.name}", key, "a function that returns text")
        if is_shared and isinstance(made, Template) and OURS in key and OURS not in made.text:
            raise UnstableKey(self.name, made.text, f"object {_LOCAL}")
        return str.__str__(key)

    def _own_key(self, bound: dict[str, Any], is_shared: bool) -> str:
        at, value = "function", None
        try:
            prefix, parts = self.identity.prefix(is_shared=is_shared), []
            for at, value in bound.items():
                part = self._text_of_self(value) if at == self.takes_self == "self" else encode(value)
                if is_shared and OURS in part:
                    raise Unstable(f"{type(value).__name__} {_LOCAL}")
                parts.append(part)
        except Unstable as error:
            raise UnstableKey(self.name, at, str(error)) from None
        except RecursionError:
            raise UnstableKey(self.name, at, f"{type(value).__name__} that contains itself") from None
        return f"{prefix}({','.join(parts)})"

    def _text_of_self(self, owner: Any) -> str:
        """Return what stands for the object of a method, and its class if it is a subclass."""
        text = class_text(owner.__class__)
        own = self.self_key(owner) if callable(self.self_key) else getattr(owner, str(self.self_key))
        return encode(own) if text == f"<{self.name.rpartition('.')[0]}>" else text + encode(own)

    def reaches(self) -> list[str] | None:
        """Return what the key is made of: parameters and attributes of them; ``None`` when unknown."""
        if isinstance(self._key, Template):
            return self._key.reaches
        if self._key is not None:
            return None
        names = [name for name in self.parameters if name != "self" or name != self.takes_self]
        if self.takes_self != "self":
            return names
        return ["self.__class__", f"self.{self.self_key}", *names] if isinstance(self.self_key, str) else None

    def tags_for(self, bound: dict[str, Any], *, is_shared: bool) -> Tags:
        """Return the tags of a call, the function's own too, or what tells them from the result."""
        own = self.own_tag(is_shared=is_shared)
        by_result = self.tags_of_result
        if by_result is not None:
            return lambda value: [*_as_list(by_result(value)), *self._follows, own]
        if self.steady_tags is not None:
            return [*self.steady_tags, *self._follows, own]
        return [*(tag.render(bound) for tag in self._tags), *self._follows, own]

    def own_tag(self, *, is_shared: bool) -> str:
        """Return the tag of every result of the function.

        Functions without a text of their own (closures over objects, under a ``key`` of the host's) share the
        tag of their name: whether others like it live, here or elsewhere, must not change it.
        """
        if is_shared and not self.identity.is_stable:
            return f"@{self.name}"
        return f"@{self.identity.prefix(is_shared=is_shared)}"


def _noting(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a loader that lets the tables it reads count."""

    def load(*args: Any, **kwargs: Any) -> Any:
        note_reads()
        return function(*args, **kwargs)

    return load


def _as_list(tags: Any) -> list[Any]:
    """Return what a function of the host made; what is no list of texts is refused where tags are kept."""
    if tags is None:
        return []
    return list(tags) if isinstance(tags, Iterable) and not isinstance(tags, (str, bytes)) else [tags]


_LOCAL: Final = "of a class that its name does not lead to (made inside a function, or replaced)"


def _signature(function: Callable[..., Any], name: str) -> inspect.Signature:
    inner: Any = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    inner = inner if inspect.isroutine(inner) or isinstance(inner, type) else type(inner).__call__
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise NotCacheable("generator", name, "it can be read only once: return a list of what it yields")
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        raise ConfigurationError(
            "function", name, "a function whose parameters can be looked up: put a def or lambda around it"
        ) from None


def _takes_self(function: Callable[..., Any], parameters: list[str]) -> str:
    owner = getattr(function, "__qualname__", "").rpartition(".")[0]
    in_class = bool(owner) and not owner.endswith("<locals>") and isinstance(function, types.FunctionType)
    return parameters[0] if in_class and parameters and parameters[0] in ("self", "cls") else ""
