"""Each script on a Redis that refuses does all of its work or none, and ends no lease that cannot be kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest
import redis

from eventperf.queues import JobState, Limit, QueueManager, StoreUnavailable
from eventperf.queues.protocols import Outcome
from eventperf.testing.queues import Station, balanced
from faults import wait_until

pytestmark = pytest.mark.integration

REFUSALS = {"OOM": ("maxmemory", "1", "0"), "NOREPLICAS": ("min-replicas-to-write", "1", "0")}
LEASE_S = 60.0


@contextmanager
def _refusing(client: redis.Redis, kind: str) -> Iterator[None]:
    name, on, off = REFUSALS[kind]
    client.config_set(name, on)
    try:
        yield
    finally:
        client.config_set(name, off)


def _books(client: redis.Redis) -> dict[bytes, bytes | None]:
    """Return all that is written down, but for settings that are told again when they are missing."""
    return {key: client.dump(key) for key in client.keys("{eventperf:*") if b"}:cf:" not in key}


def _run_out(client: redis.Redis) -> None:
    """Let every lease end: nobody was heard of for long."""
    for job_id, ends in client.zrange("{eventperf:default}:l", 0, -1, withscores=True):
        client.zadd("{eventperf:default}:l", {job_id: ends - 4 * LEASE_S * 1000})
    for worker, card in client.hgetall("{eventperf:default}:wk").items():
        until, rest = card.split(b"\x1f", 1)
        client.hset("{eventperf:default}:wk", worker, b"%d\x1f%b" % (int(until) - 4 * LEASE_S * 1000, rest))


@pytest.mark.parametrize("kind", REFUSALS)
def test_refused_step_has_changed_nothing_and_no_lease_ends_that_cannot_be_renewed(
    kind: str, private_redis: Callable[..., Any]
) -> None:
    server = private_redis()
    with server.client() as client:
        for seed in range(5):
            client.flushall()
            with QueueManager(
                server.url, max_crashes=1, limits=[Limit(queue="normal", concurrency=3)]
            ) as queues:
                _history(queues, client, kind, Random(seed))


def _history(queues: QueueManager, client: redis.Redis, kind: str, rng: Random) -> None:
    """Ask each step of a server that refuses, then of one that does not; all leases run out now and then."""
    store: Any = queues.backend.sync()
    stations = [Station(queues, "t", lease_s=LEASE_S) for _ in range(2)]
    held: dict[str, tuple[Station, int]] = {}
    refused = set[str]()
    for _ in range(25):
        verb = rng.choice(("push", "push", "claim", "claim", "renew", "enter", "note", "finish", "cancel"))
        station, some = rng.choice(stations), rng.choice(sorted(held) or ["none"])
        token = held[some][1] if some in held else 0
        mine = [(job_id, n) for job_id, (who, n) in held.items() if who is station]
        outcome = Outcome(some, token, rng.choice(("done", "retry", "dead", "release")))
        steps: dict[str, Callable[[], Any]] = {
            "push": lambda: queues.enqueue(
                "t", unique_key=f"u{rng.randint(0, 9)}", unique_for="running", tags=["a"]
            ),
            "claim": lambda: station.claim(2),  # noqa: B023
            "renew": lambda: store.renew(station.id, mine),  # noqa: B023
            "enter": lambda: store.enter(station.card, [job_id for job_id, _ in mine]),  # noqa: B023
            "note": lambda: store.note(some, token, progress=0.5),  # noqa: B023
            "finish": lambda: store.finish([outcome]),  # noqa: B023
            "cancel": lambda: queues.cancel(some),  # noqa: B023
        }
        _run_out(client)
        before, answer = _books(client), None
        with _refusing(client, kind):
            try:
                answer = steps[verb]()
            except StoreUnavailable:
                refused.add(verb)
                assert _books(client) == before, f"{verb}: refused, and done in part"
            else:
                assert verb not in ("claim", "push", "enter"), f"{verb} on a Redis that refuses"
                _note(held, verb, station, answer, outcome)
        for who in stations:  # nobody has taken what they could not have renewed
            theirs = [(job_id, n) for job_id, (of, n) in held.items() if of is who]
            assert store.renew(who.id, theirs).lost == [], verb
        if answer is None:
            _note(held, verb, station, steps[verb](), outcome)
        assert balanced(queues.status())
    assert {"claim", "push"} & refused
    assert sum(row.stalled for row in queues.status()) == 0


def _note(held: dict[str, Any], verb: str, station: Station, answer: Any, outcome: Outcome) -> None:
    if verb == "claim":
        held |= {lease.record.id: (station, lease.token) for lease in answer.leases}
    elif verb == "finish" and answer == [True]:
        del held[outcome.job_id]


def test_full_redis_keeps_what_runs_and_stores_how_it_ends(private_redis: Callable[..., Any]) -> None:
    server, go_on, runs = private_redis(), threading.Event(), []
    with server.client() as client, QueueManager(server.url, max_crashes=1) as queues:

        @queues.job("held", attempts=1)
        def held(ctx: Any, data: str) -> str:
            runs.append(data)
            assert go_on.wait(60)
            return data

        job, waiting = held.enqueue("runs"), held.enqueue("waits")
        worker = queues.worker(concurrency=1, lease=0.6)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            wait_until(lambda: runs, 30)
            with _refusing(client, "OOM"):
                ends = client.zscore("{eventperf:default}:l", job.id)
                wait_until(lambda: client.zscore("{eventperf:default}:l", job.id) > ends + 600, 30)
                go_on.set()
                wait_until(lambda: job.info().is_finished, 30)
                with pytest.raises(StoreUnavailable, match="out of memory"):
                    held.enqueue("more")
                assert waiting.info().state is JobState.WAITING
            assert waiting.result(30) == "waits"
        finally:
            go_on.set()
            worker.stop()
            thread.join(30)
        assert (job.result(0), job.info().crashes, runs) == ("runs", 0, ["runs", "waits"])
