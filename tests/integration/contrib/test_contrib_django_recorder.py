"""The Django recorder in a Django of its own process, with real models on SQLite."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("django")
pytest.importorskip("sqlglot")

MODELS = """
from django.db import models

class Event(models.Model):
    name = models.CharField(max_length=50)

class Ticket(models.Model):
    event = models.ForeignKey(Event, on_delete=models.CASCADE)

class Badge(models.Model):
    ticket = models.OneToOneField(Ticket, on_delete=models.CASCADE)
    owners = models.ManyToManyField(Event, related_name="badges")
"""
PROGRAM = """
import threading
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["shop"], USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "site.db"}},
)
django.setup()
from django.db import connection
from shop.models import Badge, Event, Ticket

with connection.schema_editor() as editor:
    editor.create_model(Event)
    editor.create_model(Ticket)
    editor.create_model(Badge)
for n in range(8):
    ticket = Ticket.objects.create(event=Event.objects.create(name=f"100% {n}"))
    Badge.objects.create(ticket=ticket)

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
nearest = loop.caller.partition(" < ")[0].rpartition("/")[2]
print("loop", loop.queries, loop.runs, nearest, "shop_event" in loop.statement)
print("calls", sorted(s.calls for s in rec.workload()), any(s.error for s in rec.workload()))
print("values", {len(s.measurable) == s.calls for s in rec.workload()})
print("fix", loop.fix)
loops = [
    lambda: [ticket.badge.pk for ticket in Ticket.objects.all()],
    lambda: [list(event.ticket_set.all()) for event in Event.objects.all()],
    lambda: [list(event.badges.all()) for event in Event.objects.all()],
    lambda: [list(badge.owners.filter(name="x")) for badge in Badge.objects.all()],
    lambda: [event.ticket_set.count() for event in Event.objects.all()],
    lambda: [event.name for event in Event.objects.only("id")],
    lambda: [Event.objects.get(pk=n + 1) for n in range(8)],
]
for loop in loops:
    with DjangoRecorder() as one:
        loop()
    print("fix", one.n_plus_one()[0].fix)
rec.stop()
rec.clear()
print("left", len(list(rec.workload())))
"""


LOOP = next(n for n, line in enumerate(PROGRAM.splitlines(), 1) if "ticket.event.name" in line)


def test_loops_and_threads_are_seen_with_the_callers_line(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "models.py").write_text(MODELS)
    command = [sys.executable, str(tmp_path / "program.py")]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ}, capture_output=True, text=True, timeout=60, check=False
    )
    expected = [
        f"loop 8 1 program.py:{LOOP} True",
        "calls [1, 1, 8] False",
        "values {True}",
        "fix Ticket.objects.select_related('event')",
        "fix Ticket.objects.select_related('badge')",
        "fix Event.objects.prefetch_related('ticket_set')",
        "fix Event.objects.prefetch_related('badges')",
        "fix Badge.objects.prefetch_related('owners')",
        "fix Event.objects.annotate(n=Count('ticket_set'))",
        "fix Event: no defer()/only() that leaves out name",
        "fix fetch all rows at once: .filter(pk__in=...), in_bulk(), select_related or prefetch_related",
        "left 0",
    ]
    assert done.stdout.splitlines() == expected, done.stderr
