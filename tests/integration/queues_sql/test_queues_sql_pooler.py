"""PgBouncer between the store and PostgreSQL, in each of its modes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from eventperf.errors import QueueError, StoreUnavailable
from eventperf.queues import QueueManager
from faults import wait_until
from servers import PgBouncer, PostgresServer

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("notify", ["", "?notify=off"])
def test_transaction_mode_works_and_says_what_it_does_without(
    notify: str,
    postgres_server: PostgresServer,
    private_pgbouncer: Callable[..., PgBouncer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    pooler = private_pgbouncer("transaction")
    with postgres_server.fresh_database() as direct:
        url = pooler.database_url(direct.rpartition("/")[2]) + notify
        with QueueManager(url) as queues, caplog.at_level(logging.WARNING, "eventperf.queues"):
            queues.backend.create_schema()  # type: ignore[attr-defined]
            queues.job("t")(lambda ctx, data: data)
            worker = queues.worker(concurrency=8, lease=5)
            thread = threading.Thread(target=worker.run)
            thread.start()
            try:
                jobs = [queues.enqueue("t", n) for n in range(120)]
                assert queues.drain(60)
            finally:
                worker.stop()
                thread.join(30)
            assert [job.result() for job in jobs] == list(range(120))
            said = [r.getMessage() for r in caplog.records if "pooler" in r.getMessage()]
            assert len(said) == (0 if notify else 1), "once, unless it was foreseen"


def test_statement_mode_is_refused_with_the_cure(
    postgres_server: PostgresServer, private_pgbouncer: Callable[..., PgBouncer]
) -> None:
    pooler = private_pgbouncer("statement")
    with postgres_server.fresh_database() as direct:
        url = pooler.database_url(direct.rpartition("/")[2])
        with (
            QueueManager(url) as queues,
            pytest.raises(QueueError, match="use transaction or session") as why,
        ):
            queues.backend.create_schema()  # type: ignore[attr-defined]
        assert not isinstance(why.value, StoreUnavailable), "waiting would not help"


def test_session_mode_wakes_idle_workers_when_told_so(
    postgres_server: PostgresServer, private_pgbouncer: Callable[..., PgBouncer]
) -> None:
    pooler = private_pgbouncer("session")
    heard: list[Any] = []
    with postgres_server.fresh_database() as direct:
        url = pooler.database_url(direct.rpartition("/")[2]) + "?notify=on&pool=1"
        with QueueManager(url) as queues, QueueManager(direct) as elsewhere:
            queues.backend.create_schema()  # type: ignore[attr-defined]
            from eventperf.testing.queues import Station

            station = Station(queues, "t")
            assert queues.backend.listens  # type: ignore[attr-defined]
            thread = threading.Thread(target=lambda: heard.append(station.wait(20)))
            thread.start()
            wait_until(lambda: (elsewhere.enqueue("t"), heard)[1], 20, every=0.3, what="the wake-up")
            thread.join(20)
            assert heard == [True]
