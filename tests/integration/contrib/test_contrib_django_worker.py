"""``manage.py eventperf_worker`` in a Django of its own process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("django")

SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = ["eventperf.contrib.django", "shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "site.db"}}
EVENTPERF_QUEUES = "shop.jobs.queues"
USE_TZ = True
"""
JOBS = """
from django.db import connection
from eventperf.queues import QueueManager

queues = QueueManager("memory://")

@queues.job("count")
def count(ctx, data: int) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s + 1", [data])
        return cursor.fetchone()[0]
"""
RUN = """
import sys
from django.core.management import call_command, execute_from_command_line
import django
django.setup()
assert "shop.jobs" in sys.modules, "jobs.py of installed applications is imported"
from django.db import connection
from shop.jobs import queues
job = queues.enqueue("count", 41)
call_command("eventperf_worker", burst=True)
print("result", job.result())
from django.db import transaction
from eventperf.contrib.django import enqueue_on_commit
try:
    with transaction.atomic():
        enqueue_on_commit(queues, "count", 1)
        raise RuntimeError
except RuntimeError:
    pass
print("after rollback", sum(s.waiting for s in queues.status()))
with transaction.atomic():
    enqueue_on_commit(queues, "count", 1)
    print("before commit", sum(s.waiting for s in queues.status()))
print("after commit", sum(s.waiting for s in queues.status()))
execute_from_command_line(["manage.py", "eventperf_worker", "nowhere:queues"])
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "jobs.py").write_text(JOBS)
    (tmp_path / "settings.py").write_text(SETTINGS)
    (tmp_path / "run.py").write_text(RUN)
    return tmp_path


def test_the_command_runs_jobs_and_commits_decide(site: Path) -> None:
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "settings"}
    done = subprocess.run(
        [sys.executable, "run.py"], cwd=site, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines() == [
        "result 42",
        "after rollback 0",
        "before commit 0",
        "after commit 1",
    ], done.stderr
    assert done.returncode == 1
    assert "CommandError: queues: got 'nowhere:queues'" in done.stderr


HEAVY = """
from django.contrib.contenttypes.models import ContentType
from eventperf.queues import QueueManager

queues = QueueManager("memory://")

@queues.job("heavy", cpu=True)
def heavy(ctx, data: int) -> int:
    return ContentType.objects.count() + data

@queues.job("waits")
async def waits(ctx, data: int) -> int:
    return await ContentType.objects.acount() + data
"""
RUN_HEAVY = """
import django, threading
if __name__ == "__main__":
    django.setup()
    from asgiref.sync import async_to_sync, sync_to_async
    from django.core.management import call_command
    from django.db import connection
    call_command("migrate", run_syncdb=True, verbosity=0)
    from shop.jobs import queues
    n = queues.enqueue("heavy", 0), queues.enqueue("waits", 0)
    call_command("eventperf_worker", burst=True)
    print(*[job.result() > 0 for job in n])
"""


def test_processes_have_django_set_up_and_coroutines_have_connections(site: Path) -> None:
    (site / "shop" / "jobs.py").write_text(HEAVY)
    (site / "settings.py").write_text(SETTINGS.replace('["event', '["django.contrib.contenttypes", "event'))
    (site / "run.py").write_text(RUN_HEAVY)
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "settings"}
    done = subprocess.run(
        [sys.executable, "run.py"],
        cwd=site,
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout.split() == ["True", "True"], done.stderr
