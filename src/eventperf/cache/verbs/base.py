"""What the verbs of a CacheManager share: where they find the cache, and how long a value lives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from eventperf._core.durations import Duration
from eventperf._core.errors import ConfigurationError
from eventperf.cache.checks import check_life, check_list, check_tags
from eventperf.cache.engine.state import Core
from eventperf.cache.entry import DEAD
from eventperf.cache.keys import Space, fit_tag
from eventperf.cache.options import CacheOptions
from eventperf.cache.policy import is_fresh
from eventperf.cache.values import serializers
from eventperf.cache.values.isolation import COPY, SHARE, Marks, private

Tags = Sequence[str] | Callable[[Any], Sequence[str]]
Follows = Sequence[Any] | str
Life = Duration | Callable[[Any], Duration | None] | None


class Verbs:
    """The part of a CacheManager that its verbs stand on."""

    options: CacheOptions
    _core: Core
    _table: dict[str, Any]
    _now: Callable[[], float]
    _is_plain: bool
    _marks: Marks

    def settled(self, options: CacheOptions) -> CacheOptions:
        """Return ``options`` with their serializer made ready."""
        core = self._core
        if core.store is None:
            return options
        if options.serializer is None or options.serializer == self.options.serializer:
            return replace(options, serializer=core.serializer) if options.serializer else options
        if isinstance(options.serializer, str):
            return replace(options, serializer=serializers.make(options.serializer))
        return options

    def _plan(
        self, options: CacheOptions | None, ttl: Duration | None, namespace: str | None = None
    ) -> tuple[CacheOptions, float, Space]:
        if namespace is not None and not (isinstance(namespace, str) and namespace):
            raise ConfigurationError("namespace", namespace, "a non-empty text")
        chosen = self.options if options is None else self.settled(check_options(options))
        life = chosen.in_seconds.ttl if ttl is None else check_life(ttl)
        space = (
            self._core.space
            if namespace is None and chosen.namespace is None
            else self._core.space_of(namespace or chosen.namespace)
        )
        return chosen, life, space

    def _hit(self, local: str, options: CacheOptions) -> Any:
        """Return the live value in process memory, or DEAD."""
        if not options.use_l1 or not self._core.enabled:
            return DEAD
        entry = self._core.peek(local)
        if entry is None or not is_fresh(entry.soft, self._now()):
            return DEAD
        value = entry.value
        if value is not DEAD:
            self._core.counts.l1_hits += 1
            if entry.hits < 3:
                entry.hits += 1
        return value

    def _out(self, space: Space, local: str, value: Any, options: CacheOptions) -> Any:
        """Return what a caller gets of a value that process memory may hold."""
        if options.isolate == SHARE:
            return value
        if options.isolate == COPY:
            return private(value)
        core = self._core
        self._marks.handed_out(core.peek(local), local, local[len(space.inner) :], value, core.drop_keys)
        return value


def check_options(options: Any) -> CacheOptions:
    """Return ``options`` if they are some."""
    if not isinstance(options, CacheOptions):
        raise ConfigurationError("options", options, "a CacheOptions")
    return options


def text_of(key: Any, argument: str = "key") -> str:
    if not isinstance(key, str):
        raise no_text(key, argument)
    return key


def no_text(key: object, argument: str = "key") -> ConfigurationError:
    return ConfigurationError(argument, key, "a text")


def tag_list(tags: Sequence[str]) -> list[str]:
    listed = check_list(tags, argument="tags", of="texts, such as ['event:42']")
    return list(dict.fromkeys(fit_tag(text_of(tag, "tags")) for tag in listed))


def value_tags(tags: Sequence[str]) -> list[str]:
    """Return tags as they are kept beside a value."""
    return check_tags(tag_list(tags))


def tags_of(tags: Tags) -> Tags:
    """Return tags as they are kept, or a function of the result that gives such; one text is one tag."""
    if not callable(tags):
        return value_tags(tags)
    function = tags

    def found(value: Any) -> list[str]:
        try:
            made: Any = function(value)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise ConfigurationError("tags", said, "a function that takes every result, also None") from error
        if made is None:
            return []
        return value_tags([made] if isinstance(made, str) else made)

    return found
