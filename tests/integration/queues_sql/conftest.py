"""A database of each kind with the tables of the queues in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from eventperf.queues import QueueManager


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        found = f"sqlite:///{tmp_path / 'jobs.db'}"
    else:
        found = request.getfixturevalue(f"{request.param}_url")
    with QueueManager(found) as queues:
        queues.backend.create_schema()  # type: ignore[attr-defined]
    return found
