"""``django.tasks`` on a QueueManager, in a Django of its own process; Django 6 and later."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

django = pytest.importorskip("django")
pytestmark = pytest.mark.skipif(django.VERSION < (6,), reason="django.tasks came with Django 6")

SETTINGS = """
import os
SECRET_KEY = "x"
INSTALLED_APPS = ["eventperf.contrib.django", "shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "site.db"}}
EVENTPERF_QUEUES = "shop.jobs.queues"
TASKS = {
    "default": {
        "BACKEND": "eventperf.contrib.django.tasks.EventPerfTasks", "QUEUES": ["default", "high"],
        "OPTIONS": {"modules": ["other_tasks"]},
    },
    "again": {"BACKEND": "eventperf.contrib.django.tasks.EventPerfTasks", "OPTIONS": {"attempts": 2}},
    "hasty": {
        "BACKEND": "eventperf.contrib.django.tasks.EventPerfTasks",
        "OPTIONS": {"timeout": 0.2, "using": "default"},
    },
}
USE_TZ = True
"""
JOBS = """
import os
from eventperf.queues import QueueManager
queues = QueueManager(os.environ["QUEUES_URL"], namespace=os.environ["NAMESPACE"])
"""
TASKS = """
import asyncio
from django.db import connection
from django.tasks import task

SEEN = []

@task
def add(a, b=1):
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s + %s", [a, b])
        return cursor.fetchone()[0]

@task(priority=50, queue_name="high", takes_context=True)
async def shout(context, text):
    return f"{text.upper()} {context.attempt} {context.task_result.status}"

@task
def fail():
    SEEN.append("fail")
    raise ValueError("no such thing")

@task(backend="again")
def stumble():
    SEEN.append("stumble")
    if SEEN.count("stumble") == 1:
        raise OSError("once")
    return "done"

@task(backend="hasty")
async def dawdle():
    await asyncio.sleep(20)

class OurError(Exception):
    pass

@task
def fail_in_our_own_way():
    raise OurError("it is so")

@task
def note(name):
    SEEN.append(name)
"""
OTHER = """
from django.tasks import task
@task
def far():
    return "far"
"""
RUN = """
import datetime
import django
django.setup()
from django.core.management import call_command
from django.tasks import task_backends
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
from django.tasks.signals import task_enqueued, task_finished, task_started
from django.utils import timezone
from shop import tasks
from shop.jobs import queues

told = []
for name, one in (("enqueued", task_enqueued), ("started", task_started), ("finished", task_finished)):
    def hear(sender, task_result, name=name, **kwargs):
        told.append((name, task_result.task.name, str(task_result.status)))
    one.connect(hear, weak=False)

call_command("check")
result = tasks.add.enqueue(41)
assert (result.status, result.is_finished) == ("READY", False), result
words = tasks.shout.enqueue("hey")
bad, again = tasks.fail.enqueue(), tasks.stumble.enqueue()
low, urgent = tasks.note.using(priority=-5).enqueue("low"), tasks.note.using(priority=90).enqueue("urgent")
late = tasks.note.using(run_after=timezone.now() + datetime.timedelta(hours=1)).enqueue("late")
assert tasks.add.get_result(result.id).status == "READY"
call_command("eventperf_worker", burst=True)
import time
end = time.monotonic() + 20
while not again.is_finished and time.monotonic() < end:
    time.sleep(0.2)
    call_command("eventperf_worker", burst=True)
    again.refresh()
result.refresh()
assert (result.status, result.return_value, result.attempts) == ("SUCCESSFUL", 42, 1), result
assert result.args == [41] and result.finished_at >= result.started_at >= result.enqueued_at
assert tasks.shout.get_result(words.id).return_value == "HEY 1 RUNNING"
bad.refresh()
assert (bad.status, bad.errors[0].exception_class) == ("FAILED", ValueError), bad
assert "no such thing" in bad.errors[0].traceback
assert "tasks.py" in bad.errors[0].traceback and "in fail" in bad.errors[0].traceback, bad.errors[0]
own = tasks.fail_in_our_own_way.enqueue()
elsewhere = __import__("other_tasks").far.enqueue()
strange = queues.enqueue("django_task", {"task": "os.getcwd", "backend": "default", "queue": "default",
                                          "priority": 0, "args": [], "kwargs": {}})
unseen = queues.enqueue("django_task", {"task": "antigravity.run", "backend": "default", "queue": "default",
                                         "priority": 0, "args": [], "kwargs": {}})
call_command("eventperf_worker", burst=True)
own.refresh()
assert own.errors[0].exception_class is tasks.OurError, own.errors
elsewhere.refresh()
assert elsewhere.return_value == "far", elsewhere
import sys
for job in (strange, unseen):
    assert "is no task that this process knows" in job.info().error, job.info()
    assert job.info().attempt == 1, "no other try would help"
    try:
        task_backends["default"].get_result(job.id)
    except TaskResultDoesNotExist:
        continue
    raise AssertionError(job)
assert "antigravity" not in sys.modules, "what a job names is not imported"
assert (again.return_value, again.attempts) == ("done", 2), again
assert tasks.SEEN.index("urgent") < tasks.SEEN.index("low")
late.refresh()
assert late.status == "READY"
assert told.count(("enqueued", "add", "READY")) == told.count(("finished", "add", "SUCCESSFUL")) == 1
assert ("finished", "fail", "FAILED") in told and told.count(("started", "stumble", "RUNNING")) == 2
backend = task_backends["default"]
other = queues.enqueue("something_else")
damaged = [queues.enqueue("django_task", data).id for data in (
    {}, {"task": 5}, {"task": tasks.add.module_path},
    {"task": tasks.add.module_path, "backend": "nowhere", "queue": "default", "priority": 0},
    {"task": tasks.add.module_path, "backend": "default", "queue": "nope", "priority": 0},
    {"task": tasks.add.module_path, "backend": "default", "queue": "default", "priority": "much"},
)]
for nobody in ("no-such-id", other.id, *damaged):
    try:
        backend.get_result(nobody)
    except TaskResultDoesNotExist:
        continue
    raise AssertionError(nobody)
try:
    tasks.add.using(queue_name="nope")
except InvalidTask:
    pass
else:
    raise AssertionError("a queue that is not there")
backend.queues = {"default", "nowhere"}
assert [e.id for e in backend.check()] == ["eventperf.E002"]

from django.db import transaction
from eventperf.queues.outbox import Relay, create_table
create_table("sqlite:///site.db")
try:
    with transaction.atomic():
        gone = tasks.dawdle.enqueue()
        raise KeyError
except KeyError:
    pass
with transaction.atomic():
    kept = tasks.dawdle.enqueue()
with Relay(queues, "sqlite:///site.db") as relay:
    assert relay.run(burst=True) == 1
call_command("eventperf_worker", burst=True)
kept.refresh()
assert kept.status == "FAILED" and "Timeout" in kept.errors[0].traceback, kept
try:
    gone.refresh()
except TaskResultDoesNotExist:
    pass
else:
    raise AssertionError("a task of a transaction that was rolled back")

import asyncio
async def main():
    result = await tasks.add.aenqueue(1, b=2)
    assert (await tasks.add.aget_result(result.id)).kwargs == {"b": 2}
    await queues.aclose()
asyncio.run(main())
print("all well")
"""


@pytest.mark.parametrize("store", ["memory://", "sqlite:///jobs.db", "redis_url"])
def test_tasks_run_as_jobs(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(store) if store == "redis_url" else store
    (tmp_path / "shop").mkdir()
    for name, text in {"__init__": "", "settings": SETTINGS, "jobs": JOBS, "tasks": TASKS}.items():
        (tmp_path / "shop" / f"{name}.py").write_text(text)
    (tmp_path / "other_tasks.py").write_text(OTHER)
    env = {
        **os.environ, "DJANGO_SETTINGS_MODULE": "shop.settings", "QUEUES_URL": url,
        "NAMESPACE": f"tasks{os.getpid()}", "PYTHONPATH": str(tmp_path),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "all well" in done.stdout
