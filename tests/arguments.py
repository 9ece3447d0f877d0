"""What drives the tables of wrong arguments: each value must be refused by the argument's name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from eventperf.errors import ConfigurationError

SHOWN = 3_000
"""Characters of a refusal at most, whatever was given."""


def refused(argument: str, wrongs: Iterable[Any], call: Callable[[Any], Any]) -> list[str]:
    """Return what came of those values that were not refused as they should be."""
    found = ((wrong, _fault(argument, wrong, call)) for wrong in wrongs)
    return [f"{argument}={_shown(wrong)} was {fault}" for wrong, fault in found if fault]


def _fault(argument: str, wrong: Any, call: Callable[[Any], Any]) -> str:
    try:
        call(wrong)
    except ConfigurationError as error:
        good = error.argument == argument and error.allowed and len(str(error)) < SHOWN
        return "" if good else f"refused as {error.argument}: {str(error)[:100]}"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:100]}"
    return "taken"


def _shown(value: Any) -> str:
    return repr(value)[:40].encode("ascii", "backslashreplace").decode()


class Twins:
    """A manager whose calls go to their asynchronous twins, where they have one.

    Args:
        manager: What is called.
        unawaited: Calls whose twin returns something else than a coroutine.
    """

    def __init__(self, manager: Any, *unawaited: str) -> None:
        self._manager, self._unawaited = manager, unawaited

    def __getattr__(self, name: str) -> Any:
        twin = getattr(self._manager, f"a{name}", None)
        if twin is None:
            return getattr(self._manager, name)
        if name in self._unawaited:
            return twin
        return lambda *args, **options: asyncio.run(twin(*args, **options))
