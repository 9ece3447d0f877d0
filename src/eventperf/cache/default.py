"""The manager behind ``eventperf.cached``: chosen by the host, bound at the first call."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .decorating.faces import CachedCoroutine, CachedFunction, Decorate
from .manager import CacheManager, decorate
from .options import CacheOptions, MoreOptions
from .verbs.base import Follows, Life

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from typing_extensions import ParamSpec, Unpack

    P = ParamSpec("P")

R = TypeVar("R")

_mu = threading.RLock()
_chosen: CacheManager | None = None


def configure(manager: CacheManager | str | None = None, /, **arguments: Any) -> CacheManager:
    """Choose the manager of every ``@eventperf.cached`` function, also of those decorated before.

    Args:
        manager: A manager, or a URL for a new one.
        arguments: Arguments for a new :class:`CacheManager`.

    Returns:
        The manager now in use.
    """
    global _chosen
    made = manager if isinstance(manager, CacheManager) else CacheManager(manager, **arguments)
    with _mu:
        _chosen = made
    return made


def current() -> CacheManager:
    """Return the configured manager; process memory, with one warning, when none was."""
    global _chosen
    found = _chosen
    if found is not None:
        return found
    with _mu:
        if _chosen is None:
            warnings.warn(
                "eventperf.cached is used without eventperf.cache.configure(...): results stay in the "
                "memory of this process",
                RuntimeWarning,
                stacklevel=4,
            )
            _chosen = CacheManager()
        return _chosen


@overload
def cached(  # type: ignore[overload-overlap]
    function: Callable[P, Coroutine[Any, Any, R]], /
) -> CachedCoroutine[P, R]: ...


@overload
def cached(function: Callable[P, R], /) -> CachedFunction[P, R]: ...


@overload
def cached(
    *,
    ttl: Life = None,
    key: str | Callable[..., str] | None = None,
    tags: Sequence[str] | Callable[[Any], Sequence[str]] = (),
    self_key: str | Callable[[Any], Any] | None = None,
    follows: Follows = (),
    namespace: str | None = None,
    options: CacheOptions | None = None,
    **more: Unpack[MoreOptions],
) -> Decorate: ...


def cached(
    function: Callable[..., Any] | None = None,
    /,
    *,
    ttl: Life = None,
    key: str | Callable[..., str] | None = None,
    tags: Sequence[str] | Callable[[Any], Sequence[str]] = (),
    self_key: str | Callable[[Any], Any] | None = None,
    follows: Follows = (),
    namespace: str | None = None,
    options: CacheOptions | None = None,
    **more: Unpack[MoreOptions],
) -> Any:
    """Remember the results of a function with the configured manager; see :meth:`CacheManager.cached`."""
    return decorate(current, function, ttl, key, tags, self_key, follows, namespace, options, more)
