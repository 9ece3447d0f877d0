"""arq's own tests against the worker of the compatibility import.

They come with arq's source distribution and need an old pytest-asyncio, so they run where both are at hand:

    pip download arq==0.28.0 --no-deps --no-binary :all: && tar xzf arq-0.28.0.tar.gz
    python -m venv arqtests && arqtests/bin/pip install "pytest<8.4" "pytest-asyncio<0.22" pytest-mock \
        pytest-timeout msgpack dirty-equals pydantic watchfiles msgspec arq==0.28.0
    export EVENTPERF_ARQ_TESTS=arq-0.28.0/tests EVENTPERF_ARQ_PYTHON=arqtests/bin/python
    pytest tests/integration/queues_sql/test_queues_arq_suite.py
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import eventperf
from servers import RedisServer

pytestmark = pytest.mark.integration

EXCEPTIONS = {"test_health_check_direct": "it asks a Redis on the default port of this machine"}
"""Tests of arq that are not expected to pass, with the reason. It may only shrink."""

CONFTEST = """
import arq, arq.worker, os, pytest
from eventperf.queues.compat.arq import Worker as _Worker
arq.worker.Worker = arq.Worker = _Worker  # before the test modules import it

@pytest.fixture(scope="session")
def test_redis_host():
    return "127.0.0.1"

@pytest.fixture(scope="session")
def test_redis_port():
    return int(os.environ["ARQ_REDIS_PORT"])
"""


def test_arqs_own_tests_pass(tmp_path: Path, redis_server: RedisServer) -> None:
    source, python = os.environ.get("EVENTPERF_ARQ_TESTS"), os.environ.get("EVENTPERF_ARQ_PYTHON")
    if not source or not python:
        pytest.skip("arq's tests are not here: see the head of this file (EVENTPERF_ARQ_TESTS)")
    for path in Path(source).glob("*.py"):
        shutil.copy(path, tmp_path)
    theirs = (tmp_path / "conftest.py").read_text()
    theirs = re.sub(
        r"@pytest.fixture\(scope='session'\)\ndef (?!test_redis_settings)[\s\S]*?\n\n\n", "", theirs
    )
    theirs = theirs.replace("from testcontainers.redis import RedisContainer\n", "")
    (tmp_path / "conftest.py").write_text(CONFTEST + theirs)
    root = Path(eventperf.__file__).parents[1]
    wanted = ["test_worker.py", "test_cron.py", "test_jobs.py", "test_main.py"]
    skipped = [f"--deselect=test_worker.py::{name}" for name in EXCEPTIONS]
    done = subprocess.run(
        [
            python,
            "-m",
            "pytest",
            "-q",
            "-o",
            "asyncio_mode=auto",
            "-p",
            "no:cacheprovider",
            *wanted,
            *skipped,
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root), "ARQ_REDIS_PORT": str(redis_server.port)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 135, "most of the suite must have run"
