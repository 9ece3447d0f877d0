"""How claimed jobs end, and what running ones note."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, select, update

from eventperf.queues.attempts import ENDINGS
from eventperf.queues.job import NewJob
from eventperf.queues.protocols import Outcome

from . import arrivals, ends
from . import tables as s
from .rows import MOST_TRIES, clean, longer, names_of, run_of
from .tx import Tx

_j = s.jobs.c

_BATCH = 1000

Accepted = set[tuple[str, int]]


def finish(tx: Tx, outcomes: Sequence[Outcome]) -> list[bool]:
    """Record outcomes; false where the token is no longer the job's."""
    tx.ask_now()
    plain = [o for o in outcomes if _is_plain(o)]
    accepted: Accepted = set()
    rest = list(outcomes)
    if plain:
        ttl = tx.home.settings.options.result_ttl_s
        made = [{"id": o.job_id, "token": o.token, "result": o.result} for o in plain]
        ended = tx.d.complete(tx.conn, tx.ns, made, tx.now, ttl)
        if ended is not None:
            accepted = _completed(tx, plain, ended)
            rest = [o for o in outcomes if not _is_plain(o)]
    if rest:
        accepted |= _each(tx, rest)
    return _first_only(outcomes, accepted)


def _is_plain(o: Outcome) -> bool:
    return o.kind == "done" and not o.followers and not o.log_tail


def _completed(tx: Tx, plain: Sequence[Outcome], ended: Mapping[str, Any]) -> Accepted:
    ends.free_keys(tx, ended.values())
    ends.settle(tx, list(ended.values()), s.COMPLETED)
    accepted: Accepted = set()
    for o in plain:
        row = ended.get(o.job_id)
        if row is not None and (o.job_id, o.token) not in accepted:
            accepted.add((o.job_id, o.token))
            tx.free(row, completed=1, runs=1, run_s=o.run_s)
            tx.ran(row, "completed", o.run_s, row.attempts == 1)
    return accepted


def _each(tx: Tx, outcomes: Sequence[Outcome]) -> Accepted:
    asked = select(s.jobs).where(_j.ns == tx.ns, _j.id.in_([o.job_id for o in outcomes]))
    found = {r.id: r for r in tx.conn.execute(asked.order_by(_j.seq).with_for_update())}
    accepted: Accepted = set()
    done: list[tuple[Any, Outcome]] = []
    dead: list[tuple[Any, str, int]] = []
    back: list[Any] = []
    histories: list[dict[str, Any]] = []
    followers: list[NewJob] = []
    for o in outcomes:
        row = found.pop(o.job_id, None)
        if row is None or row.token != o.token or row.state != s.ACTIVE:
            continue
        accepted.add((o.job_id, o.token))
        runs = {} if o.kind == "release" else {"runs": 1, "run_s": o.run_s}
        tx.free(row, **runs)
        if o.kind != "release":
            _remember(tx, row, o, histories)
        if o.kind == "done":
            done.append((row, o))
        elif o.kind == "cancelled" or (row.cancel and o.kind in ("retry", "release")):
            ends.end(tx, [row], s.CANCELLED, error=clean(o.error))
        elif o.kind == "dead":
            dead.append((row, o.error or "failed", min(row.attempts, MOST_TRIES) + 1))
        elif o.kind == "release":
            back.append(row)
        else:
            _again(tx, row, o)
        followers += o.followers
    if histories:
        write = update(s.jobs).where(_j.seq == bindparam("b_seq")).values(history=bindparam("b_history"))
        tx.conn.execute(write, histories)
    _complete(tx, done)
    ends.bury(tx, dead)
    tx.ready(back, head=True)
    arrivals.push(tx, followers)  # their parents have ended by now
    return accepted


def _remember(tx: Tx, row: Any, o: Outcome, histories: list[dict[str, Any]]) -> None:
    """Count a run, and keep what is said of it; of one that just completed the row itself says all."""
    ending = ENDINGS["cancelled" if row.cancel and o.kind == "retry" else o.kind]
    tx.ran(row, ending, o.run_s, row.attempts == 0)
    if o.kind != "done" or o.log_tail:
        run = run_of(row, ending, o.run_s, o.error, o.traceback, o.log_tail)
        histories.append({"b_seq": row.seq, "b_history": longer(row.history, run)})


def _complete(tx: Tx, done: Sequence[tuple[Any, Outcome]]) -> None:
    """Complete jobs, those without a result in one statement each thousand."""
    ttl = tx.home.settings.options.result_ttl_s
    attempts = _j.attempts + 1
    ends.end(tx, [row for row, o in done if o.result is None], s.COMPLETED, attempts=attempts)
    full = [(row, o) for row, o in done if o.result is not None]
    if not full:
        return
    ends.end(tx, [row for row, _ in full], s.COMPLETED, attempts=attempts, at=tx.now + ttl)
    write = update(s.jobs).where(_j.seq == bindparam("b_seq")).values(result=bindparam("b_result"))
    tx.conn.execute(write, [{"b_seq": row.seq, "b_result": o.result} for row, o in full])


def _again(tx: Tx, row: Any, o: Outcome) -> None:
    tx.tally.add(row.queue, retried=1)
    values: dict[str, Any] = {
        "attempts": row.attempts + int(o.count), "error": clean(o.error), "worker": None
    }  # fmt: skip
    if o.delay_s > 0:
        values |= {"state": s.DELAYED, "at": tx.now + o.delay_s}
        tx.tally.add(row.queue, delayed=1, woke=1)
    tx.conn.execute(update(s.jobs).where(_j.seq == row.seq).values(**values))
    if not o.delay_s > 0:
        tx.ready([row])


def _first_only(outcomes: Sequence[Outcome], accepted: Accepted) -> list[bool]:
    """Answer each outcome; of two for one lease the first."""
    answer = []
    for o in outcomes:
        answer.append((o.job_id, o.token) in accepted)
        accepted.discard((o.job_id, o.token))
    return answer


def note(tx: Tx, job_id: str, token: int, progress: float | None, step: str | None) -> bool:
    """Record progress or a step that is done; false when the lease is lost."""
    held = _j.ns == tx.ns, _j.id == job_id, _j.token == token, s.in_state(s.ACTIVE)
    row = tx.conn.execute(select(_j.seq, _j.steps).where(*held).with_for_update()).first()
    if row is None:
        return False
    values: dict[str, Any] = {}
    if progress is not None:
        values["progress"] = progress
    if step is not None:
        values["steps"] = json.dumps(sorted({*names_of(row.steps), step}))
    if values:
        tx.conn.execute(update(s.jobs).where(_j.seq == row.seq).values(**values))
    return True


def steps(tx: Tx, job_id: str) -> frozenset[str]:
    """Return the steps recorded for an unfinished job."""
    asked = select(_j.steps).where(_j.ns == tx.ns, _j.id == job_id)
    return frozenset(names_of(tx.conn.execute(asked).scalar()))
