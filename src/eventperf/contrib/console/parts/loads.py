"""What a cache loads: which keys cost most, kept from its events in bounded memory."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from eventperf._pages.html import Html
from eventperf.contrib.console.texts import heads, say
from eventperf.contrib.console.view import View, age, concealed, empty, listing

if TYPE_CHECKING:
    from eventperf.cache import CacheManager, Loaded, LoadFailed

_KEPT: Final = 1_000
_SHOWN: Final = 20


@dataclass(slots=True)
class Load:
    """All loads of one key here."""

    loads: int = 0
    failed: int = 0
    total_s: float = 0.0
    longest_s: float = 0.0


class Loads:
    """The keys whose loading cost most since the console was made.

    When there are too many, the cheaper half is forgotten: a key that costs much has soon come back.
    """

    def __init__(self, cache: CacheManager) -> None:
        from eventperf.cache import Loaded, LoadFailed

        self._mu = threading.Lock()
        self._known: dict[str, Load] = {}
        cache.on(self._note, Loaded, LoadFailed)

    def _note(self, event: Loaded | LoadFailed) -> None:
        spent = getattr(event, "seconds", None)
        with self._mu:
            if len(self._known) >= 2 * _KEPT and event.key not in self._known:
                self._known = dict(self._dearest(_KEPT))
            load = self._known.setdefault(event.key, Load())
            if spent is None:
                load.failed += 1
            else:
                load.loads += 1
                load.total_s += spent
                load.longest_s = max(load.longest_s, spent)

    def _dearest(self, most: int) -> list[tuple[str, Load]]:
        return sorted(self._known.items(), key=lambda pair: (-pair[1].total_s, -pair[1].failed))[:most]

    def table(self, view: View) -> Html:
        """Return those that cost most; keys may be what users typed, as values may."""
        with self._mu:
            rows = [
                (key, f"{n.loads:,}", f"{n.failed:,}", _mean(n), age(n.longest_s), age(n.total_s))
                for key, n in self._dearest(_SHOWN)
            ]
        if not rows:
            return empty(say("no_loads"))
        if not view.may("view.value", None):
            return concealed(say("what_keys"))
        columns = heads("key loads failed mean longest total")
        return listing(say("dearest_loads"), columns, rows, range(1, 6))


def _mean(load: Load) -> str:
    return age(load.total_s / load.loads) if load.loads else say("none")
