"""A Django site in one file: our cache backend, a job after the commit, and the optimizer's advice.

Run it as a script: it makes its tables, serves a few requests to itself, and shows what happened.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import django
from django.conf import settings

FOLDER = tempfile.TemporaryDirectory()
settings.configure(
    SECRET_KEY="only an example",
    ALLOWED_HOSTS=["testserver"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    INSTALLED_APPS=["eventperf.contrib.django"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(FOLDER.name, "site.db")}},
    CACHES={
        "default": {
            "BACKEND": "eventperf.contrib.django.cache.EventPerfCache",
            "LOCATION": "",  # redis://host:6379/0 in production
            "KEY_PREFIX": "site",
        }
    },
    EVENTPERF_QUEUES=f"{__name__}:queues",
)
django.setup()

from django.core.cache import cache as django_cache  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, models, transaction  # noqa: E402
from django.http import HttpRequest, JsonResponse  # noqa: E402
from django.test import Client  # noqa: E402
from django.urls import path  # noqa: E402

from eventperf.contrib.django import DjangoRecorder, enqueue_on_commit  # noqa: E402
from eventperf.dbopt import DatabaseOptimizer  # noqa: E402
from eventperf.queues import JobContext, QueueManager  # noqa: E402

queues = QueueManager("memory://")  # redis://... in production, with manage.py eventperf_worker


class Event(models.Model):
    name = models.CharField(max_length=100)

    class Meta:
        app_label = "site"


class Registration(models.Model):
    event = models.ForeignKey(Event, on_delete=models.CASCADE, db_index=False)
    email = models.EmailField()
    at = models.IntegerField()

    class Meta:
        app_label = "site"


@queues.job("notification_sending")
def welcome(ctx: JobContext, data: int) -> str:
    return f"welcome, {Registration.objects.get(pk=data).email}"


def latest(request: HttpRequest, event_id: int) -> JsonResponse:
    def load() -> list[str]:
        found = Registration.objects.filter(event_id=event_id).order_by("-at")[:3]
        return [registration.email for registration in found]

    return JsonResponse({"latest": django_cache.get_or_set(f"latest:{event_id}", load, timeout=60)})


def register(request: HttpRequest, event_id: int) -> JsonResponse:
    with transaction.atomic():
        made = Registration.objects.create(event_id=event_id, email=request.POST["email"], at=10**6)
        enqueue_on_commit(queues, "notification_sending", made.pk)
        transaction.on_commit(lambda: django_cache.delete(f"latest:{event_id}"))
    return JsonResponse({"id": made.pk})


def page(request: HttpRequest) -> JsonResponse:
    """List registrations the way that sends one statement per row."""
    return JsonResponse({"events": [r.event.name for r in Registration.objects.order_by("id")[:20]]})


urlpatterns = [
    path("events/<int:event_id>/latest", latest),
    path("events/<int:event_id>/register", register),
    path("page", page),
]


def build() -> None:
    with connection.schema_editor() as editor:
        editor.create_model(Event)
        editor.create_model(Registration)
    Event.objects.bulk_create([Event(name=f"Event {n}") for n in range(100)])
    people = [Registration(event_id=n % 100 + 1, email=f"p{n}@example.com", at=n) for n in range(20_000)]
    Registration.objects.bulk_create(people)


def main() -> None:
    build()
    client = Client()
    with DjangoRecorder() as recorder:
        for n in range(200):
            client.get(f"/events/{n % 50 + 1}/latest")
        client.get("/page")
    print(f"200 requests sent {max(s.calls for s in recorder.workload())} queries of one kind")

    (loop,) = recorder.n_plus_one()
    print(f"N+1: {loop.most} statements from {Path(loop.caller).name}")

    with DatabaseOptimizer(f"sqlite:///{settings.DATABASES['default']['NAME']}") as optimizer:
        advice = optimizer.advise(recorder.workload())
    print("advice:", *(index.spec.label() for index in advice.indexes))

    made: dict[str, Any] = client.post("/events/1/register", {"email": "ada@example.com"}).json()
    print("after the commit:", client.get("/events/1/latest").json()["latest"][0])
    job = queues.enqueue("notification_sending", made["id"])
    call_command("eventperf_worker", burst=True)
    print(job.result())


if __name__ == "__main__":
    with FOLDER:
        main()
        connection.close()
