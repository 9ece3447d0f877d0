"""What is to be loaded, how it is to be kept, and where it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eventperf._core.flights import Flight
from eventperf.cache.checks import check_tags
from eventperf.cache.following import Said
from eventperf.cache.keys import Space
from eventperf.cache.options import CacheOptions
from eventperf.cache.policy import may_stand_in

from .look import Found, Look, outer_of

TagsOf = Callable[[Any], Sequence[str]]


class Job:
    """One get-or-load."""

    __slots__ = (
        "flight", "has_loaded", "is_private", "key", "loaded", "loader", "local", "options", "outer",
        "refresh", "said", "seen", "space", "stale", "tags", "ttl_s",
    )  # fmt: skip

    def __init__(
        self,
        space: Space,
        local: str,
        loader: Callable[[], Any],
        ttl_s: float,
        tags: Sequence[str] | TagsOf,
        options: CacheOptions,
        refresh: bool = False,
    ) -> None:
        self.refresh: bool = refresh
        self.space: Space = space
        self.local: str = local
        self.loader: Callable[[], Any] = loader
        self.ttl_s: float = ttl_s
        self.tags: Sequence[str] | TagsOf = tags
        self.options: CacheOptions = options
        self.outer: str = outer_of(space, local)
        self.key: str = local[len(space.inner) :]
        self.stale: Found | None = None
        self.seen: Look | None = None
        self.flight: Flight | None = None
        self.loaded: Any = None
        self.has_loaded: bool = False
        self.is_private: bool = False
        self.said: Said = Said()

    @property
    def stands_in(self) -> bool:
        """Whether an old value may stand in if this load fails."""
        return self.stale is not None and may_stand_in(self.stale.soft_s, self.options)

    def inner(self, tags: Iterable[str]) -> list[str]:
        """Return tags as process memory knows them."""
        return [self.space.inner + tag for tag in tags]

    def inner_tags(self) -> list[str] | None:
        """Return the tags known before the load; ``None`` while only the result can tell."""
        return None if callable(self.tags) else self.inner(self.tags)

    def tags_for(self, value: Any) -> list[str]:
        """Return the tags of a loaded value.

        Raises:
            ConfigurationError: They are too many; the value is handed out, and not kept.
        """
        known = self.tags(value) if callable(self.tags) else self.tags
        return check_tags(list(dict.fromkeys([*known, *self.said.tags])))


@dataclass(slots=True)
class Batch:
    """What to load in bulk: names by local key, one loader, one life and one list of tags for all."""

    space: Space
    names: Mapping[str, str]
    loader: Callable[[list[str]], Any]
    ttl_s: float
    tags: Sequence[str]
    options: CacheOptions
    said: Said = field(default_factory=Said)
    is_private: bool = False

    @property
    def inner_tags(self) -> list[str]:
        """The tags as process memory knows them."""
        return [self.space.inner + tag for tag in self.tags]
