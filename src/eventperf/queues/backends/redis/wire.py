"""What the Lua scripts are told and what they answer: pure translation, no connection.

The layout of a job's text is written in ``lua/common.lua``. Longer than other files: for each script what it
is told stands beside how its answer is read.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from math import isfinite
from typing import Any, Final, TypeVar

from typing_extensions import ParamSpec

from eventperf._core.errors import EventPerfError
from eventperf._core.objects import read_json
from eventperf._redis.script import read_script
from eventperf.queues.attempts import CRASHED, Attempt, Ending
from eventperf.queues.errors import QueueError, StoreUnavailable, timed_follower, unknown_parent
from eventperf.queues.job import (
    JobInfo,
    JobRecord,
    JobState,
    Lease,
    NewJob,
    QueueStatus,
    WorkerInfo,
    parents,
)
from eventperf.queues.minutes import MINUTE_S, Interval
from eventperf.queues.options import EngineOptions
from eventperf.queues.protocols import (
    LOOKED_AT,
    Change,
    Claimed,
    Found,
    JobQuery,
    Outcome,
    Renewed,
    Stalled,
    StoreSettings,
    WorkerCard,
)
from eventperf.queues.soundness import fault, unreadable

from .told import Told, ms

US = b"\x1f"
Args = list[Any]

_STATES = {b"d": JobState.COMPLETED, b"f": JobState.FAILED, b"c": JobState.CANCELLED}
_LIVE = {b"w": JobState.WAITING, b"d": JobState.DELAYED, b"a": JobState.ACTIVE}
_PARTS = {
    "push": ("pushes",), "fire": ("pushes",), "claim": ("settings", "minutes"),
    "finish": ("pushes", "minutes", "settings"), "admin": ("places",),
    "update": ("places",), "fetch": ("look",), "find": ("places", "look"), "children": ("look",),
}  # fmt: skip
P = ParamSpec("P")
T = TypeVar("T")

_NUMBERS: Final = frozenset({"fire", "note", "enter", "leave", "join", "learn", "delete", "replay", "pause"})
_ANSWERS: Final[dict[str, tuple[type, ...]]] = {
    "claim": (list, bytes), "finish": (list, bytes), "declare": (bytes,), "update": (bytes,),
    "steps": (list, set),
}  # fmt: skip
_FAR = 8e15  # due times beyond it belong to jobs that wait for others
_GROUP = 1000
_DELAY_CAP_S = 3.15e9  # a century: scores stay exact integers


def script(name: str) -> str:
    """Return the text of one Lua script, with the shared part in front."""
    first = ("idle",) if name == "claim" else ()
    return read_script(__package__, *first, "common", *_PARTS.get(name, ()), name).text


def prefix(settings: StoreSettings) -> str:
    """Return the beginning of every key: one hash tag per namespace, so one slot of a cluster."""
    return f"{{eventperf:{settings.namespace}}}:"


def _reads(read: Callable[P, T]) -> Callable[P, T]:
    """Turn what a function stumbles over, which reads an answer to something else, into an error of ours."""

    @wraps(read)
    def reads(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(*args, **kwargs)
        except EventPerfError:
            raise
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise StoreUnavailable(f"Redis gave an answer to something else: {error}") from error

    return reads


def check_answer(name: str, args: Sequence[Any], answer: Any) -> None:
    """Refuse the answer to something else: a list where a script gives a number, and such.

    Raises:
        ValueError: It is of no kind that the script gives.
    """
    verb = args[0] if name == "admin" else name
    kinds = (int,) if verb in _NUMBERS else _ANSWERS.get(verb, (list,))
    if not isinstance(answer, kinds):
        raise ValueError(f"{type(answer).__name__} where {verb} answers {kinds[0].__name__}")


@_reads
def texts(reply: Iterable[bytes]) -> list[str]:
    """Read ids, or names of steps."""
    return [one.decode() for one in reply]


@_reads
def cancelled(reply: Sequence[Any], ids: Sequence[str]) -> list[bool]:
    """Read which jobs were cancelled."""
    return [one == 1 for _, one in zip(ids, reply, strict=True)]


@_reads
def purged(reply: Sequence[Any]) -> tuple[int, bool, int]:
    """Read how many jobs went, whether there are more, and where to go on."""
    n, more, *at = reply
    return int(n), bool(more), int(at[0]) if at else 0


# -- push ------------------------------------------------------------------------------------------


def _header(record: JobRecord, delay_s: float, deadline_s: float | None) -> bytes:
    extras: dict[str, Any] = {}
    if record.attempts != 3:
        extras["a"] = record.attempts
    if record.timeout_s is not None:
        extras["t"] = record.timeout_s
    if deadline_s is not None:
        extras["d"] = deadline_s
    if record.unique_key is not None:
        extras["u"] = record.unique_key
        if record.unique_for != "waiting":
            extras["m"] = "r" if record.unique_for == "running" else "t"
    if record.key:
        extras["k"] = record.key
    if record.version != 1:
        extras["v"] = record.version
    if record.headers:
        extras["h"] = dict(record.headers)
    if record.flow:
        extras["f"] = dict(record.flow)
    if record.tags:
        extras["l"] = list(record.tags)
    if delay_s > 0:
        extras["w"] = delay_s
    text = json.dumps(extras, separators=(",", ":")) if extras else ""
    return f"\x1f{record.queue}\x1f{record.type}\x1f{record.priority}\x1f{text}\x1f".encode()


def push_args(jobs: Sequence[NewJob]) -> Args:
    """Group consecutive jobs that differ in id and payload only, so that one header serves them all."""
    args: Args = []
    same: tuple[Any, ...] | None = None
    count_at = 0
    for new in jobs:
        r = new.record
        mark = (
            r.queue, r.type, r.priority, r.key, r.attempts, r.timeout_s, r.unique_key, r.unique_for,
            r.version, r.headers, r.flow, r.tags, new.delay_s, new.deadline_s,
        )  # fmt: skip
        if mark != same or args[count_at] >= _GROUP:
            same = mark
            delay_s = min(new.delay_s, _DELAY_CAP_S)
            unique = "" if r.unique_key is None else f"{r.type}|{r.unique_key}"
            count_at = len(args) + 7
            parents = r.flow.get("after", ()) if r.flow else ()
            args += (
                _header(r, delay_s, new.deadline_s), r.queue, r.priority, r.key,
                -(-delay_s * 1e6 // 1) / 1000,
                unique, _unique_mode(r.unique_for), 0, len(parents), r.flow["when"] if r.flow else "",
                *parents,
            )  # fmt: skip
        args[count_at] += 1
        args.append(r.id)
        args.append(r.payload)
    return args


@_reads
def pushed(answer: Sequence[bytes], jobs: Sequence[NewJob]) -> list[str]:
    """Return the ids that ``push.lua`` answers, one for each job.

    Raises:
        ConfigurationError: A job was to wait for one that the store does not know; none was stored.
    """
    ids = [x.decode() for x in answer]
    if ids and not ids[0]:
        raise unknown_parent(ids[1])
    if len(ids) != len(jobs):
        raise ValueError(f"{len(ids)} ids for {len(jobs)} jobs")
    return ids


def _unique_mode(value: str | float) -> str | int:
    if isinstance(value, str):
        return value[0]
    return max(1, int(value * 1000))


def fire_args(name: str, slot: float, job: NewJob, late: bool) -> Args:
    """Build the arguments of ``fire.lua``."""
    return [name, round(slot * 1000), int(late), *push_args([job])]


@_reads
def seconds_of(reply: Sequence[bytes]) -> float:
    """Read the answer of ``time.lua``."""
    return int(reply[0]) + int(reply[1]) / 1e6


def check_replicated(replicas: int, options: EngineOptions) -> None:
    """Refuse a push that fewer replicas than asked for have.

    Raises:
        StoreUnavailable: Too few; the jobs are stored, the same push may be repeated by their ids.
    """
    if replicas < options.wait_replicas:
        raise StoreUnavailable(
            f"{replicas} of {options.wait_replicas} replicas had them within {options.wait_timeout_s:g} s; "
            "the primary has them"
        )


# -- records ---------------------------------------------------------------------------------------


def _text(data: bytes) -> str:
    """Return bytes that should be text, whatever they are."""
    return data.decode("utf-8", "backslashreplace")


def _number(data: bytes, missing: float | None = None) -> float | None:
    """Return bytes that should be a number, or what stands for one that is none."""
    try:
        value = float(data)
    except ValueError:
        return missing
    return value if isfinite(value) else missing


def shown(job_id: str, blob: bytes) -> JobRecord:
    """Return the record whose text is ``blob``; of a damaged one what can be made out, with all its bytes."""
    try:
        return record_of(job_id, blob)
    except Unreadable:
        parts = [_text(part) for part in blob.split(US, 3)[:3]] + ["", ""]
        record = unreadable(job_id, parts[1], blob, _number(blob.split(US, 1)[0], 0.0) or 0.0)
        record.type = parts[2]
        return record


def _lease(job_id: str, token: int, attempt: int, crashes: int, blob: bytes, no_deadline: bool) -> Lease:
    try:
        return Lease(record_of(job_id, blob, no_deadline), token, attempt, crashes)
    except Unreadable as error:
        return Lease(shown(job_id, blob), token, attempt, crashes, str(error))


class Unreadable(ValueError):
    """A record that this library did not write, or that was damaged since."""


def record_of(job_id: str, blob: bytes, no_deadline: bool = False) -> JobRecord:
    """Return the record whose text is ``blob``.

    Raises:
        Unreadable: It is none.
    """
    try:
        return _record_of(job_id, blob, no_deadline)
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise Unreadable(str(error)[:200]) from error


def _record_of(job_id: str, blob: bytes, no_deadline: bool) -> JobRecord:
    created, queue, type_, level, extras, payload = blob.split(US, 5)
    born = int(created) / 1000
    known = _heads.get((queue, type_, level, extras))
    if known is None:
        if len(_heads) > 1000:
            _heads.clear()
        known = _heads[queue, type_, level, extras] = _head(queue, type_, level, extras)
    life_s, fields = known
    record = JobRecord(id=job_id, payload=payload, created_at=born, **fields)
    if life_s is not None and not no_deadline:
        record.deadline_at = born + life_s
    return record


_heads: dict[tuple[bytes, bytes, bytes, bytes], tuple[float | None, dict[str, Any]]] = {}


def _head(queue: bytes, type_: bytes, level: bytes, extras: bytes) -> tuple[float | None, dict[str, Any]]:
    fields: dict[str, Any] = {"queue": queue.decode(), "type": type_.decode(), "priority": int(level)}
    e = read_json(extras) if extras else {}
    if not isinstance(e, dict):
        raise ValueError("its part with extras is no object")
    for short, name in _SHORT.items():
        if short in e:
            fields[name] = e[short]
    if "u" in e:
        fields["unique_for"] = {"r": "running", "t": 0.0}.get(e.get("m", ""), "waiting")
    life_s = e.get("d")
    if why := fault(JobRecord(id="", payload=b"", deadline_at=life_s, **fields)):
        raise ValueError(why)
    return life_s, fields


_SHORT = {
    "a": "attempts",
    "t": "timeout_s",
    "u": "unique_key",
    "k": "key",
    "v": "version",
    "h": "headers",
    "f": "flow",
    "l": "tags",
}


def _mutable(text: bytes) -> tuple[int, int, str]:
    if not text:
        return 0, 0, ""
    attempts, crashes, flags = (_text(text) + "::").split(":")[:3]
    return int(_number(attempts.encode(), 0) or 0), int(_number(crashes.encode(), 0) or 0), flags


def _runs(text: bytes) -> tuple[Attempt, ...]:
    found = []
    for run in text.split(b"\x1e")[1:]:
        try:
            found.append(_run(run.decode()))
        except (
            ValueError,
            KeyError,
            AttributeError,
            TypeError,
            RecursionError,
        ):  # damaged since it was written
            continue
    return tuple(found)


def _run(text: str) -> Attempt:
    number, started, us, how, worker, details = text.split("\x1f", 5)
    more = read_json(details) if details else {}
    return Attempt(
        number=int(number), worker=worker, started_at=int(started) / 1000, seconds=int(us) / 1e6,
        outcome=_HOW[how], error=CRASHED if how == "x" else more.get("e"), traceback=more.get("t"),
        log_tail=more.get("l"),
    )  # fmt: skip


_HOW: dict[str, Ending] = {
    "d": "completed", "r": "retried", "f": "failed", "c": "cancelled", "x": "crashed"
}  # fmt: skip


def _final_info(data: bytes) -> JobInfo:
    try:
        return _final_parts(data)
    except (ValueError, TypeError, KeyError) as error:  # damaged since it was written
        why = f"the record of its end cannot be read: {error}"
        return JobInfo(id="", type="", queue="", state=JobState.FAILED, error=why, payload=data)


def _final_parts(data: bytes) -> JobInfo:
    state, at, attempts, crashes, started, error_n, result_n, job_id, rest = data.split(US, 8)
    cut, size = int(error_n), int(result_n)
    end = cut + max(0, size)
    r = shown(_text(job_id), rest[end:])
    error, mark, runs = rest[:cut].partition(b"\x1e")
    return JobInfo(
        id=r.id, type=r.type, queue=r.queue, state=_STATES[state], priority=r.priority, attempt=int(attempts),
        crashes=int(crashes), created_at=r.created_at, started_at=int(started) / 1000 or None,
        finished_at=int(at) / 1000, error=_text(error) or None,
        result=rest[cut:end] if size >= 0 else None, payload=r.payload, key=r.key,
        headers=dict(r.headers or {}), tags=tuple(r.tags), attempts=_runs(mark + runs),
        **parents(r.flow),
    )  # fmt: skip


def _live_info(job_id: str, row: Sequence[bytes]) -> JobInfo:
    state, blob, due, held, changed, progress, error, runs = row
    r = shown(job_id, blob)
    attempts, crashes, _ = _mutable(changed)
    started, worker = None, None
    if held:
        _, at, name = (held + US + US).split(US, 2)
        started, worker = (_number(at, 0.0) or 0.0) / 1000, _text(name.removesuffix(US + US))
    return JobInfo(
        id=job_id, type=r.type, queue=r.queue, state=_LIVE[state], priority=r.priority,
        attempt=attempts + (state == b"a"), crashes=crashes, created_at=r.created_at,
        due_at=float(due) / 1000 if due and float(due) < _FAR else None, started_at=started, worker=worker,
        progress=_number(progress), error=_text(error) or None, payload=r.payload, key=r.key,
        headers=dict(r.headers or {}), tags=tuple(r.tags), attempts=_runs(runs),
        **parents(r.flow),
    )  # fmt: skip


@_reads
def infos(ids: Sequence[str], rows: Sequence[Any]) -> list[JobInfo | None]:
    """Read the answer of ``fetch.lua``."""
    found: list[JobInfo | None] = []
    for job_id, row in zip(ids, rows, strict=True):
        if not row:
            found.append(None)
        elif row[0] == b"r":
            info = _final_info(row[1])
            found.append(info if info.id else replace(info, id=job_id))
        else:
            found.append(_live_info(job_id, row))
    return found


def find_args(query: JobQuery) -> Args:
    """Build the arguments of ``find.lua``."""
    states = [state.value for state in query.states]
    return [
        query.limit, LOOKED_AT, query.type or "", query.text or "", query.tag or "", len(states), *states,
        len(query.queues), *query.queues, *(query.after or ()),
    ]  # fmt: skip


@_reads
def found(reply: Sequence[Any]) -> Found:
    """Read the answer of ``find.lua``."""
    jobs = infos([_text(job_id) for job_id, _ in reply[0]], [row for _, row in reply[0]])
    after = [part.decode() for part in reply[1]] if len(reply) > 1 else None
    return Found([info for info in jobs if info is not None], after)


@_reads
def kin(reply: Sequence[Any]) -> list[JobInfo]:
    """Read the answer of ``children.lua``."""
    return briefly(infos([_text(job_id) for job_id, _ in reply], [row for _, row in reply]))


def portions(ids: Sequence[str]) -> list[Sequence[str]]:
    """Return ids by as many as one run of ``delete.lua`` takes without holding others up."""
    return [ids[at : at + _AT_ONCE] for at in range(0, len(ids), _AT_ONCE)]


_AT_ONCE = 100


def update_args(job_id: str, change: Change) -> Args:
    """Build the arguments of ``update.lua``."""
    wait = "" if change.delay_s is None else -(-min(change.delay_s, _DELAY_CAP_S) * 1e6 // 1) / 1000
    priority = "" if change.priority is None else change.priority
    return [
        job_id, wait, priority, change.queue or "", int(change.payload is not None), change.payload or b"",
        "" if change.version is None else change.version,
    ]  # fmt: skip


@_reads
def updated(reply: bytes, change: Change) -> JobState | None:
    """Read the answer of ``update.lua``.

    Raises:
        ConfigurationError: A time for a job that waits for others.
    """
    if reply == b"p":
        raise timed_follower(change.delay_s)
    if reply == b"x":
        raise QueueError("the record of this job is damaged: it can only be cancelled")
    if reply[:1] == b"r":
        return _STATES[reply[1:]]
    return _LIVE.get(reply)


@_reads
def measured(reply: Sequence[Any]) -> tuple[float, list[Interval]]:
    """Read the answer of ``measured.lua``."""
    names = {int(reply[1][k + 1]): _text(reply[1][k]) for k in range(0, len(reply[1]), 2)}
    known: dict[str, tuple[int, str, int] | None] = {}  # the same few in each minute of a day
    intervals: list[Interval] = []
    for k in range(0, len(reply[2]), 2):
        series: dict[int, Interval] = {}
        for entry in _text(reply[2][k + 1]).split():
            name, _, by = entry.partition("=")
            if name not in known:
                known[name] = _entry(name)
            told = known[name]
            if told is None or not by.isdecimal():  # cut off
                continue
            number, what, bucket = told
            one = series.get(number)
            if one is None:
                queue, _, type_ = names.get(number, "").partition("\x1f")
                one = series[number] = Interval(at=int(reply[2][k]) * MINUTE_S, queue=queue, type=type_)
            if what == "w":
                one.wait.counts[bucket] = int(by)
            elif what == "x":
                one.run.counts[bucket] = int(by)
            else:
                setattr(one, _COUNTED[what], int(by))
        intervals += series.values()
    return int(reply[0]) / 1000, intervals


def _entry(name: str) -> tuple[int, str, int] | None:
    """Return number of the series, what was counted and bucket; nothing of what is none."""
    told = _ENTRY.fullmatch(name)
    return None if told is None else (int(told[1]), told[2] or told[4], int(told[3] or -1))


_COUNTED = {"d": "completed", "r": "retried", "f": "failed", "c": "cancelled", "k": "crashed"}
_ENTRY = re.compile(r"(\d+)(?:([wx])(\d+)|([drfck]))")


@_reads
def listed(records: Iterable[bytes]) -> list[JobInfo]:
    """Read finished records, without their attempts."""
    return [replace(_final_info(record), attempts=()) for record in records]


def briefly(infos: Iterable[JobInfo | None]) -> list[JobInfo]:
    """Return those that are there, without their attempts."""
    return [replace(info, attempts=()) for info in infos if info is not None]


# -- counts ----------------------------------------------------------------------------------------


def _pairs(flat: Sequence[bytes]) -> dict[str, int]:
    return {_text(flat[i]): int(_number(flat[i + 1], 0) or 0) for i in range(0, len(flat), 2)}


@_reads
def cards(values: Sequence[bytes], now_ms: int) -> list[dict[str, Any]]:
    """Return the live workers' cards."""
    found = []
    for value in values:
        try:
            until, text = value.split(US, 1)
            card = read_json(text)
            if int(until) > now_ms and isinstance(card["q"], list) and isinstance(card["s"], int):
                found.append(card)
        except (ValueError, TypeError, KeyError, RecursionError):  # not a card of ours
            continue
    return found


@_reads
def roster(reply: Sequence[Any]) -> list[WorkerInfo]:
    """Read the answer of ``roster.lua``."""
    now_ms, running = int(reply[0]), Counter(_text(one) for one in reply[2])
    found = []
    for at in range(0, len(reply[1]), 2):
        id, value = _text(reply[1][at]), reply[1][at + 1]
        for card in cards([value], now_ms):
            until = int(value.partition(US)[0]) / 1000
            lease_s = card["l"] / 1000 if type(card.get("l")) is int else 0.0
            queues = sorted(str(q) for q in card["q"])
            found.append(
                WorkerInfo.told(
                    card.get("i"),
                    id=id,
                    queues=queues,
                    slots=card["s"],
                    running=running[id],
                    lease_s=lease_s,
                    known_until=until,
                )
            )
    return sorted(found, key=lambda worker: worker.id)


@_reads
def statuses(
    settings: StoreSettings, reply: Sequence[Any], quiet: dict[str, QueueStatus]
) -> list[QueueStatus]:
    """Read the answer of ``counts.lua``; ``quiet`` keeps the rows of queues with nothing in them."""
    now_ms, n = int(reply[0]), _pairs(reply[1])
    paused, dead = {_text(q) for q in reply[2]}, _pairs(reply[3])
    workers, rates, oldest = cards(reply[4], now_ms), [_pairs(r) for r in reply[5]], _oldest(reply[6])
    served = Counter(name for card in workers for name in card["q"])
    span = now_ms / 1000 - (now_ms // 10_000 - 6) * 10.0
    span = max(1.0, min(span, (now_ms - n.get("#born", now_ms)) / 1000 or span))
    arrivals, services = _by_queue(rates, "a"), _by_queue(rates, "s")
    counts: dict[str, dict[str, int]] = {}
    for key, value in n.items():
        name, _, field = key.rpartition(":")
        if field in _NO_COUNTS:
            counts.setdefault(name, {})[field] = value
    used = {*counts, *paused, *dead, *oldest, *arrivals, *services}

    def row(name: str, priority: int) -> QueueStatus:
        if name not in used and (kept := quiet.get(name)) and kept.workers == served[name]:
            return kept
        found = QueueStatus(
            name=name,
            priority=priority,
            dead=dead.get(name, 0),
            paused=name in paused,
            workers=served[name],
            oldest_wait_s=max(0.0, oldest.get(name, 0.0)),
            arrival_rate=arrivals[name] / span,
            service_rate=services[name] / span,
            **{**_NO_COUNTS, **counts.get(name, {})},
        )
        if name not in used:
            quiet[name] = found
        return found

    return [row(name, config.priority) for name, config in settings.queues.items()]


_NO_COUNTS = dict.fromkeys((
    "waiting", "delayed", "active", "completed", "failed", "cancelled", "retried", "stalled", "enqueued",
    "replayed", "lapsed", "trimmed",
), 0)  # fmt: skip


def _by_queue(rates: Iterable[Mapping[str, int]], kind: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for rate in rates:
        for key, by in rate.items():
            name, _, what = key.rpartition(":")
            if what == kind:
                found[name] += by
    return found


def _oldest(flat: Sequence[Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for i in range(0, len(flat), 2):
        name = _text(flat[i])
        found[name] = max(found.get(name, 0.0), int(flat[i + 1]) / 1000)
    return found


@_reads
def load(reply: Sequence[Any]) -> tuple[int, int, float]:
    """Read workers, slots and mean run time out of the answer of ``counts.lua``."""
    n, live = _pairs(reply[1]), cards(reply[4], int(reply[0]))
    runs = n.get("#runs", 0)
    return len(live), sum(card["s"] for card in live), n.get("#run_us", 0) / 1e6 / runs if runs else 0.0


# -- workers ---------------------------------------------------------------------------------------


def card_args(card: WorkerCard, group: str | None) -> Args:
    """Return how a worker introduces itself; used by ``enter.lua`` and ``renew.lua``."""
    lease_ms = ms(card.lease_s)
    facts: dict[str, Any] = {} if group is None else {"g": group}
    facts |= {"q": list(card.room_by_queue), "s": card.slots, "l": lease_ms}
    if card.about:
        facts["i"] = dict(card.about)
    text = json.dumps(facts, separators=(",", ":"))
    return [card.id, text, lease_ms, len(card.types), *card.types]


def join_args(card: WorkerCard, group: str) -> Args:
    """Build the arguments of ``join.lua`` for a worker of many queues."""
    return [group, ms(card.lease_s), *card.room_by_queue]


def claim_args(
    settings: StoreSettings,
    told: Told,
    card: WorkerCard,
    room: Mapping[str, int],
    total: int,
    spare_s: float = 0.0,
) -> Args:
    """Build the arguments of ``claim.lua``; ``spare_s`` is for how long yet it takes no leases back."""
    o = settings.options
    usual, others = _rooms(card.room_by_queue, room)
    return [
        told.digest, card.id, ms(card.lease_s), total, o.order, -1 if o.aging is None else o.aging,
        o.max_crashes, ms(o.unknown_grace_s), ms(min(o.result_ttl_s, 60.0)), usual, ms(spare_s),
        len(others) // 2, *others, *card.types,
    ]  # fmt: skip


def _rooms(full: Mapping[str, int], room: Mapping[str, int]) -> tuple[int | str, Args]:
    """Return the room of most queues (nothing: their full one) and those that differ."""
    values = set(room.values())
    usual: int | str = values.pop() if len(values) == 1 else ""
    others: Args = []
    if usual != "" and room.keys() == full.keys():
        return usual, others
    for name, most in full.items():
        free = room.get(name, 0)
        if free != (most if usual == "" else usual):
            others += (name, free)
    return usual, others


@_reads
def claimed(reply: Sequence[Any]) -> Claimed:
    """Read the answer of ``claim.lua``."""
    next_us, flat, stalled, expired = reply
    leases = [
        _lease(
            _text(flat[i]),
            int(flat[i + 1]),
            int(flat[i + 2]) + 1,
            int(flat[i + 3]),
            flat[i + 5],
            b"n" in flat[i + 4],
        )
        for i in range(0, len(flat), 6)
    ]
    return Claimed(
        leases,
        None if int(next_us) < 0 else int(next_us) / 1e6,
        [
            Stalled(
                _text(stalled[i]),
                _text(stalled[i + 1]),
                _text(stalled[i + 2]),
                int(stalled[i + 3]),
                int(stalled[i + 4]) == 1,
            )
            for i in range(0, len(stalled), 5)
        ],
        [
            (_text(expired[i]), _text(expired[i + 1]), _text(expired[i + 2]), _text(expired[i + 3]))
            for i in range(0, len(expired), 4)
        ],
    )


def finish_args(settings: StoreSettings, told: Told, outcomes: Sequence[Outcome]) -> Args:
    """Build the arguments of ``finish.lua``."""
    o = settings.options
    args: Args = [told.digest, ms(o.result_ttl_s), ms(min(o.result_ttl_s, 60.0))]
    args.append(len(outcomes))
    for out in outcomes:
        if out.kind == "done":
            args.append(f"{out.job_id}\x1f{out.token}\x1fdone\x1f0\x1f1\x1f{int(out.run_s * 1e6)}")
            args.append(out.result or b"")
            args.append(_details(out) if out.log_tail else "")
        else:
            wait_ms = ms(min(out.delay_s, _DELAY_CAP_S))
            facts = (out.job_id, out.token, out.kind, wait_ms, int(out.count), int(out.run_s * 1e6))
            args.append("\x1f".join(map(str, facts)))
            args.append((out.error or "").replace("\x1e", " "))
            args.append("" if out.kind == "release" else _details(out))
    for i, out in enumerate(outcomes, 1):
        if out.followers:
            group = push_args(out.followers)
            args += (i, len(group), *group)
    return args


def _details(out: Outcome) -> str:
    said = {"e": out.error, "t": out.traceback, "l": out.log_tail}
    return json.dumps({name: text for name, text in said.items() if text}, separators=(",", ":"))


@_reads
def renewed(reply: Sequence[Any]) -> Renewed:
    """Read the answer of ``renew.lua``."""
    return Renewed([_text(x) for x in reply[0]], [_text(x) for x in reply[1]])
