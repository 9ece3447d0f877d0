"""Decisions kept: in memory, and as JSON lines where a path is given."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator

from .model import ScalingDecision


class DecisionLog:
    """Every decision, newest last.

    Args:
        path: Append one JSON line per decision to this file; in memory only without it.
        keep: How many are kept in memory.
        steady: Whether ticks that changed nothing are written to the file too.

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

    def write(self, decision: ScalingDecision) -> None:
        """Keep ``decision``.

        Raises:
            OSError: The file could not be written; the decision is kept in memory all the same.
        """
        self._kept.append(decision)
        if self._path is not None and (self._steady or decision.action != "none" or decision.error):
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(decision.to_json() + "\n")

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
