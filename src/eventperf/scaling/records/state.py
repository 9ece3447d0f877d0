"""What was learned, kept where the next leader finds it: without a volume, beside or instead of a log."""

from __future__ import annotations

import os
import tempfile
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.durations import Duration, seconds
from eventperf._core.files import private
from eventperf._core.logs import logger
from eventperf.scaling.model import ScalingDecision
from eventperf.scaling.protocols import StateStore

_log = logger("eventperf.scaling")

_MOST_BYTES = 8 << 20
FROZEN = ".frozen"
"""What a name of the store ends with that holds a target; a store that forgets keeps these."""


class LearnedState:
    """The newest record of each target in a :class:`StateStore`: shapes, capacity, recent changes.

    Written at once when replicas were changed, since limits on the rate of changes hold across leaders, else
    every ``every``; less than 20 kB a target in the usual case, packed. Give it to
    :class:`~eventperf.scaling.AutoScaler` as ``state=``.

    Args:
        store: ``FileState``, ``RedisState``, ``ConfigMapState``, or anything of that shape.
        guard: Asked before each write, for example a leader's ``is_leader``: who leads no longer must not
            write over what the next one has learned.

    >>> import tempfile
    >>> from eventperf.scaling import AutoScaler, CallableMetrics, SimulatedTarget, TargetTracking
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for _ in range(2):  # the second one goes on from the first
    ...         state = LearnedState(FileState(folder))
    ...         scaler = AutoScaler(SimulatedTarget(2), CallableMetrics(rps=lambda: 300),
    ...                             TargetTracking(rps=50), max_replicas=10, state=state)
    ...         decision = scaler.tick()
    >>> len(decision.observation.changes) > 0
    True
    """

    def __init__(
        self,
        store: StateStore,
        *,
        every: Duration = 60.0,
        guard: Callable[[], bool] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.store: StateStore = store
        self.guard: Callable[[], bool] | None = guard
        self._every_s = seconds(every, name="every")
        self._clock = clock or SystemClock()
        self._saved_at: dict[str, float] = {}
        self._newest: dict[str, ScalingDecision] = {}
        self._mu = threading.Lock()

    def recall(self, target: str, *, dry_run: bool = False) -> ScalingDecision | None:
        """Return the newest record of ``target``, or ``None``; one that cannot be read is told and left.

        Raises:
            BackendUnavailable: The store gave no answer.
        """
        data = self.store.load(_key(target, dry_run))
        if data is None:
            return None
        try:
            plain = zlib.decompressobj()
            text = plain.decompress(data, _MOST_BYTES)
            if plain.unconsumed_tail:
                raise ValueError(f"more than {_MOST_BYTES >> 20} MB")
            record = ScalingDecision.from_json(text.decode())
        except (ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
            _log.warning("%s: the state kept cannot be read, starting anew: %s", target, error)
            return None
        return record if record.target == target and record.dry_run == dry_run else None

    def keep(self, decision: ScalingDecision) -> None:
        """Write ``decision`` if it is due.

        Raises:
            BackendUnavailable: It could not be written; the next tick tries again.
        """
        if decision.observation is None:
            return
        key, now = _key(decision.target, decision.dry_run), self._clock.monotonic()
        with self._mu:
            self._newest[key] = decision
            is_due = now - self._saved_at.get(key, float("-inf")) >= self._every_s
        if is_due or decision.applied:
            self._save(key)

    def freeze(self, target: str, on: bool = True) -> None:
        """Hold the replicas of ``target``, whichever process scales it and whoever follows; or let it go on.

        Every scaler that has this state obeys at its next tick.

        Raises:
            BackendUnavailable: It could not be written.
        """
        self.store.save(_key(target, False) + FROZEN, b"frozen" if on else b"")

    def is_frozen(self, target: str) -> bool:
        """Return whether somebody holds ``target``.

        Raises:
            BackendUnavailable: The store gave no answer.
        """
        return bool(self.store.load(_key(target, False) + FROZEN))

    def flush(self) -> None:
        """Write what was not due yet; a store that gives no answer is told in the log."""
        for key in tuple(self._newest):
            try:
                self._save(key)
            except Exception as error:
                _log.warning("what was learned last is not kept: %s", error)

    def _save(self, key: str) -> None:
        if self.guard is not None and not self.guard():
            return
        with self._mu:
            decision = self._newest.pop(key, None)
        if decision is None or decision.observation is None:
            return
        seen = replace(decision.observation, memory={}, samples={}, calendar=())
        try:
            record = replace(decision, observation=seen, warnings={}, blind={}, forecast=None).to_json()
            self.store.save(key, zlib.compress(record.encode(), 6))
        except BaseException:
            with self._mu:
                self._newest.setdefault(key, decision)
            raise
        self._saved_at[key] = self._clock.monotonic()

    def close(self) -> None:
        """Write what is left and close the store."""
        self.flush()
        self.store.close()


def _key(target: str, dry_run: bool) -> str:
    """Return a name of plain letters that no other target has."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "." for c in target)[:80]
    mark = sha256(target.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{plain}.{mark}{'.shadow' if dry_run else ''}"


class FileState:
    """A folder with a file for each name, for a volume that the next process sees too.

    Files are readable by this user alone and replaced as a whole.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)

    def load(self, name: str, /) -> bytes | None:
        try:
            with open(self._folder / name, "rb", opener=private) as file:
                return file.read(_MOST_BYTES)
        except FileNotFoundError:
            return None

    def save(self, name: str, data: bytes, /) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, made = tempfile.mkstemp(dir=self._folder, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(made, self._folder / name)
        except BaseException:
            with suppress(OSError):
                os.unlink(made)
            raise

    def close(self) -> None:
        """Nothing is open."""
