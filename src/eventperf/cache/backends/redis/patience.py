"""How long a server may be silent: measured, and without counting the time that this process was busy.

Silence is what a time-out is about. The milliseconds in which our own event loop ran something else, and the
seconds that a large value needs on its way, are no silence.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from eventperf._core.durations import Duration, seconds
from eventperf._core.logs import logger
from eventperf._redis.patience import BYTES_PER_S as BYTES_PER_S
from eventperf._redis.patience import Patience as Patience

_log = logger("eventperf.cache")

LEAST_S: Final = 0.05
MOST_S: Final = 1.0
ROUND_TRIPS: Final = 8
"""So many measured round trips long the server may be silent, between the two bounds above."""
LARGE: Final = 65_536
COMMAND_S: Final = 0.0005
"""What each further command of one call may take: a script on a machine that is busy with other things."""


class Timeout:
    """The time-out of one store: fixed, or ``"auto"``: following the round trips that are measured.

    Args:
        given: A duration, or ``"auto"``.
        url: For the log.
    """

    def __init__(self, given: Duration | str, url: str = "") -> None:
        self.is_auto: bool = given == "auto"
        self._url = url
        self.seconds: float = LEAST_S if self.is_auto else seconds(given, name="timeout", maximum=60)
        self.round_trip_s: float | None = None
        self._on_change: list[Callable[[], None]] = []
        self.after_fork()

    def after_fork(self) -> None:
        """Make a lock that no thread of the parent holds."""
        self._mu = threading.RLock()

    def on_change(self, renew: Callable[[], None]) -> None:
        """Call ``renew`` when connections that are open have an outdated time-out."""
        self._on_change.append(renew)

    def measured(self, round_trip_s: float) -> None:
        """Follow a round trip that was measured while the server had nothing else to do for us."""
        with self._mu:
            known = self.round_trip_s
            smooth = round_trip_s if known is None else known + (round_trip_s - known) / 8
            self.round_trip_s = smooth
            wanted = min(MOST_S, max(LEAST_S, ROUND_TRIPS * smooth))
            if not self.is_auto or self.seconds / 2 <= wanted <= self.seconds * 1.25:
                return
            grew = wanted > self.seconds
            self.seconds = wanted
        if grew:
            _log.warning(
                "cache at %s: a round trip takes %.0f ms; waiting up to %.0f ms for an answer",
                self._url, smooth * 1000, wanted * 1000,
            )  # fmt: skip
        for renew in self._on_change:
            renew()

    @property
    def probe_s(self) -> float:
        """How long a sign of life may take, which decides whether the time-out is too short."""
        return max(self.seconds, 0.6) if self.is_auto else self.seconds

    def for_bytes(self, size: int, commands: int = 1) -> float:
        """Return how long commands of so many bytes in all may take: each is work for the server."""
        return self.seconds + (size / BYTES_PER_S if size > LARGE else 0.0) + (commands - 1) * COMMAND_S


def weight(command: tuple[Any, ...]) -> int:
    """Return the bytes of a command, as far as they matter."""
    return sum(len(part) for part in command if type(part) is bytes)
