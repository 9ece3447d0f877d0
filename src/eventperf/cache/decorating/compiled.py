"""The hot path of ``@cached``: a wrapper with the parameters of the function itself.

It is compiled once per function, as ``dataclasses`` and ``namedtuple`` do, so that a hit packs no arguments,
reads no clock and takes no lock, and positional, keyword and default arguments find the same entry. What the
key is made of (parameters, or attributes of them as in ``{self.id}``) indexes the table of entries.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from operator import length_hint
from typing import Any, Final

from eventperf.cache.entry import DEAD
from eventperf.cache.following import aside
from eventperf.cache.transactions import DIRTY

_REACH: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_OURS: Final = "_ep_"
_STEPS: Final = sys.maxsize
_MISSING: Final = (KeyError, TypeError, AttributeError)

_BODY: Final = """
def _ep_make({given}):
    {define} _ep_call({parameters}):
        try:
            _ep_entry = _ep_table[{at}]
            _ep_value = _ep_entry.value
            if _ep_value is not _ep_dead and not (_ep_dirty and _ep_inside()):
                if _ep_entry.hits < 3:
                    _ep_entry.hits += 1
                for _ep_one in _ep_served:
                    return _ep_value
        except _ep_missing:
            pass
        return {wait}_ep_slow(({positional}), {{{keyword}}})

    def _ep_at({names}):
        return ({parts})

    return _ep_call, _ep_at
"""


class Compiled:
    """A wrapper, and how the arguments of a call become its place in the table.

    Attributes:
        wrapper: What the host calls.
        parts: From all arguments in the order of the signature, what the key is made of.
        is_single: Whether the one part itself is the index, not a tuple of parts.
        served: How many calls the table has answered.
    """

    __slots__ = ("is_single", "parts", "served", "wrapper")

    def __init__(
        self,
        wrapper: Any,
        parts: Callable[..., tuple[Any, ...]],
        served: Callable[[], int],
        is_single: bool,
    ) -> None:
        self.wrapper: Any = wrapper
        self.parts: Callable[..., tuple[Any, ...]] = parts
        self.served: Callable[[], int] = served
        self.is_single: bool = is_single


def compile_wrapper(
    signature: inspect.Signature,
    reaches: Sequence[str] | None,
    table: dict[Any, Any],
    slow: Callable[..., Any],
    *,
    is_async: bool,
) -> Compiled | None:
    """Return a wrapper for ``signature``, or ``None`` when it has to be the general one.

    Args:
        signature: Of the function; ``*args`` and ``**kwargs`` are left to the general wrapper.
        reaches: What the key is made of: ``"event_id"``, ``"self.id"``; ``None`` when only a function knows.
        table: Entries by what the key is made of.
        slow: Answers what the table cannot, from ``args`` and ``kwargs``.
        is_async: Whether the wrapper is a coroutine function.
    """
    parameters = list(signature.parameters.values())
    if reaches is None or not all(map(_REACH.fullmatch, reaches)):
        return None
    for parameter in parameters:
        variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if variable or parameter.name.startswith(_OURS) or not parameter.name.isidentifier():
            return None
    parts = list(dict.fromkeys(reaches))
    # Enclosed, not global: the wrapper gets the globals of the function, where frameworks look for names.
    counter, served = make_counter()
    space: dict[str, Any] = {
        "_ep_table": table, "_ep_slow": slow, "_ep_dead": DEAD, "_ep_missing": _MISSING,
        "_ep_dirty": DIRTY, "_ep_inside": aside, "_ep_served": counter,
    }  # fmt: skip
    keyword = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    positional = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    text = _BODY.format(
        define="async def" if is_async else "def",
        wait="await " if is_async else "",
        parameters=_parameters(parameters, space),
        given=", ".join(space),
        at=parts[0] if len(parts) == 1 else f"({', '.join(parts)})",
        positional="".join(f"{name}, " for name in positional),
        keyword=", ".join(f"{name!r}: {name}" for name in keyword),
        names=", ".join(p.name for p in parameters),
        parts="".join(f"{part}, " for part in parts),
    )
    made: dict[str, Any] = {}
    exec(compile(text, "<eventperf cached call>", "exec"), made)
    call, place = made["_ep_make"](**space)
    return Compiled(call, place, served, len(parts) == 1)


def make_counter() -> tuple[Iterator[None], Callable[[], int]]:
    """Return what a hit takes one step of, and what tells how many were taken.

    A step is one call in C that makes no object: cheaper than to add to a number, and no thread's is lost.
    """
    steps = repeat(None, _STEPS)
    return steps, lambda: _STEPS - length_hint(steps)


def _parameters(parameters: Sequence[inspect.Parameter], space: dict[str, Any]) -> str:
    """Return the text of the parameters; their defaults go into ``space``."""
    out: list[str] = []
    last: Any = None
    for n, parameter in enumerate(parameters):
        if last is parameter.POSITIONAL_ONLY and parameter.kind is not parameter.POSITIONAL_ONLY:
            out.append("/")
        if parameter.kind is parameter.KEYWORD_ONLY and last is not parameter.KEYWORD_ONLY:
            out.append("*")
        last = parameter.kind
        if parameter.default is parameter.empty:
            out.append(parameter.name)
        else:
            space[f"_ep_default{n}"] = parameter.default
            out.append(f"{parameter.name}=_ep_default{n}")
    if last is inspect.Parameter.POSITIONAL_ONLY:
        out.append("/")
    return ", ".join(out)
