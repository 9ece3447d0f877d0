"""Every argument of every public call is refused where it is wrong: by its name, with nothing done.

The table says what is wrong for each argument; a parameter that is in no table fails the last tests here, so
that a new one cannot be forgotten.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

import pytest

from arguments import Twins, refused
from eventperf.errors import ConfigurationError
from eventperf.queues import (
    Backlog,
    EnqueueOptions,
    Exponential,
    JobSpec,
    Limit,
    QueueConfig,
    QueueManager,
    Retry,
    RetryRule,
)
from eventperf.queues.handle import Job, JobFunction

HUGE = "x" * 100_000
HALF = "\udc80"
NAN, INF = math.nan, math.inf
FAR = datetime(2500, 1, 1, tzinfo=timezone.utc)

NO_TEXT = (5, b"a", "", HALF, "a\0b", HUGE, [], {}, NAN, object())
NO_NAME = (None, *NO_TEXT)
NO_COUNT = (-1, 1.5, "3", True, NAN, INF, 10**30, [], HALF)
NO_SPAN = (-1, "soon", "", "-5m", "1e400s", True, NAN, INF, 10**30, [], b"5s", HALF, HUGE)
NO_LIST = (5, "text", b"text", {"a": 1}, object())
NO_FLAG = (1, "no", None, [])
NO_CALL = (None, 5, "fn", [])

OPTIONS: Mapping[str, tuple[Any, ...]] = {
    "queue": NO_TEXT,
    "priority": (*NO_COUNT, 1001),
    "delay": NO_SPAN,
    "at": (-1, NAN, INF, 1e18, True, "2026-01-01", datetime(2020, 1, 1), FAR, FAR.timestamp(), [], HALF),
    "unique_key": NO_TEXT,
    "unique_for": ("forever", "running", 5, 0, NAN, [], HALF),  # without a unique_key none is right
    "deadline": (*NO_SPAN, 0),
    "fairness_key": NO_TEXT,
    "attempts": (*NO_COUNT, 0),
    "timeout": (*NO_SPAN, 0),
    "headers": (5, "text", [("a", "b")], {"a": 1}, {1: "a"}, {"a": HALF}, {HALF: "a"}, {"a": HUGE}),
    "id": NO_TEXT,
    "after": ("x", 5, {"a": 1}, [None], [5], [[]], [""], [HALF], [HUGE], ["i"] * 10_001),
    "after_when": ("never", "success", 5, [], HALF),  # without after none is right
    "tags": (5, "abc", {"a": 1}, [1], [""], [HALF], [HUGE], ["a"] * 11),
}

CARRIERS: Mapping[str, Callable[[QueueManager, dict[str, Any]], Any]] = {
    "enqueue": lambda q, o: q.enqueue("t", 1, **o),
    "enqueue_many": lambda q, o: q.enqueue_many("t", [1, 2], **o),
    "specs": lambda q, o: q.enqueue_many([JobSpec(type="t"), JobSpec(type="t", **o)]),
    "function": lambda q, o: JobFunction(q, "f", print).enqueue(1, **o),
    "cron": lambda q, o: q.cron("c", "5m", "t", **o),
    "chain": lambda q, o: q.chain([JobSpec(type="t", **o), JobSpec(type="t")]),
    "batch": lambda q, o: q.batch([JobSpec(type="t")], then=JobSpec(type="t", **o)),
    "ctx.then": lambda q, o: q.engine().follow("t", 1, o, "parent"),
}
ELSEWHERE = {("chain", "unique_key"), ("batch", "unique_key"), ("batch", "delay"), ("batch", "at")}
"""Refused for what they are, right or wrong: named ``specs``."""

CALLS: Mapping[tuple[str, str], tuple[tuple[Any, ...], Callable[[QueueManager, Any], Any]]] = {
    ("enqueue", "type"): (NO_NAME, lambda q, v: q.enqueue(v)),
    ("enqueue_many", "type"): (
        (None, 5, b"a", "", HALF, HUGE, {}, [5], ["t"], object()), lambda q, v: q.enqueue_many(v, [1])
    ),
    ("enqueue_many", "data"): ((None, *NO_LIST), lambda q, v: q.enqueue_many("t", v)),
    ("chain", "specs"): ((None, *NO_LIST, [], [5, 6], ["t", "t"]), lambda q, v: q.chain(v)),
    ("batch", "specs"): ((None, *NO_LIST, [], [5]), lambda q, v: q.batch(v, then=JobSpec(type="t"))),
    ("batch", "then"): ((None, 5, "t", [], {}), lambda q, v: q.batch([JobSpec(type="t")], then=v)),
    ("batch", "when"): (
        (None, 5, "x", "", HALF, [], HUGE),
        lambda q, v: q.batch([JobSpec(type="t")], then=JobSpec(type="t"), when=v),
    ),
    ("cron", "name"): (NO_NAME, lambda q, v: q.cron(v, "5m", "t")),
    ("cron", "when"): ((None, *NO_SPAN, 0.01), lambda q, v: q.cron("c", v, "t")),
    ("cron", "type"): (NO_NAME, lambda q, v: q.cron("c", "5m", v)),
    ("cron", "timezone"): (
        (None, 5, "", "Mars/Base", HALF, HUGE, []), lambda q, v: q.cron("c", "@daily", "t", timezone=v)
    ),
    ("cron", "catch_up"): (NO_SPAN, lambda q, v: q.cron("c", "5m", "t", catch_up=v)),
    ("job", "name"): ((5, b"a", "", HALF, HUGE, [], object()), lambda q, v: q.job(v)(lambda ctx, data: None)),
    ("declare", "name"): (NO_NAME, lambda q, v: q.declare(v)),
    ("upcast", "name"): (NO_NAME, lambda q, v: q.upcast(v, to=2)),
    ("upcast", "to"): ((None, *NO_COUNT, 1), lambda q, v: q.upcast("t", to=v)),
    ("middleware", "fn"): ((*NO_CALL, len), lambda q, v: q.middleware(v)),
    ("on_startup", "fn"): ((*NO_CALL, lambda: None), lambda q, v: q.on_startup(v)),
    ("on_shutdown", "fn"): ((*NO_CALL, lambda: None), lambda q, v: q.on_shutdown(v)),
    ("stamp", "fn"): (NO_CALL, lambda q, v: q.stamp(v)),
    ("on", "listener"): ((None, 5, [], "failed"), lambda q, v: q.on(v)),
    ("on", "types"): (("never", 5, None, HALF, [], HUGE), lambda q, v: q.on(print, v)),
    ("worker", "queues"): ((*NO_LIST, [], [5], ["never"], [None], [[]]), lambda q, v: q.worker(v)),
    ("worker", "concurrency"): ((*NO_COUNT, 0), lambda q, v: q.worker(concurrency=v)),
    ("worker", "lease"): ((None, *NO_SPAN, 0, 0.1), lambda q, v: q.worker(lease=v)),
    ("worker", "grace"): ((None, *NO_SPAN), lambda q, v: q.worker(grace=v)),
    ("worker", "name"): (NO_TEXT, lambda q, v: q.worker(name=v)),
    ("worker", "max_jobs"): ((*NO_COUNT, 0), lambda q, v: q.worker(max_jobs=v)),
    ("worker", "max_memory_mb"): ((-1, 0, "3", True, NAN, INF, []), lambda q, v: q.worker(max_memory_mb=v)),
    ("worker", "max_age"): ((*NO_SPAN, 0), lambda q, v: q.worker(max_age=v)),
    ("worker", "version"): (NO_TEXT, lambda q, v: q.worker(version=v)),
    ("jobs", "state"): ((5, "", "never", HALF, [], HUGE), lambda q, v: q.jobs(state=v)),
    ("jobs", "queue"): (NO_TEXT, lambda q, v: q.jobs(queue=v)),
    ("jobs", "type"): (NO_TEXT, lambda q, v: q.jobs(type=v)),
    ("jobs", "tag"): (NO_TEXT, lambda q, v: q.jobs(tag=v)),
    ("jobs", "text"): (NO_TEXT, lambda q, v: q.jobs(text=v)),
    ("jobs", "limit"): ((None, *NO_COUNT, 0, 1001), lambda q, v: q.jobs(limit=v)),
    ("jobs", "cursor"): ((5, "", "zz", HALF, b"a", [], HUGE), lambda q, v: q.jobs(cursor=v)),
    ("update", "id"): (NO_NAME, lambda q, v: q.update(v, priority=1)),
    ("update", "delay"): (NO_SPAN, lambda q, v: q.update("i", delay=v)),
    ("update", "at"): (OPTIONS["at"], lambda q, v: q.update("i", at=v)),
    ("update", "priority"): (OPTIONS["priority"], lambda q, v: q.update("i", priority=v)),
    ("update", "queue"): (NO_TEXT, lambda q, v: q.update("i", queue=v)),
    ("metrics", "since"): ((None, *NO_SPAN, 0, "2d"), lambda q, v: q.metrics(since=v)),
    ("metrics", "step"): ((None, *NO_SPAN, 0), lambda q, v: q.metrics(step=v)),
    ("children", "id"): (NO_NAME, lambda q, v: q.children(v)),
    ("children", "limit"): ((None, *NO_COUNT, 0, 1001), lambda q, v: q.children("i", limit=v)),
    ("delete", "ids"): (NO_NAME, lambda q, v: q.delete("i", v)),
    ("job_info", "id"): (NO_NAME, lambda q, v: q.job_info(v)),
    ("result", "id"): (NO_NAME, lambda q, v: q.result(v, 0)),
    ("result", "timeout"): ((None, *NO_SPAN), lambda q, v: q.result("i", v)),
    ("backlog", "queues"): ((*NO_LIST, [5], ["never"], [[]]), lambda q, v: q.backlog(v)),
    ("cancel", "id"): (NO_NAME, lambda q, v: q.cancel(v)),
    ("retry", "id"): (NO_NAME, lambda q, v: q.retry(v)),
    ("dead", "queue"): (NO_NAME, lambda q, v: q.dead(v)),
    ("dead", "offset"): ((None, *NO_COUNT), lambda q, v: q.dead("normal", offset=v)),
    ("dead", "limit"): ((None, *NO_COUNT, 0), lambda q, v: q.dead("normal", limit=v)),
    ("replay", "queue"): (NO_NAME, lambda q, v: q.replay(v)),
    ("replay", "ids"): (
        (5, "text", b"a", {"a": 1}, [None], [5], [""], [HALF], [HUGE]), lambda q, v: q.replay("normal", v)
    ),
    ("replay", "limit"): (NO_COUNT, lambda q, v: q.replay("normal", limit=v)),
    ("purge", "queue"): (NO_NAME, lambda q, v: q.purge(v)),
    ("purge", "state"): ((None, 5, "active", "never", HALF, []), lambda q, v: q.purge("normal", v)),
    ("pause", "queue"): (NO_NAME, lambda q, v: q.pause(v)),
    ("resume", "queue"): (NO_NAME, lambda q, v: q.resume(v)),
    ("drain", "timeout"): ((None, *NO_SPAN), lambda q, v: q.drain(v)),
}  # fmt: skip

MADE: Mapping[tuple[Any, str], tuple[Any, ...]] = {
    (QueueManager, "url"): (None, 5, "", "never://", HALF, []),
    (QueueManager, "queues"): (5, "text", [], {}, [5], {"a": 5}, {"a": {"never": 1}}),
    (QueueManager, "namespace"): NO_NAME,
    (QueueManager, "partitions"): (None, *NO_COUNT, 0),
    (QueueManager, "default_queue"): NO_TEXT,
    (QueueManager, "order"): (None, 5, "", "never", []),
    (QueueManager, "aging"): (*NO_COUNT, 0),
    (QueueManager, "max_crashes"): (None, *NO_COUNT, 0),
    (QueueManager, "unknown_grace"): (None, *NO_SPAN),
    (QueueManager, "result_ttl"): (None, *NO_SPAN),
    (QueueManager, "max_payload_bytes"): (None, *NO_COUNT, 0),
    (QueueManager, "limits"): (5, "text", [5], {"a": 1}, [None]),
    (QueueManager, "wait_replicas"): (None, *NO_COUNT),
    (QueueManager, "wait_timeout"): (None, *NO_SPAN, 0),
    (QueueConfig, "name"): NO_NAME,
    (QueueConfig, "priority"): (None, *NO_COUNT, 1001),
    (QueueConfig, "concurrency"): (None, *NO_COUNT, 0),
    (QueueConfig, "weight"): (*NO_COUNT, 0),
    (QueueConfig, "keep_completed"): (None, *NO_COUNT),
    (QueueConfig, "keep_failed"): NO_COUNT,
    (Exponential, "base"): (None, *NO_SPAN),
    (Exponential, "factor"): (None, 0.5, "3", True, NAN, INF, []),
    (Exponential, "max"): (None, *NO_SPAN),
    (Exponential, "jitter"): (None, -1, 2, "3", True, NAN, []),
    (RetryRule, "on"): (None, 5, (), int, [ValueError], "ValueError"),
    (RetryRule, "attempts"): (*NO_COUNT, 0),
    (RetryRule, "backoff"): (5, "1s", []),
    (Limit, "queue"): NO_TEXT,
    (Limit, "type"): NO_TEXT,
    (Limit, "per_key"): NO_FLAG,
    (Limit, "concurrency"): (*NO_COUNT, 0),
    (Limit, "rate"): (*NO_COUNT, 0, 1_000_001),
    (Limit, "per"): (None, *NO_SPAN, 0, 1e-5),
    (Retry, "delay"): NO_SPAN,
}
GOOD: Mapping[Any, dict[str, Any]] = {
    QueueConfig: {"name": "q"},
    RetryRule: {"on": ValueError},
    Limit: {"type": "t", "rate": 1},
}
TYPE_OPTIONS: Mapping[str, tuple[Any, ...]] = {
    "queue": NO_TEXT,
    "priority": OPTIONS["priority"],
    "attempts": OPTIONS["attempts"],
    "timeout": OPTIONS["timeout"],
    "backoff": (5, "1s", [], 1.5),
    "retry": (None, 5, "text", [5], [ValueError]),
    "version": (None, *NO_COUNT, 0),
    "cpu": NO_FLAG,
    "keep_result": NO_FLAG,
    "never": (1,),
}

NAMED_OTHERWISE = {
    ("job", "name"): "job type", ("declare", "name"): "job type", ("upcast", "name"): "job type",
    ("on", "types"): "kind", ("stamp", "fn"): "stamp", ("middleware", "fn"): "middleware",
    ("on_startup", "fn"): "on_startup", ("on_shutdown", "fn"): "on_shutdown", ("job", "never"): "option",
}  # fmt: skip
FREE = {
    "data": "its type says what it may be",
    "shape": "any annotation",
    "session": "judged by whoever writes with it",
    "using": "judged by Django",
    "options": "those of the tables here",
    "clock": "a protocol", "random": "a protocol",
}  # fmt: skip
INNER = {
    "needs": "of the backends", "engine": "of workers", "spec": "of enqueue", "prepare": "of enqueue",
    "close": "takes nothing", "aclose": "takes nothing",
}  # fmt: skip
"""Public for other parts of the package."""


@pytest.fixture
def queues() -> Iterator[QueueManager]:
    made = QueueManager("memory://")
    yield made
    assert sum(row.enqueued + row.replayed for row in made.status()) == 0, "nothing was done"
    assert not made.schedules


@pytest.mark.parametrize(("name", "argument"), CALLS)
def test_a_call_refuses_what_an_argument_cannot_be(queues: QueueManager, name: str, argument: str) -> None:
    wrongs, call = CALLS[name, argument]
    known = NAMED_OTHERWISE.get((name, argument), argument)
    assert refused(known, wrongs, lambda wrong: call(queues, wrong)) == []
    if hasattr(queues, f"a{name}"):
        twins: Any = Twins(queues)
        assert refused(known, wrongs, lambda wrong: call(twins, wrong)) == []


@pytest.mark.parametrize("carrier", CARRIERS)
def test_every_option_of_a_job_is_checked_however_it_comes(queues: QueueManager, carrier: str) -> None:
    carry, faults = CARRIERS[carrier], []
    for option, wrongs in OPTIONS.items():
        named = "specs" if (carrier, option) in ELSEWHERE else option
        if carrier in ("chain", "batch") and option == "after":
            continue  # they are refused whatever they are
        faults += refused(named, wrongs, lambda wrong, o=option: carry(queues, {o: wrong}))
    assert faults == []


@pytest.mark.parametrize("wrong", [v for v in OPTIONS["unique_for"] if v not in ("running", 5)])
def test_unique_for_is_checked_beside_a_key(queues: QueueManager, wrong: Any) -> None:
    assert refused("unique_for", (wrong,), lambda v: queues.enqueue("t", unique_key="k", unique_for=v)) == []


def test_after_when_is_checked_beside_after(queues: QueueManager) -> None:
    wrongs = ("never", "", 5, [], HALF)
    assert refused("after_when", wrongs, lambda v: queues.enqueue("t", after=["i"], after_when=v)) == []


@pytest.mark.parametrize("option", TYPE_OPTIONS)
def test_every_option_of_a_job_type_is_checked(queues: QueueManager, option: str) -> None:
    named = "option" if option == "never" else option

    def declared(wrong: Any) -> None:
        queues.job("t", **{option: wrong})(lambda ctx, data: None)

    assert refused(named, TYPE_OPTIONS[option], declared) == []
    assert refused(named, TYPE_OPTIONS[option], lambda v: queues.declare("t", **{option: v})) == []
    assert not queues.types


@pytest.mark.parametrize(("kind", "argument"), MADE, ids=lambda x: getattr(x, "__name__", x))
def test_what_is_made_is_checked(kind: Any, argument: str) -> None:
    good = GOOD.get(kind, {})
    assert refused(argument, MADE[kind, argument], lambda v: kind(**{**good, argument: v})) == []


def test_a_handle_a_backlog_and_a_context_check_too(queues: QueueManager) -> None:
    job: Any = Job(queues, "i", "t", False)
    assert refused("timeout", (None, *NO_SPAN), job.result) == []
    load = Backlog(depth=1, arrival_rate=1, service_rate=1, oldest_wait_s=1)
    assert refused("slo", (None, *NO_SPAN, 0), load.desired_workers) == []
    wrongs = (*NO_COUNT, 0)
    assert refused("slots_per_worker", wrongs, lambda v: load.desired_workers(1, slots_per_worker=v)) == []


@pytest.mark.parametrize("made", [5, None, "text", [("a", "b")], {"a": 1}, {"a": HALF}, {"a": HUGE}])
def test_a_stamp_that_makes_no_headers_is_named(queues: QueueManager, made: Any) -> None:
    @queues.stamp
    def tenant() -> Any:
        return made

    with pytest.raises(ConfigurationError, match=r"stamp|headers"):
        queues.enqueue("t")
    with pytest.raises(ConfigurationError, match=r"stamp|headers"):
        queues.enqueue_many("t", [1])


def test_a_job_that_would_wait_for_itself_is_refused(queues: QueueManager) -> None:
    with pytest.raises(ConfigurationError, match="itself"):
        queues.enqueue("t", id="me", after=["me"])
    twice = [JobSpec(type="t", id="me"), JobSpec(type="t", id="me")]
    with pytest.raises(ConfigurationError, match="itself"):
        queues.chain(twice)
    with pytest.raises(ConfigurationError, match="itself"):
        queues.batch(twice[:1], then=twice[1])


def test_a_value_without_a_repr_is_still_refused_by_name(queues: QueueManager) -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    with pytest.raises(ConfigurationError, match="id: got <Odd without a repr"):
        queues.cancel(Odd())  # type: ignore[arg-type]


# -- nothing is forgotten -------------------------------------------------------------------------------


def _public(kind: type) -> Iterator[tuple[str, Any]]:
    for name, value in inspect.getmembers(kind, callable):
        if not name.startswith("_") and name not in INNER:
            yield name, value


def test_every_parameter_of_a_public_call_is_in_the_table() -> None:
    missing = []
    for name, call in _public(QueueManager):
        if hasattr(QueueManager, name[1:]) and name.startswith("a"):
            continue  # the twin of one that is looked at
        named = list(inspect.signature(call).parameters)[1:]
        missing += [f"{name}({p}=)" for p in named if p not in FREE and (name, p) not in CALLS]
    assert missing == []


def test_every_option_and_field_is_in_the_table() -> None:
    assert EnqueueOptions.__annotations__.keys() == OPTIONS.keys()
    fields = set(inspect.signature(JobSpec).parameters) - {"type", "data"}
    assert fields == OPTIONS.keys()
    for kind in {kind for kind, _ in MADE}:
        known = {argument for other, argument in MADE if other is kind}
        named = set(inspect.signature(kind).parameters) - FREE.keys() - {"count", "reason"}
        assert named == known, kind.__name__


def test_twins_take_what_their_calls_take() -> None:
    for name, call in _public(QueueManager):
        twin = getattr(QueueManager, f"a{name}", None)
        if twin is not None:
            ours, theirs = inspect.signature(call).parameters, inspect.signature(twin).parameters
            assert ours.keys() - {"using"} == theirs.keys(), name
