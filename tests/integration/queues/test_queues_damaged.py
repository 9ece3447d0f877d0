"""Records that somebody damaged, in Redis and in databases: the worker and the jobs beside them go on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from eventperf.queues import JobState, QueueConfig, QueueManager
from faults import wait_until

pytestmark = pytest.mark.integration

US = b"\x1f"
EXTRAS: list[bytes] = [
    b"{bad", b"7", b'"x"', b"[]", b"null", b"\xff\xfe", b"{" * 500, b"[" * 100_000,
    b'{"a":"x"}', b'{"a":-1}', b'{"a":1e400}', b'{"t":"y"}', b'{"t":-3}', b'{"d":"z"}', b'{"d":[]}',
    b'{"h":7}', b'{"h":{"a":7}}', b'{"k":7}', b'{"k":{}}', b'{"u":7}', b'{"u":[1]}', b'{"v":"1"}',
    b'{"f":1}', b'{"f":{}}', b'{"f":{"after":7,"when":1}}', b'{"w":"x"}', b'{"l":7}', b'{"l":[7]}',
    b'{"l":[[]]}', b'{"k":"\xff"}',
]  # fmt: skip


def _parts(at: int, data: bytes) -> Callable[[bytes], bytes]:
    def damage(record: bytes) -> bytes:
        parts = record.split(US, 5)
        parts[at] = data
        return US.join(parts)

    return damage


RECORDS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda record: b"",
    "no separators": lambda record: b"xyz",
    "cut short": lambda record: record[: len(record) // 3],
    "born yesterday": _parts(0, b"yesterday"),
    "born at nothing": _parts(0, b""),
    "another queue": _parts(1, b"critical"),
    "a queue of nobody": _parts(1, b"nobody"),
    "a queue that is no UTF-8": _parts(1, b"\xff"),
    "a type that is no UTF-8": _parts(2, b"\xff\xfe"),
    "a level that is a word": _parts(3, b"high"),
    "a level beyond all": _parts(3, b"9" * 400),
    "a payload that is none": _parts(5, b"\xc1\xc1"),
    "a payload that is nothing": _parts(5, b""),
} | {f"extras {data[:20]!r}": _parts(4, data) for data in EXTRAS}


class Running:
    """A worker in a thread that notes what ran."""

    def __init__(self, queues: QueueManager) -> None:
        self.done: list[Any] = []
        self.ended: list[BaseException] = []
        queues.job("t")(self._work)
        self._worker = queues.worker(lease=2.0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _work(self, ctx: Any, data: Any) -> None:
        self.done.append(data)

    def _run(self) -> None:
        try:
            self._worker.run()
        except BaseException as error:
            self.ended.append(error)

    def stop(self) -> None:
        self._worker.stop()
        self._thread.join(10)
        assert not self._thread.is_alive()
        assert self.ended == []


def options() -> dict[str, Any]:
    kept = [
        QueueConfig(name=name, priority=n, keep_failed=None) for n, name in enumerate(("normal", "critical"))
    ]
    return {"namespace": f"t-{uuid4().hex[:8]}", "unknown_grace": 0.5, "queues": kept}


@pytest.fixture
def redis_queues(redis_url: str) -> Iterator[QueueManager]:
    with QueueManager(redis_url, **options()) as queues:
        yield queues


def _goes_on(queues: QueueManager, done: list[Any]) -> None:
    """Every reader still answers, and the jobs beside the damaged one run."""
    later = queues.enqueue("t", "later")
    wait_until(lambda: {"before", "after", "later"} <= set(map(str, done)), timeout=15)
    later.result(10)
    queues.status()
    for name in ("critical", "normal"):
        for state in JobState:
            if state is not JobState.CANCELLED:
                queues.backend.sync().listing(name, state)


@pytest.mark.parametrize("delayed", [False, True], ids=["waiting", "delayed"])
def test_damaged_records_in_redis_end_in_the_dead_letter(
    redis_queues: QueueManager, redis_client: Any, delayed: bool
) -> None:
    """Each kind of damage beside the others, in one worker's life; a failure names its kinds."""
    queues, key = redis_queues, f"{{eventperf:{redis_queues.namespace}}}:j"
    more: dict[str, Any] = {"delay": 0.5} if delayed else {}
    queues.enqueue("t", "before")
    queues.enqueue("t", "urgent", queue="critical")
    jobs: dict[str, tuple[str, bytes]] = {}
    for kind, damage in RECORDS.items():
        job = queues.enqueue("t", kind, fairness_key="a", unique_key=kind, attempts=1, **more)
        damaged = damage(redis_client.hget(key, job.id))
        redis_client.hset(key, job.id, damaged)
        if not (delayed and damaged.split(US)[1:2] == [b"critical"]):  # a job like any other of that queue
            jobs[kind] = job.id, damaged
    queues.enqueue("t", "after")
    running = Running(queues)
    try:
        _goes_on(queues, running.done)

        def not_ended() -> dict[str, JobState]:
            states = {kind: queues.job_info(job_id).state for kind, (job_id, _) in jobs.items()}
            return {kind: state for kind, state in states.items() if state is not JobState.FAILED}

        wait_until(lambda: not not_ended(), timeout=15, what=not_ended)
        for kind, (job_id, damaged) in jobs.items():
            assert queues.job_info(job_id).error, kind
            assert redis_client.hget(key, job_id) == damaged, f"its bytes are kept: {kind}"
        assert sum(status.dead for status in queues.status()) == len(jobs)
        assert not {*running.done} & {*jobs}
    finally:
        running.stop()
    assert all(status.waiting == status.active == 0 for status in queues.status())


COLUMNS: dict[str, list[Any]] = {
    "type": ["", "\x1b[2J", "nobody's", b"\xff\xfe"],
    "queue": ["\x1b[2J", b"\xff"],
    "priority": [-5, "high", b"\x00"],
    "turn": [-1, "x"],
    "at": ["NaN", "x", b"\x00", -1.0],
    "tag": ["NaN", "x", -1.0],
    "created_at": ["NaN", "x"],
    "ready_at": ["NaN", "x"],
    "deadline_at": ["NaN", "x", -1.0],
    "held_key": ["", "x" * 64, b"\xff"],
    "held_for": ["", "nobody"],
    "payload": [b"", b"\xc1\xc1", b"j{", 3_000_000_000, "text"],
    "facts": ["{", "7", "[]", '"x"', '{"attempts":"x"}', '{"nobody":1}', '{"headers":7}', '{"key":7}',
              '{"id":"other"}', '{"flow":{}}', "[" * 100_000, b"\xff"],
    "attempts": [-1, "x", 2**31 - 1],
    "crashes": [-1, "x"],
    "token": [-7, "x"],
    "worker": ["", "nobody"],
    "progress": ["NaN", "x"],
    "steps": ["{", "7"],
    "cancel": ["x"],
}  # fmt: skip
RECORD = {"type", "payload", "facts"}
"""Columns that are the record itself; a job with damage beside them may run or end, but stops nobody."""


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def sql_queues(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[QueueManager]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'jobs.db'}"
    else:
        url = request.getfixturevalue(f"{request.param}_jobs")
    with QueueManager(url, **options()) as queues:
        queues.backend.create_schema()  # type: ignore[attr-defined]
        yield queues


@pytest.fixture(scope="module")
def postgres_jobs(postgres_server: Any) -> Iterator[str]:
    with postgres_server.fresh_database() as url:
        yield url


@pytest.fixture(scope="module")
def mariadb_jobs(mariadb_server: Any) -> Iterator[str]:
    with mariadb_server.fresh_database() as url:
        yield url


def test_damaged_rows_end_in_the_dead_letter(sql_queues: QueueManager) -> None:
    """Each value that a column takes on this database, in a waiting and in a delayed job."""
    queues, engine = sql_queues, sql_queues.backend.engine()  # type: ignore[attr-defined]
    queues.enqueue("t", "before")
    damaged: dict[str, tuple[str, str]] = {}
    for column, values in COLUMNS.items():
        for value in values:
            if isinstance(value, bytes) and column != "payload" and queues.backend.name != "SQLite":
                continue  # servers turn bytes in a text into something else
            for more in ({}, {"delay": 0.3}):
                name = f"{column} {str(value)[:20]} {more}"
                job = queues.enqueue("t", name, attempts=1, fairness_key=column, **more)  # type: ignore[arg-type]
                try:
                    with engine.begin() as conn:
                        sql = f"UPDATE eventperf_jobs SET {column} = :value WHERE id = :id"
                        conn.execute(sa.text(sql), {"value": value, "id": job.id})
                except sa.exc.SQLAlchemyError:  # not in a column of this type
                    assert queues.backend.name != "SQLite"
                    assert queues.cancel(job.id)  # it is whole, and would run
                    continue
                damaged[job.id] = column, name
    queues.enqueue("t", "after")
    running = Running(queues)
    try:
        _goes_on(queues, running.done)
        ended = {JobState.FAILED, JobState.COMPLETED, JobState.CANCELLED}
        open_classes = {i: n for i, (c, n) in damaged.items() if c not in {"priority", "queue"}}

        def not_ended() -> list[str]:
            return [name for i, name in open_classes.items() if queues.job_info(i).state not in ended]

        wait_until(lambda: not not_ended(), timeout=30, what=not_ended)
        assert not {*running.done} & {name for column, name in damaged.values() if column in RECORD}
    finally:
        running.stop()
