"""The Django recorder in a Django of its own process, with real models on SQLite."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("django")
pytest.importorskip("sqlglot")

PROGRAM = """
import threading
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=[], USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "site.db"}},
)
django.setup()
from django.db import connection, models

class Event(models.Model):
    name = models.CharField(max_length=50)
    class Meta:
        app_label = "shop"

class Ticket(models.Model):
    event = models.ForeignKey(Event, on_delete=models.CASCADE)
    class Meta:
        app_label = "shop"

with connection.schema_editor() as editor:
    editor.create_model(Event)
    editor.create_model(Ticket)
for n in range(8):
    Ticket.objects.create(event=Event.objects.create(name=f"100% {n}"))

from eventperf.contrib.django import DjangoRecorder

def page():
    return [ticket.event.name for ticket in Ticket.objects.all()]

with DjangoRecorder() as rec:
    page()
    def search():
        list(Event.objects.filter(name__contains="%"))
        connection.close()
    other = threading.Thread(target=search)
    other.start()
    other.join()
page()  # not recorded

(loop,) = rec.n_plus_one()
print("loop", loop.queries, loop.runs, loop.caller.rpartition("/")[2], "shop_event" in loop.statement)
print("calls", sorted(s.calls for s in rec.workload()), any(s.error for s in rec.workload()))
print("values", {len(s.measurable) == s.calls for s in rec.workload()})
rec.stop()
rec.clear()
print("left", len(list(rec.workload())))
"""


LOOP = next(n for n, line in enumerate(PROGRAM.splitlines(), 1) if "ticket.event.name" in line)


def test_loops_and_threads_are_seen_with_the_callers_line(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py")]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ}, capture_output=True, text=True, timeout=60, check=False
    )
    expected = [f"loop 8 1 program.py:{LOOP} True", "calls [1, 1, 8] False", "values {True}", "left 0"]
    assert done.stdout.splitlines() == expected, done.stderr
