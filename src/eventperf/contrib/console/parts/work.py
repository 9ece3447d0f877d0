"""Long things that a page begins and does not wait for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from eventperf.contrib.console.texts import say

from .part import Refused

_MOST_LINES: Final = 200


class Work:
    """One long thing at a time, on a thread of its own, with what it says.

    Attributes:
        lines: Its last words.
        error: Why it ended early, empty if it did not.
    """

    def __init__(self) -> None:
        self._mu = threading.Lock()
        self._thread: threading.Thread | None = None
        self.what: str = ""
        self.lines: deque[str] = deque(maxlen=_MOST_LINES)
        self.error: str = ""

    @property
    def is_running(self) -> bool:
        """Whether it goes on."""
        return self._thread is not None and self._thread.is_alive()

    def begin(self, what: str, run: Callable[[Callable[[str], None]], None]) -> None:
        """Start ``run``.

        Raises:
            Refused: Something is under way.
        """

        def whole() -> None:
            try:
                run(self.lines.append)
            except BaseException as error:  # shown on the page: nobody waits for the thread
                self.error = f"{type(error).__name__}: {error}"

        with self._mu:
            if self.is_running:
                raise Refused(say("still_under_way", what=self.what))
            self.what, self.error = what, ""
            self.lines.clear()
            self._thread = threading.Thread(target=whole, name=f"eventperf-console-{what}", daemon=True)
            self._thread.start()
