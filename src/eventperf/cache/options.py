"""What a caller may choose, checked once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, TypedDict

from eventperf._core.durations import FOREVER, Duration, seconds
from eventperf._core.errors import ConfigurationError

from .checks import check_bool, check_life, check_span

if TYPE_CHECKING:
    from .protocols import Serializer

COHERENCE = ("tracking", "bus", "ttl")
ISOLATE = ("share", "copy", "check")
SERIALIZERS = ("msgpack", "pickle")


@dataclass(frozen=True, slots=True)
class Seconds:
    """The durations of :class:`CacheOptions` as what they are kept as; see there."""

    ttl: float
    l1_ttl: float
    lease: float
    grace: float
    stale_while_revalidate: float
    soft_timeout: float | None
    hard_timeout: float | None
    negative_ttl: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """How long a value lives and what happens around its end; every duration is kept as seconds.

    Attributes:
        ttl: Life of an entry; :data:`FOREVER` must be said.
        l1_ttl: Longest stay in process memory when there is a second tier, never beyond the rest of the TTL.
        use_l1: Keep entries in process memory at all.
        namespace: Overrides the manager's.
        jitter_ratio: Share of the TTL, 0 to 1, by which lives are shortened at random.
        grace: How long after its TTL a value may stand in for a load that fails.
        stale_while_revalidate: How long after its TTL a value is served while one caller refreshes it.
        early_beta: Eagerness of the probabilistic early refresh; 0 is off, 1 the published optimum.
        soft_timeout: How long a caller with a stale value at hand waits for its refresh.
        hard_timeout: How long a caller without one waits.
        negative_ttl: Life of a loaded ``None``; unset means like any value.
        ttl_of: What ``ttl=`` is when it is a function of the result; ``None`` or 0 from it keeps nothing.
        cache_if: Store only results for which this is true.
        compress_over: Compress payloads above this many bytes in the second tier.
        max_value_bytes: Largest value in the second tier, before compression: a larger one is not stored, and
            an entry that holds or inflates to more is a miss, whoever wrote it.
        serializer: ``"msgpack"``, ``"pickle"`` or an object; unset takes the manager's.
        isolate: What process memory hands out: ``"share"`` the stored object itself, ``"copy"`` a copy of
            it, ``"check"`` (for development) the object, with ``ValueMutated`` once somebody changed it.
        lease: How long a leader in another process may be silent before it is replaced; whatever end its own
            lease has, nobody waits for one without a renewal any longer.
        guard_transactions: Inside a transaction (SQLAlchemy, Django) that has written, load without looking
            and without storing: it may see what others must not.

    >>> CacheOptions(ttl="5m").ttl
    300.0
    """

    ttl: Duration = 60.0
    l1_ttl: Duration = 60.0
    use_l1: bool = True
    namespace: str | None = None
    jitter_ratio: float = 0.0
    grace: Duration = 0.0
    stale_while_revalidate: Duration = 0.0
    early_beta: float = 0.0
    soft_timeout: Duration | None = None
    hard_timeout: Duration | None = None
    negative_ttl: Duration | None = None
    ttl_of: Callable[[Any], Duration | None] | None = None
    cache_if: Callable[[Any], bool] | None = None
    compress_over: int | None = None
    max_value_bytes: int = 64 << 20
    serializer: str | Serializer | None = None
    isolate: str = "share"
    lease: Duration = 5.0
    guard_transactions: bool = True
    in_seconds: Seconds = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        made = Seconds(
            ttl=check_life(self.ttl),
            l1_ttl=check_life(self.l1_ttl, argument="l1_ttl"),
            lease=seconds(self.lease, name="lease", maximum=3600),
            grace=check_span(self.grace, argument="grace", zero=True),
            stale_while_revalidate=check_span(
                self.stale_while_revalidate, argument="stale_while_revalidate", zero=True
            ),
            soft_timeout=_maybe("soft_timeout", self.soft_timeout),
            hard_timeout=_maybe("hard_timeout", self.hard_timeout),
            negative_ttl=_maybe("negative_ttl", self.negative_ttl),
        )
        put = object.__setattr__
        for part in fields(made):
            put(self, part.name, getattr(made, part.name))
        put(self, "in_seconds", made)
        _ratio("jitter_ratio", self.jitter_ratio, 1.0)
        _ratio("early_beta", self.early_beta, 100.0)
        for name, size in (("compress_over", self.compress_over), ("max_value_bytes", self.max_value_bytes)):
            if (size is not None or name == "max_value_bytes") and (type(size) is not int or size < 1):
                raise ConfigurationError(name, size, "a positive number of bytes")
        for name, function in (("cache_if", self.cache_if), ("ttl_of", self.ttl_of)):
            if function is not None and not callable(function):
                raise ConfigurationError(name, function, "a function of the result")
        for name, flag in (("use_l1", self.use_l1), ("guard_transactions", self.guard_transactions)):
            check_bool(flag, argument=name)
        check_serializer(self.serializer)
        if not isinstance(self.isolate, str) or self.isolate not in ISOLATE:
            raise ConfigurationError("isolate", self.isolate, [repr(choice) for choice in ISOLATE])
        if self.namespace is not None and not (isinstance(self.namespace, str) and self.namespace):
            raise ConfigurationError("namespace", self.namespace, "a non-empty text")

    def but(self, **changes: Any) -> CacheOptions:
        """Return a copy with the given fields; those that are ``None`` stay as they are."""
        changes = {name: value for name, value in changes.items() if value is not None}
        return replace(self, **changes) if changes else self


class MoreOptions(TypedDict, total=False):
    """The options that ``cached`` takes by name besides its own arguments; see :class:`CacheOptions`."""

    l1_ttl: Duration
    use_l1: bool
    jitter_ratio: float
    grace: Duration
    stale_while_revalidate: Duration
    early_beta: float
    soft_timeout: Duration | None
    hard_timeout: Duration | None
    negative_ttl: Duration | None
    ttl_of: Callable[[Any], Duration | None] | None
    cache_if: Callable[[Any], bool] | None
    compress_over: int | None
    max_value_bytes: int
    serializer: str | Serializer | None
    isolate: str
    lease: Duration
    guard_transactions: bool


OPTION_NAMES: Final = tuple(
    f.name for f in fields(CacheOptions) if f.init and f.name not in ("ttl", "namespace")
)


def check_serializer(choice: Any) -> None:
    """Refuse what cannot make bytes of values, and values of bytes."""
    if choice is None or (isinstance(choice, str) and choice in SERIALIZERS):
        return
    makes = callable(getattr(choice, "dumps", None)) and callable(getattr(choice, "loads", None))
    if isinstance(choice, (str, type)) or not makes:
        raise ConfigurationError("serializer", choice, "'msgpack', 'pickle' or an object with dumps, loads")
    name = getattr(choice, "name", None)
    if not isinstance(name, str) or len(name) != 1 or not name.isascii() or not name.islower():
        allowed = "an object whose name is one small letter: upper case says that a value is compressed"
        raise ConfigurationError("serializer", name, allowed)


def _ratio(name: str, value: float, top: float) -> None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= top
    if not good:
        raise ConfigurationError(name, value, f"a number from 0 to {top:g}")


def _maybe(name: str, value: Duration | None) -> float | None:
    return None if value is None else check_span(value, argument=name)


__all__ = ["COHERENCE", "FOREVER", "ISOLATE", "CacheOptions"]
