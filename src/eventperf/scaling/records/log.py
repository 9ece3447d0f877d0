"""Decisions kept: in memory, and as JSON lines where a path is given."""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from typing_extensions import Self

from eventperf._core.files import private
from eventperf._core.logs import logger
from eventperf.scaling.model import ScalingDecision
from eventperf.scaling.protocols import ReplicaTarget

from .tail import Tail, is_cut

_log = logger("eventperf.scaling")

_CHECKPOINT_S = 900.0
_LOOK_S = 60.0


class DecisionLog:
    """Every decision, newest last.

    Args:
        path: Append one JSON line per decision to this file; in memory only without it.
        keep: How many are kept in memory.
        steady: Whether ticks that changed nothing are written too; a record of the whole day, which
            :class:`~eventperf.scaling.ShadowScore` can judge another policy on.

    What a policy has learned is written every quarter of an hour in any case, for :meth:`recall`. Safe for
    the threads of a fleet. :class:`~eventperf.scaling.SqlDecisionLog` writes a table instead.

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
        self._stored_at: dict[str, float] = {}
        self._tail: Tail | None = None
        self._looked_at = -math.inf
        self.fault: str = ""
        """Why the last record that was due is not stored, empty when it is."""
        self._claims: dict[tuple[str, bool], Any] = {}

    def claim(self, target: ReplicaTarget, *, dry_run: bool) -> None:
        """Note that decisions on ``target`` come here; two of one name would go on from each other's."""
        key = (target.name, dry_run)
        other = self._claims.get(key)
        alive = None if other is None else other()
        if alive is not None and alive is not target:
            text = "two targets named %r write to one decision log: each would go on from the other. "
            _log.warning(text + "Give each a log, or a name, of its own", target.name)
        with suppress(TypeError):  # a target without weak references
            self._claims[key] = weakref.ref(target)

    def release(self, target: ReplicaTarget, *, dry_run: bool) -> None:
        """Take :meth:`claim` back."""
        self._claims.pop((target.name, dry_run), None)

    def write(self, decision: ScalingDecision) -> None:
        """Keep ``decision``.

        Raises:
            OSError: The file could not be written; the decision is kept in memory all the same.
        """
        self._kept.append(decision)
        is_due = decision.at - self._stored_at.get(decision.target, 0.0) >= _CHECKPOINT_S
        if self._steady or decision.action != "none" or decision.error or (is_due and decision.memory):
            self._stored_at[decision.target] = decision.at
            try:
                if self._store(decision):
                    self.fault = ""
            except Exception as error:
                self.fault = f"{type(error).__name__}: {error}"
                raise

    def recall(self, target: str, *, dry_run: bool = False) -> ScalingDecision | None:
        """Return the newest stored decision for ``target`` that a scaler can go on from, or ``None``.

        Args:
            dry_run: Whether a shadow asks: it goes on from a shadow's decisions only, and nobody else does.

        Raises:
            OSError: The file could not be read.
        """
        for decision in reversed(tuple(self._kept)):
            is_its = decision.target == target and decision.dry_run == dry_run
            if is_its and decision.observation is not None:
                return decision
        if self._path is None:
            return None
        with self._mu:
            is_old = time.monotonic() - self._looked_at > _LOOK_S
            if (
                self._tail is None or is_old or not self._tail.is_current
            ):  # a whole fleet asks at once, one look is enough
                self._tail, self._looked_at = Tail(self._path), time.monotonic()
            while (line := self._tail.newest(target, dry_run)) is not None:
                try:
                    return ScalingDecision.from_json(line.decode())
                except (
                    ValueError,
                    KeyError,
                    TypeError,
                    AttributeError,
                ):  # of another version, or cut by a crash
                    self._tail.leave(target, dry_run)
        return None

    def _store(self, decision: ScalingDecision) -> bool:
        """Write one record; returns whether nothing is left to be written."""
        if self._path is None:
            return True
        line = decision.to_json() + "\n"
        # opened for each line, so that a file that was moved away (logrotate) is begun anew
        with self._mu, open(self._path, "a", encoding="utf-8", opener=private) as file:
            file.write("\n" + line if is_cut(self._path) else line)
            if time.monotonic() - self._looked_at > _LOOK_S:
                self._tail = None  # all who began together have asked
        return True

    def close(self) -> None:
        """Let go of what the log holds open; a file is open only while it is read or written."""
        self._tail = None

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
        """Read the decisions of a file; lines that a crash cut or damaged are told in the log and left out.

        Raises:
            ValueError: Not one line is a decision.
        """
        good, bad, reason = 0, 0, ""
        with open(path, "rb", opener=private) as file:
            for line in file:
                if not line.strip():
                    continue
                try:
                    decision = ScalingDecision.from_json(line.decode())
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    bad, reason = bad + 1, str(error)
                    continue
                good += 1
                yield decision
        if bad and not good:
            raise ValueError(reason)
        if bad:
            _log.warning("%s: %d lines cannot be read and are left out: %s", path, bad, reason)
