"""Reporting how jobs ended: in batches, until the store has it, whatever one outcome is like."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from eventperf._core.logs import logger
from eventperf.queues.errors import PartlyUnavailable, StoreUnavailable
from eventperf.queues.job import Lease
from eventperf.queues.protocols import AsyncJobStore, Outcome

from .contact import REPORTING, Contact
from .supervise import ended, supervised

_log = logger("eventperf.queues")

_ACK_BATCH = 500
_REFUSED: Final = "it ended, but the store refused its outcome; the worker's log has the reason"

Ack = tuple[Lease, Outcome, "Callable[[], object] | None"]
"""A lease, how its job ended, and what to call once the store has accepted it."""


class Acks:
    """Outcomes on their way to the store: in batches, kept until the store has taken them.

    Args:
        on_refused: Told of a lease that was no longer the job's when its outcome came.
        settle: Told of every lease whose outcome the store has.
        contact: Told whether the store takes them.
        again: Told of a lease that was adopted although it is that of a new run.
    """

    def __init__(
        self,
        store: AsyncJobStore,
        on_refused: Callable[[Lease], object],
        settle: Callable[[Lease], object],
        contact: Contact,
        again: Callable[[Lease], object],
    ) -> None:
        self._store = store
        self._contact = contact
        self._again = again
        self._on_refused = on_refused
        self._settle = settle
        self._pending: list[Ack] = []
        self._some = asyncio.Event()
        self._none = asyncio.Event()
        self._none.set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        sending = supervised("reporting outcomes", self._send)
        self._task = asyncio.get_running_loop().create_task(sending)

    def add(self, lease: Lease, outcome: Outcome, then: Callable[[], object] | None) -> None:
        """Queue ``outcome``; ``then`` is called once the store has accepted it."""
        self._pending.append((lease, outcome, then))
        self._some.set()
        self._none.clear()

    def adopt(self, lease: Lease) -> bool:
        """Report a job's outcome under the lease it has by now; false where none waits to be reported."""
        for at, (old, outcome, then) in enumerate(self._pending):
            if outcome.job_id == lease.record.id and old.token != lease.token:
                self._pending[at] = (lease, replace(outcome, token=lease.token), then)
                return True
        return False

    @property
    def is_behind(self) -> bool:
        """Whether so much is unreported that no more should be claimed."""
        return len(self._pending) > 4 * _ACK_BATCH

    @property
    def unreported(self) -> int:
        """How many outcomes the store does not have yet."""
        return len(self._pending)

    def last(self, leases: Mapping[str, int]) -> list[Outcome]:
        """Return what to report of these leases when the process ends now."""
        ended = {outcome.job_id: outcome for _, outcome, _ in list(self._pending)}
        return [ended.get(one) or Outcome(one, token, "release") for one, token in list(leases.items())]

    async def flushed(self) -> bool:
        """Wait until everything is reported; always true."""
        await self._none.wait()
        return True

    async def close(self, timeout_s: float = 5.0) -> None:
        """Report what is left, for as long as the store takes some of it in each ``timeout_s``.

        Jobs whose outcome cannot be reported run again elsewhere.
        """
        left = len(self._pending) + 1
        while 0 < len(self._pending) < left:
            left = len(self._pending)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.flushed(), timeout_s)
        if self._pending:
            _log.error("%d outcomes could not be reported; those jobs will run again", len(self._pending))
        if self._task is not None:
            await ended([self._task])

    async def _send(self) -> None:
        pause = 0.05
        while True:
            await self._some.wait()
            batch = self._pending[:_ACK_BATCH]
            try:
                accepted = await self._store.finish([outcome for _, outcome, _ in batch])
            except StoreUnavailable as error:
                if isinstance(error, PartlyUnavailable):
                    self._taken_in_part(batch, error.answers)
                else:
                    self._contact.refused(REPORTING, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 0.5)
                continue
            except Exception:
                if len(batch) > 1:
                    _log.exception("%d outcomes are refused together; reporting them one by one", len(batch))
                await self._one_by_one(batch)
                continue
            pause = 0.05
            self._contact.taken(REPORTING)
            self._taken(batch, accepted)

    def _taken(self, batch: Sequence[Ack], accepted: Sequence[bool]) -> None:
        taken = self._pending[: len(batch)]
        del self._pending[: len(batch)]
        for sent, ack, good in zip(batch, taken, accepted, strict=True):
            if not good and ack[0].token != sent[0].token:  # its lease is a new one since it was sent
                self._pending.append(ack)
                continue
            lease, _, then = sent
            self._settle(lease)
            if ack[0].token != lease.token:  # its outcome was taken before: what was adopted is its next run
                self._again(ack[0])
            if not good:
                self._on_refused(lease)
            elif then is not None:
                then()
        if not self._pending:
            self._some.clear()
            self._none.set()

    def _taken_in_part(self, batch: Sequence[Ack], answers: Sequence[bool | None]) -> None:
        """Take what was answered; the rest goes to the end of the line."""
        now, rest = self._pending[: len(batch)], self._pending[len(batch) :]
        known = [k for k, answer in enumerate(answers) if answer is not None]
        silent = [now[k] for k, answer in enumerate(answers) if answer is None]
        self._pending = [now[k] for k in known] + rest + silent
        self._taken([batch[k] for k in known], [answers[k] is True for k in known])

    async def _one_by_one(self, batch: Sequence[Ack]) -> None:
        """Report what the store refuses as a whole, so that one outcome holds up no other."""
        for ack in batch:
            outcome = ack[1]
            plain = replace(outcome, kind="dead", result=None, followers=(), error=_REFUSED)
            for told in (outcome, plain):
                try:
                    accepted = await self._store.finish([told])
                except StoreUnavailable:
                    return  # it and the rest are tried again
                except Exception:
                    _log.exception("the outcome of job %s (%s) is refused", outcome.job_id, told.kind)
                else:
                    self._taken([ack if told is outcome else (ack[0], told, None)], accepted)
                    break
            else:
                _log.error("job %s runs again after its lease: no outcome can be stored", outcome.job_id)
                self._taken([(ack[0], outcome, None)], [True])
