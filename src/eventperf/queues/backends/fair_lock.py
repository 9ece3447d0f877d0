"""A lock that is handed over in the order of arrival."""

from __future__ import annotations

import threading
from collections import deque


class FairLock:
    """Mutual exclusion without starvation: a thread in a tight loop cannot overtake those who wait."""

    def __init__(self) -> None:
        self._mu = threading.Lock()
        self._taken = False
        self._line: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._mu:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._line.append(mine)
        mine.acquire()

    def __exit__(self, *exc: object) -> None:
        with self._mu:
            if self._line:
                self._line.popleft().release()
            else:
                self._taken = False
