"""Background jobs in one process: urgency, retries, a dead letter and its replay.

Swap ``memory://`` for ``redis://host:6379/0`` and run producers and workers apart.
"""

from __future__ import annotations

from dataclasses import dataclass

from eventperf.queues import Exponential, JobContext, NonRetryable, QueueManager

queues = QueueManager("memory://")
order: list[str] = []
mail_server_up = False


@dataclass
class Mail:
    to: str
    text: str


@queues.job("notification_sending", attempts=3, backoff=Exponential("10ms", jitter=0))
async def send_mail(ctx: JobContext, data: Mail) -> str:
    if "@" not in data.to:
        raise NonRetryable(f"{data.to!r} is no address")
    if ctx.attempt == 1 and not mail_server_up:
        raise ConnectionError("mail server is away")
    return f"sent to {data.to} at attempt {ctx.attempt}"


@queues.job("emergency_alert", queue="critical")
def alert(ctx: JobContext, data: str) -> None:
    order.append(f"alert: {data}")


@queues.job("analytics_processing", queue="low")
def analyse(ctx: JobContext, data: int) -> None:
    order.append(f"analytics of event {data}")


def main() -> None:
    for event_id in range(3):
        analyse.enqueue(event_id)
    alert.enqueue("gate B is closed")
    good = send_mail.enqueue(Mail("ada@example.com", "your seat is confirmed"))
    bad = send_mail.enqueue(Mail("nobody", "?"))

    # One slot makes the order visible; without the argument every queue runs at its own concurrency.
    queues.worker(concurrency=1).run(burst=True)
    while not good.info().is_finished:
        queues.worker(concurrency=1).run(burst=True)

    print("\n".join(order))
    print(good.result())
    print(f"dead letter: {[(job.type, job.error) for job in queues.dead('normal')]}")
    assert bad.info().is_finished
    print(f"replayed: {queues.replay('normal')}")
    print(f"{'queue':<10}{'waiting':>8}{'completed':>10}{'failed':>7}")
    for s in queues.status():
        print(f"{s.name:<10}{s.waiting:>8}{s.completed:>10}{s.failed:>7}")


if __name__ == "__main__":
    with queues:
        main()
