"""What this process knows of one worker: what it has heard, what it holds where, what it hears with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from eventperf._core.logs import logger
from eventperf.queues.protocols import WorkerCard

from .hints import Hints

_log = logger("eventperf.queues")

_SILENT_S = 5.0
"""A line on which nothing came for so long is asked whether it still is one."""

_PATIENCE_S = 2.0


OpenLine = Callable[[], "tuple[Any, Any]"]
"""Returns a connection that can subscribe, and its client."""


class Desk:
    """One worker of this process."""

    def __init__(self, card: WorkerCard, space: str, count: int, open_line: OpenLine) -> None:
        self.card = card
        self.hints = Hints(count, card.lease_s, hash(card.id))
        self.strange: set[int] = set()  # partitions that may have answered claims into the void
        self.turn = 0  # of the partitions that are told of the worker by turns
        self._count = count
        self._space = space
        self._held: dict[str, int] = {}
        self._came = threading.Condition()
        self._work = self._nudged = self._asked = False
        self._ears: _Ears | None = None
        self._open_line = open_line

    # -- what it holds -----------------------------------------------------------------------------

    def took(self, ids: Iterable[str], partition: int) -> None:
        for one in ids:
            self._held[one] = partition

    def gave(self, ids: Iterable[str]) -> None:
        for one in ids:
            self._held.pop(one, None)

    def holds(self, partition: int) -> list[str]:
        return [one for one, at in list(self._held.items()) if at == partition]

    def lost(self, partition: int, error: Exception) -> None:
        """Note that a partition does not answer; the log hears of it once."""
        self.strange.add(partition)
        if self.hints.lost(partition, time.monotonic()):
            _log.warning("worker %s lost partition %d and keeps trying: %s", self.card.id, partition, error)

    def has_again(self, partition: int) -> None:
        _log.warning("worker %s has partition %d again", self.card.id, partition)

    # -- what it hears -----------------------------------------------------------------------------

    def hear(self, partition: int | None = None) -> None:
        """Note that there may be work in a partition, or in any."""
        self.hints.hear(partition)
        self._wake(work=True)

    def nudge(self) -> None:
        """End a wait for messages."""
        self._wake(nudged=True)

    def _wake(self, *, work: bool = False, nudged: bool = False, asked: bool = False) -> None:
        with self._came:
            self._work, self._nudged = self._work or work, self._nudged or nudged
            self._asked = self._asked or asked
            self._came.notify_all()

    def wait(self, timeout_s: float, *, for_work: bool) -> bool | str:
        """Wait for a message or a nudge, or for word of work as well; false after ``timeout_s``."""
        with self._came:
            self._came.wait_for(
                lambda: self._asked or self._nudged or (for_work and self._work), max(0.0, timeout_s)
            )
            asked, came = self._asked, self._nudged or (for_work and self._work)
            self._asked = self._nudged = False
            if for_work:
                self._work = False
            return "message" if asked else came

    def listen(self) -> None:
        """Begin to hear."""
        with self._came:
            if self._ears is None:
                self._ears = _Ears(self, self._open_line, self._space)

    def hears(self) -> None:
        """Wait, not for long, until it hears: then nothing is missed that is said after the next claims."""
        if self._ears is not None:
            self._ears.open.wait(_PATIENCE_S)

    def close(self) -> None:
        if self._ears is not None:
            self._ears.closed = True
        self.nudge()

    def said(self, channel: bytes, data: bytes) -> None:
        if channel.endswith(b":wake"):
            if data.isdigit() and int(data) < self._count:
                self.hear(int(data))
        else:
            self._wake(asked=True)


class _Ears:
    """A thread that listens to the channels of all partitions, whatever happens to its connection."""

    def __init__(self, desk: Desk, open_line: OpenLine, space: str) -> None:
        self.closed = False
        self.open = threading.Event()
        self._began = time.monotonic()
        self._desk = desk
        self._line = open_line
        self._channels = (f"eventperf:{space}:wake", f"eventperf:{space}:to:{desk.card.id}")
        threading.Thread(target=self._run, name="eventperf-ears", daemon=True).start()

    def _run(self) -> None:
        pause = 0.1
        while not self.closed:
            both: tuple[Any, ...] = ()
            try:
                both = line, _ = self._line()
                line.subscribe(*self._channels)
                self._hear(line)
                pause = 0.1
            except Exception as error:  # whatever it is: the worker looks at partitions by turns meanwhile
                _log.debug("worker %s hears nothing for now: %s", self._desk.card.id, error)
                time.sleep(pause)
                pause = min(2 * pause, 2.0)
            finally:
                for one in both:
                    _close(one)

    def _hear(self, line: Any) -> None:
        missing, quiet_since, asked = len(self._channels), time.monotonic(), False
        while not self.closed:
            message = line.get_message(timeout=0.5)
            now = time.monotonic()
            if message is None:
                if now - quiet_since > 2 * _SILENT_S:
                    raise TimeoutError("the line is dead")
                if now - quiet_since > _SILENT_S and not asked:
                    asked = True
                    line.ping()
                continue
            quiet_since, asked = now, False
            if message["type"] == "subscribe":
                missing -= 1
                if not missing:
                    self._opened(now)
            elif message["type"] == "message":
                self._desk.said(message["channel"], message["data"])

    def _opened(self, now: float) -> None:
        if self.open.is_set() or now - self._began > _PATIENCE_S:
            self._desk.hear()  # what was said meanwhile, nobody heard
        self.open.set()


def _close(one: Any) -> None:
    try:
        one.close()
    except Exception as error:  # it was broken
        _log.debug("a line could not be closed: %s", error)
