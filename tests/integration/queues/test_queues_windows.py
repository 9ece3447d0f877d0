"""The windows of docs/explanation/delivery.md: a real process is killed in each, and this is what follows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from eventperf.queues import JobState, QueueManager
from eventperf.testing.queues import Station, balanced
from eventperf.testing.queues.tools import run_until
from faults import Worker, wait_until

pytestmark = pytest.mark.integration

LEASE_S = 1.0

CHILD = """
import asyncio, functools, os, signal, sys
from eventperf.queues import QueueManager
from eventperf.queues.backends.redis.backend import AsyncRedisStore, RedisStore
from eventperf.queues.working.runs import Runner

url, namespace, window, effects, lease = sys.argv[1:]
queues = QueueManager(url, namespace=namespace)

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def around(owner, name, *, before=None, after=None):
    inner = getattr(owner, name)
    if asyncio.iscoroutinefunction(inner):
        @functools.wraps(inner)
        async def call(self, *args, **kwargs):
            before and before(self, *args)
            answer = await inner(self, *args, **kwargs)
            after and after(answer)
            return answer
    else:
        @functools.wraps(inner)
        def call(self, *args, **kwargs):
            before and before(self, *args)
            answer = inner(self, *args, **kwargs)
            after and after(answer)
            return answer
    setattr(owner, name, call)

if window == "after claim":
    around(AsyncRedisStore, "claim", after=lambda claimed: claimed.leases and die())
elif window == "before start":
    around(Runner, "start", before=die)
elif window == "before finish":
    around(AsyncRedisStore, "finish", before=lambda self, outcomes: outcomes and die())
elif window == "inside the finish reply":
    around(AsyncRedisStore, "finish", after=lambda accepted: accepted and die())
elif window == "during renew":
    around(RedisStore, "renew", after=die)
elif window == "during reap":
    around(AsyncRedisStore, "claim", after=lambda claimed: claimed.stalled and die())
elif window == "during enqueue reply":
    around(RedisStore, "_run", before=lambda self, name, args: print("sent", name, flush=True), after=die)

@queues.job("effect")
async def effect(ctx, data):
    if window == "during renew":
        await asyncio.sleep(30)
    with open(effects, "a") as file:
        file.write(f"{ctx.job_id}\\n")
    if window == "after effect":
        die()

if window == "during enqueue reply":
    queues.enqueue("effect", None, id="ordered")
else:
    queues.worker(concurrency=2, lease=float(lease)).run()
"""

# window: effects in all, crashes counted
WINDOWS = {
    "after claim": (1, 1),
    "before start": (1, 1),
    "after effect": (2, 1),
    "before finish": (2, 1),
    "inside the finish reply": (1, 0),
    "during renew": (1, 1),
    "during reap": (1, 2),
    "during enqueue reply": (1, 0),
}


@pytest.fixture
def queues(redis_url: str) -> Iterator[QueueManager]:
    with QueueManager(redis_url, namespace=uuid4().hex) as manager:
        yield manager


@pytest.mark.parametrize("window", WINDOWS)
def test_killed_in_the_window(window: str, queues: QueueManager, redis_url: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    effects.touch()

    @queues.job("effect")
    async def effect(ctx: Any, data: None) -> None:
        with effects.open("a") as file:
            file.write(f"{ctx.job_id}\n")

    if window == "during reap":
        queues.enqueue("effect", None, id="ordered")
        assert len(Station(queues, "effect", lease_s=0.3).take()) == 1  # and is never heard of again
    elif window != "during enqueue reply":
        queues.enqueue("effect", None, id="ordered")

    with Worker(CHILD, redis_url, queues.namespace, window, effects, LEASE_S) as child:
        assert child.wait(30) == -9, child.output
    job = queues.enqueue("effect", None, id="ordered")  # a careful producer repeats what was not answered
    run_until(queues, lambda: job.info().is_finished, lease=LEASE_S)

    expected, crashes = WINDOWS[window]
    info = job.info()
    assert (info.state, info.crashes) == (JobState.COMPLETED, crashes)
    assert effects.read_text().split() == ["ordered"] * expected
    rows = queues.status()
    assert (sum(s.enqueued for s in rows), sum(s.completed for s in rows)) == (1, 1)
    assert balanced(rows)
    wait_until(lambda: queues.backlog().active == 0)
