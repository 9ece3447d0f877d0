"""The worker process of ``eventperf demo --chaos``; it tells its parent what its jobs did, a line each."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from sqlalchemy import create_engine

from eventperf.queues import QueueManager

from .app import QUEUE_OF, Row, Site
from .check import Ledger
from .dataset import tune_sqlite


def say(**facts: Any) -> None:
    """Write one line at once: a kill leaves it whole or leaves it out."""
    os.write(1, (json.dumps(facts) + "\n").encode())


def handler(site: Site, job: str) -> Callable[[Any, Row], None]:
    """Return the handler of one kind of side work."""

    def handle(ctx: Any, data: Row) -> None:
        say(queue=QUEUE_OF[job], waited=time.monotonic() - data["at"])
        site.do(job, data)
        say(job=job, n=data["n"], claim=ctx.token)

    return handle


def main() -> None:
    """Work until told to stop."""
    told = json.load(sys.stdin)
    logging.getLogger("eventperf").setLevel(logging.ERROR)  # that Redis is away is no news here
    engine = create_engine(told["database"])
    if engine.dialect.name == "sqlite":
        tune_sqlite(engine)
    site = Site(engine, Ledger({}, {}, {}), count(), cache=None, queues=None)
    with QueueManager(told["redis"], namespace=told["namespace"]) as queues:
        for job, queue in QUEUE_OF.items():
            queues.job(job, queue=queue)(handler(site, job))
        worker = queues.worker(lease=told["lease"])
        say(ready=True)
        worker.run()
    engine.dispose()


if __name__ == "__main__":
    main()
