"""Nothing grows without end: walk every container behind a manager and count what it holds.

For soaks: do many things with ever new keys, then ``assert_bounded(cache, most=...)``. What grew is named by
its path, such as ``_core.tag_cache._known``; containers inside containers are added up under one path.
"""

from __future__ import annotations

import functools
import sys
import types
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final

_OURS: Final = "eventperf."
_COLLECTIONS: Final = (list, tuple, set, frozenset, deque, weakref.WeakSet)
_HOST: Final = frozenset({"value", "loaded", "outcome"})
"""What holds values and errors of the host: how large they are is the host's business."""


def containers(*roots: Any) -> dict[str, int]:
    """Return how many items the containers hold that can be reached from ``roots``, by path.

    Objects of eventperf are looked into (attributes, closures, bound methods), and containers; values of the
    host are not.

    >>> from eventperf.cache import CacheManager
    >>> cache = CacheManager()
    >>> for n in range(7): cache.set(f"k:{n}", n)
    >>> containers(cache)["_table"]
    7
    """
    counts: dict[str, int] = {}
    seen: set[int] = set()
    left: deque[tuple[str, Any]] = deque(("", root) for root in roots)
    while left:
        path, thing = left.popleft()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, (*_COLLECTIONS, Mapping)):
            if len(thing):
                counts[path] = counts.get(path, 0) + len(thing)
            left += ((f"{path}[]", item) for item in _items(thing) if _is_looked_into(item))
        else:
            left += ((f"{path}.{name}" if path else name, part) for name, part in _parts(thing))
    return counts


def assert_bounded(*roots: Any, most: int, modules: str | None = None) -> None:
    """Fail when a container that can be reached from ``roots`` holds more than ``most`` items.

    Args:
        roots: Managers, or anything else of eventperf.
        most: What the settings allow, with room for what is swept later.
        modules: A package whose module-level containers count too, such as ``"eventperf.cache"``.
    """
    counts = containers(*roots)
    if modules is not None:
        for name, module in list(sys.modules.items()):
            if name == modules or name.startswith(modules + "."):
                held = {
                    attribute: thing
                    for attribute, thing in vars(module).items()
                    if isinstance(thing, (list, set, deque, dict)) and not attribute.startswith("__")
                }
                counts |= {f"{name}:{at}": len(thing) for at, thing in held.items()}
    grown = {path: count for path, count in sorted(counts.items()) if count > most}
    assert not grown, f"holds more than {most} items: {grown}"


def _items(container: Any) -> Iterator[Any]:
    yield from list(container.values()) if isinstance(container, Mapping) else list(container)


def _is_looked_into(item: Any) -> bool:
    return (
        isinstance(item, (*_COLLECTIONS, Mapping, types.FunctionType, types.MethodType, functools.partial))
        or type(item).__module__.startswith(_OURS)
    ) and not isinstance(item, type)


def _parts(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield what belongs to a thing, by name."""
    if isinstance(thing, types.MethodType):
        yield "__self__", thing.__self__
    elif isinstance(thing, types.FunctionType):
        for name, cell in zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True):
            try:
                yield name, cell.cell_contents
            except ValueError:
                continue  # not filled yet
    elif isinstance(thing, functools.partial):
        yield from (("func", thing.func), ("args", thing.args))
    elif type(thing).__module__.startswith(_OURS) and not isinstance(thing, type):
        names = [slot for kind in type(thing).__mro__ for slot in _slots(kind)]
        for name in dict.fromkeys([*getattr(thing, "__dict__", ()), *names]):
            part = getattr(thing, name, None)
            if name not in _HOST and part is not None:
                yield name, part


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    private = f"_{kind.__name__.lstrip('_')}"
    return tuple(
        private + name if name.startswith("__") and not name.endswith("__") else name for name in names
    )


__all__ = ["assert_bounded", "containers"]
