"""Checked by mypy and pyright, never run: options of producers have names and types, results too."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from typing_extensions import Unpack, assert_type

from eventperf.queues import EnqueueOptions, Job, JobContext, JobSpec, QueueManager

queues = QueueManager("memory://")


@queues.job(attempts=5)
def mail(ctx: JobContext, data: dict[str, str]) -> int:
    assert_type(ctx.then("next", {"n": 1}, delay="5m"), str)
    ctx.then("next", prio=1)  # type: ignore[call-arg]
    ctx.then("next", priority="high")  # type: ignore[arg-type]
    return len(data)


def soon(**options: Unpack[EnqueueOptions]) -> Job:
    """A wrapper of one's own passes the options on, and may set some."""
    options.setdefault("delay", "5m")
    return queues.enqueue("mail", {"to": "a"}, **options)


some: EnqueueOptions = {"queue": "high", "tags": ["a"]}
anything: dict[str, Any] = {"queue": "high"}

assert_type(queues.enqueue("mail", {"to": "a"}, delay=timedelta(seconds=5), tags=["a"]), Job)
assert_type(queues.enqueue_many("mail", [{}, {}], priority=9, unique_for="10m"), list[Job])
assert_type(queues.enqueue_many([JobSpec(type="mail")]), list[Job])
assert_type(mail.enqueue({"to": "a"}, at=datetime(2030, 1, 1), headers={"trace": "1"}), Job)
queues.enqueue("mail", session=object(), **some)
queues.enqueue("mail", **anything)
queues.cron("night", "@daily", "mail", unique_key="night", timezone="Europe/Paris")
soon(queue="low")

queues.enqueue("mail", prioriy=9)  # type: ignore[call-arg]
queues.enqueue("mail", priority="high")  # type: ignore[arg-type]
queues.enqueue("mail", queue=3)  # type: ignore[arg-type]
queues.enqueue_many("mail", [1], delay=object())  # type: ignore[call-overload]
queues.enqueue_many([JobSpec(type="mail")], delay=1)  # type: ignore[call-overload]
queues.cron("night", "@daily", "mail", dellay=1)  # type: ignore[call-arg]
mail.enqueue("no mail")  # type: ignore[arg-type]
mail.enqueue({"to": "a"}, tags=5)  # type: ignore[arg-type]
soon(colour="red")  # type: ignore[call-arg]


async def main() -> None:
    assert_type(await queues.aenqueue("mail", {"to": "a"}, fairness_key="acme"), Job)
    assert_type(await queues.aenqueue_many("mail", [{}], deadline="1h"), list[Job])
    assert_type(await mail.aenqueue({"to": "a"}, attempts=1), Job)
    await queues.aenqueue("mail", fairnes_key="acme")  # type: ignore[call-arg]
    await mail.aenqueue({"to": "a"}, timeout=[])  # type: ignore[arg-type]
