"""A Django project in one file: record a page, see its loops, and print the migration that helps."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import django
from django.conf import settings
from django.core.management import call_command

MODELS = """
from django.db import models


class Event(models.Model):
    name = models.CharField(max_length=40)


class Ticket(models.Model):
    event = models.ForeignKey(Event, on_delete=models.CASCADE)
    status = models.CharField(max_length=10)
    sold_at = models.IntegerField()
"""


def configure(folder: Path) -> None:
    (folder / "shop" / "migrations").mkdir(parents=True)
    (folder / "shop" / "__init__.py").touch()
    (folder / "shop" / "migrations" / "__init__.py").touch()
    (folder / "shop" / "models.py").write_text(MODELS)
    sys.path.insert(0, str(folder))
    settings.configure(
        INSTALLED_APPS=["shop"],
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "site.db"}},
    )
    django.setup()
    call_command("makemigrations", "shop", verbosity=0)
    call_command("migrate", verbosity=0)


def main(folder: Path) -> None:
    configure(folder)
    from django.db import connection
    from shop.models import Event, Ticket

    from eventperf.contrib.django import DjangoRecorder, migration_options
    from eventperf.dbopt import DatabaseOptimizer

    Event.objects.bulk_create(Event(name=f"Event {n}") for n in range(300))
    Ticket.objects.bulk_create(
        Ticket(event_id=n % 300 + 1, status="paid" if n % 3 else "open", sold_at=n) for n in range(30_000)
    )
    with DjangoRecorder() as recorder:
        [ticket.event.name for ticket in Ticket.objects.all()[:30]]
        for n in range(60):
            list(Ticket.objects.filter(event=n, status="paid").order_by("-sold_at")[:10])
    for loop in recorder.n_plus_one():
        print(f"{Path(loop.caller).name}: {loop.most} statements; {loop.fix}")
    connection.close()
    with DatabaseOptimizer(f"sqlite:///{folder / 'site.db'}") as optimizer:
        advice = optimizer.advise(recorder.workload())
    print(advice)
    text = advice.to_migration("django", **migration_options("shop"))
    (folder / "shop" / "migrations" / "0002_indexes.py").write_text(text)
    print(text)
    call_command("migrate", verbosity=1)
    connection.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
