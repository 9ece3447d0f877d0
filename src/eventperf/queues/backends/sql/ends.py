"""Final states: what a job leaves behind, and what becomes of those that waited for it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import bindparam, delete, select, update

from eventperf._core.logs import logger
from eventperf.queues.options import QueueConfig

from . import flows
from . import tables as s
from .rows import clean
from .tx import Tx

_log = logger("eventperf.queues")
_j = s.jobs.c

_BATCH = 1000
_SAY_EVERY_S = 60.0
_COUNTERS = {s.COMPLETED: "completed", s.FAILED: "failed", s.CANCELLED: "cancelled"}
_trimmed: dict[str, tuple[float, int]] = {}  # queue: when it was said last, and how many since


def free_keys(tx: Tx, found: Iterable[Any], kinds: tuple[str, ...] = ("waiting", "running")) -> None:
    """Free the unique keys of jobs that have ended, or that run now."""
    if held := [(r.held_key, r.id) for r in found if r.held_key and r.held_for in kinds]:
        tx.d.free_keys(tx.conn, tx.ns, held)


def end(tx: Tx, found: Sequence[Any], state: int, **values: Any) -> None:
    """Move jobs to a final state, count them, and free or cancel those that waited for them.

    A cancelled job dooms its children and these theirs.
    """
    _close(tx, found, state, values)
    settle(tx, found, state)


def settle(tx: Tx, found: Sequence[Any], state: int, *, forgotten: bool = False) -> None:
    """Free or cancel the jobs that waited for those that have ended."""
    doomed = flows.after(tx, found, state, forgotten=forgotten)
    while doomed:
        children: dict[int, tuple[Any, str]] = {row.seq: (row, why) for row, why in doomed}
        rows = [row for row, _ in children.values()]
        deeper = flows.below(tx, rows)
        flows.forget(tx, [*rows, *deeper])
        for row in (*rows, *deeper):
            tx.tally.add(row.queue, delayed=-1)
        _close(tx, rows, s.CANCELLED, {}, {seq: why for seq, (_, why) in children.items()})
        _close(tx, deeper, s.CANCELLED, {"error": flows.DOOMED})
        # Those that waited for an end of any kind; of these, some for a failure that this is not.
        doomed = flows.after(tx, [*rows, *deeper], s.CANCELLED)


def doom(tx: Tx, found: Sequence[Any], why: str) -> None:
    """Cancel delayed jobs that wait in vain."""
    if found:
        flows.forget(tx, found)
        for row in found:
            tx.tally.add(row.queue, delayed=-1)
        end(tx, found, s.CANCELLED, error=why)


def bury(tx: Tx, found: Sequence[tuple[Any, str, int]]) -> None:
    """Move jobs ``(row, reason, attempts)`` to the dead letter."""
    if not found:
        return
    rows = [row for row, _, _ in found]
    errors = {row.seq: reason for row, reason, _ in found}
    _close(tx, rows, s.FAILED, {}, errors, {row.seq: attempts for row, _, attempts in found})
    for row in rows:
        tx.tally.add(row.queue, dead=1)
    settle(tx, rows, s.FAILED)
    for queue in {row.queue for row in rows}:
        config = tx.home.settings.queues.get(queue)
        if config is not None and config.keep_failed is not None:
            _trim(tx, config, config.keep_failed)


def _close(
    tx: Tx,
    found: Sequence[Any],
    state: int,
    values: dict[str, Any],
    errors: dict[int, str] | None = None,
    attempts: dict[int, int] | None = None,
) -> None:
    """Write the final state; with ``errors`` each job gets its own."""
    if not found:
        return
    ttl = tx.home.settings.options.result_ttl_s
    values = {"finished_at": tx.now, "at": tx.now + min(ttl, 60.0), **values}
    values |= {"progress": None, "steps": None, "state": state}
    seqs = [row.seq for row in found]
    for i in range(0, len(seqs), _BATCH):
        tx.conn.execute(update(s.jobs).where(_j.seq.in_(seqs[i : i + _BATCH])).values(**values))
    if errors is not None:
        own = [
            {"b_seq": seq, "b_error": clean(errors[seq]), "b_at": tx.now + i * 1e-6}
            for i, seq in enumerate(seqs)
        ]
        more: dict[str, Any] = {"error": bindparam("b_error"), "finished_at": bindparam("b_at")}
        if attempts is not None:
            more["attempts"] = bindparam("b_attempts")
            own = [{**one, "b_attempts": attempts[one["b_seq"]]} for one in own]
        tx.conn.execute(update(s.jobs).where(_j.seq == bindparam("b_seq")).values(**more), own)
    for row in found:
        tx.tally.add(row.queue, **{_COUNTERS[state]: 1})
    free_keys(tx, found)


def delete_jobs(tx: Tx, found: Sequence[Any], *only: Any) -> int:
    """Delete jobs with their tags and what is remembered of their children; return how many."""
    gone = 0
    for i in range(0, len(found), _BATCH):
        some = [row.seq for row in found[i : i + _BATCH]]
        gone += tx.conn.execute(delete(s.jobs).where(_j.seq.in_(some), *only)).rowcount
        tx.conn.execute(delete(s.tags).where(s.tags.c.job_seq.in_(some)))
        flows.disown(tx, [row.id for row in found[i : i + _BATCH]])
    return gone


def _trim(tx: Tx, config: QueueConfig, keep: int) -> None:
    order = _j.finished_at.desc(), _j.seq.desc()
    old = select(_j.seq, _j.id).where(_j.ns == tx.ns, s.in_state(s.FAILED), _j.queue == config.name)
    found = tx.conn.execute(old.order_by(*order).offset(keep).limit(_BATCH)).all()
    if not found:
        return
    gone = delete_jobs(tx, found, s.in_state(s.FAILED))
    tx.tally.add(config.name, dead=-gone, trimmed=gone)
    settle(tx, found, s.FAILED, forgotten=True)
    _say_trimmed(config, gone)


def _say_trimmed(config: QueueConfig, gone: int) -> None:
    said, since = _trimmed.get(config.name, (-_SAY_EVERY_S, 0))
    now, since = time.monotonic(), since + gone
    if now - said < _SAY_EVERY_S:
        _trimmed[config.name] = said, since
        return
    _trimmed[config.name] = now, 0
    _log.warning(
        "queue %s: %d dead jobs were deleted for good, it keeps the last %d "
        "(QueueConfig(keep_failed=None) keeps all)", config.name, since, config.keep_failed or 0,
    )  # fmt: skip
