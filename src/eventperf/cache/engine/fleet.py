"""What all processes of a cache did: each tells its own figures while somebody looks.

Whoever looks says a word on the channel by which processes hear of one another's writes; each that hears it
leaves one note on a board, which the second tier keeps for half a minute. While nobody looks nothing is
written, and a look costs the same however much there is in the cache.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from eventperf._core.logs import logger
from eventperf.cache.errors import CacheError
from eventperf.cache.stats import CacheProcess

from .effects import Verb

_log = logger("eventperf.cache")

ASK_EVERY_S: Final = 10.0
TELL_EVERY_S: Final = 5.0
LIFE_S: Final = 35.0
MOST: Final = 500
"""Notes that a board holds; further processes are not told of."""

Board = Verb[[str, str, bytes, float, int], "list[tuple[float, bytes]]"]


class Fleet:
    """The board of one cache.

    Args:
        prefix: Of the cache's own keys and words that are no entries.
        board: Leaves a note and reads all (see :class:`~eventperf.cache.protocols.SupportsBoard`).
        now: Monotonic time.

    Attributes:
        word: What asks for figures.
        figures: Returns what tells them, while that is there.
    """

    def __init__(self, prefix: str, board: Board, now: Callable[[], float]) -> None:
        self.word: str = f"{prefix}look"
        self.figures: Callable[[], Callable[[], Mapping[str, Any]] | None] = lambda: None
        self._key, self._board, self._now = f"{prefix}fleet", board, now
        self.after_fork()

    def after_fork(self) -> None:
        """Be another process."""
        self._mu = threading.RLock()
        self._name = secrets.token_hex(8)
        self._asked_at = self._told_at = float("-inf")
        self._began = time.time()

    def is_due(self) -> bool:
        """Tell whether the others are to be asked (again) by this look."""
        with self._mu:
            due = self._now() - self._asked_at >= ASK_EVERY_S
            if due:
                self._asked_at = self._now()
            return due

    def look(self) -> list[CacheProcess]:
        """Tell one's own figures and return those of all, this process first.

        Raises:
            StoreUnavailable: The second tier does not answer, or refuses.
        """
        found = self._tell()
        return sorted(found, key=lambda one: (not one.is_here, one.host, one.pid, one.started_at))

    def heard(self, word: str) -> bool:
        """Tell whether a word asks for figures; they are told on a thread of their own, or were lately."""
        if word != self.word:
            return False
        with self._mu:
            if self._now() - self._told_at >= TELL_EVERY_S:
                self._told_at = self._now()
                try:
                    threading.Thread(target=self._answer, name="eventperf-cache-fleet", daemon=True).start()
                except RuntimeError:
                    return True  # no new threads at interpreter shutdown
        return True

    def _answer(self) -> None:
        try:
            self._tell()
        except CacheError as error:  # counted, and said once, by the gate
            _log.debug("figures are not told: %s", error)

    def _tell(self) -> list[CacheProcess]:
        with self._mu:
            self._told_at = self._now()
        about = {"host": socket.gethostname()[:100], "pid": os.getpid(), "began": self._began}
        figures = self.figures()
        note = {"name": self._name, **about, **(figures() if figures is not None else {})}
        found = self._board.plain(self._key, self._name, json.dumps(note).encode(), LIFE_S, MOST)
        return [one for age_s, text in found if (one := self._read(text, age_s)) is not None]

    def _read(self, text: bytes, age_s: float) -> CacheProcess | None:
        """Return a note; nothing of what is none: whoever can write there may have left it."""
        try:
            note = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return CacheProcess.told(note, age_s, self._name) if isinstance(note, dict) else None
