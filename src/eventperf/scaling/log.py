"""Decisions kept: in memory, and as JSON lines where a path is given."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator

from typing_extensions import Self

from .model import ScalingDecision


class DecisionLog:
    """Every decision, newest last.

    Args:
        path: Append one JSON line per decision to this file; in memory only without it.
        keep: How many are kept in memory.
        steady: Whether ticks that changed nothing are written too; a record of the whole day, which
            :class:`~eventperf.scaling.ShadowScore` can judge another policy on.

    Safe for the threads of a fleet. :class:`~eventperf.scaling.SqlDecisionLog` writes a table instead.

    >>> log = DecisionLog()
    >>> len(log), log.last
    (0, None)
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, keep: int = 1000, steady: bool = False
    ) -> None:
        self._path = path
        self._steady = steady
        self._kept: deque[ScalingDecision] = deque(maxlen=keep)
        self._mu = threading.Lock()

    def write(self, decision: ScalingDecision) -> None:
        """Keep ``decision``.

        Raises:
            OSError: The file could not be written; the decision is kept in memory all the same.
        """
        self._kept.append(decision)
        if self._steady or decision.action != "none" or decision.error:
            self._store(decision)

    def _store(self, decision: ScalingDecision) -> None:
        if self._path is None:
            return
        line = decision.to_json() + "\n"
        # opened for each line, so that a file that was moved away (logrotate) is begun anew
        with self._mu, open(self._path, "a", encoding="utf-8") as file:
            file.write(line)

    def close(self) -> None:
        """Let go of what the log holds open; a file is open only while it is written."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def last(self) -> ScalingDecision | None:
        """The newest decision."""
        return self._kept[-1] if self._kept else None

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[ScalingDecision]:
        return iter(tuple(self._kept))

    @staticmethod
    def read(path: str | os.PathLike[str]) -> Iterator[ScalingDecision]:
        """Read the decisions of a file."""
        with open(path, encoding="utf-8") as file:
            for line in file:
                if line.strip():
                    yield ScalingDecision.from_json(line)
