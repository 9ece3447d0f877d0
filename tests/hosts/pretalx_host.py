"""pretalx (a conference platform on Django) with eventperf inside; run by ``tests/hosts/run.py``."""

from __future__ import annotations

import datetime as dt
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import scenario

SLUGS = [f"conf{n}" for n in range(6)]
STATES = ["submitted", "confirmed", "confirmed", "rejected"]


def settle() -> None:
    """Point pretalx at this run's servers, and load it."""
    at = urlsplit(os.environ["HOST_DATABASE"])
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "pretalx.settings",
        "PRETALX_DB_TYPE": "postgresql",
        "PRETALX_DB_NAME": at.path[1:],
        "PRETALX_DB_USER": at.username or "",
        "PRETALX_DB_HOST": at.hostname or "",
        "PRETALX_DB_PORT": str(at.port),
        "PRETALX_DATA_DIR": os.environ["HOST_FOLDER"],
        "PRETALX_REDIS": os.environ["HOST_REDIS"],
        "PRETALX_SITE_URL": "http://testserver",
    }
    import django
    from django.conf import settings

    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "eventperf.contrib.django"]
    settings.ALLOWED_HOSTS = ["*"]
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    settings.LOGGING_CONFIG = None
    django.setup()


def fill() -> None:
    """Make six conferences with thousands of rows through pretalx's own models."""
    from django.core.management import call_command
    from django.utils.timezone import now
    from django_scopes import scope, scopes_disabled
    from pretalx.common.models import ActivityLog
    from pretalx.event.models import Event, Organiser, Team
    from pretalx.person.models import SpeakerProfile, User
    from pretalx.schedule.models import Room
    from pretalx.submission.models import Feedback, Review, Submission, Track

    call_command("migrate", verbosity=0)
    draw = random.Random(7)
    with scopes_disabled():
        admin = User.objects.create_user(email="admin@example.org", name="Admin", password="admin")
        User.objects.filter(pk=admin.pk).update(is_administrator=True)
        people = User.objects.bulk_create(
            User(email=f"p{n}@example.org", name=f"Person {n}", code=f"P{n:05}") for n in range(1_500)
        )
        organiser = Organiser.objects.create(name="Org", slug="org")
        Team.objects.create(
            organiser=organiser, name="All", all_events=True, can_change_submissions=True, is_reviewer=True
        ).members.add(admin)
    for number, slug in enumerate(SLUGS):
        begin = now().date() - dt.timedelta(days=30 * number)
        with scopes_disabled():
            event = Event.objects.create(
                name=slug.title(), slug=slug, organiser=organiser, is_public=True, date_from=begin,
                date_to=begin + dt.timedelta(days=2), timezone="Europe/Berlin", email="o@example.org",
                locale_array="en", locale="en",
            )  # fmt: skip
        with scope(event=event):
            rooms = [Room.objects.create(event=event, name=f"Room {n}", position=n) for n in range(6)]
            tracks = [Track.objects.create(event=event, name=f"Track {n}", color="#00aa00") for n in range(5)]
            kind = event.cfp.default_type
            speakers = draw.sample(people, 250)
            SpeakerProfile.objects.bulk_create(
                SpeakerProfile(user=u, event=event, biography="A biography. " * 20) for u in speakers
            )
            talks = Submission.objects.bulk_create(
                Submission(
                    event=event, title=f"Talk {n} of {slug}", code=f"T{number}{n:04}", submission_type=kind,
                    track=draw.choice(tracks), state=draw.choice(STATES),
                    abstract="An abstract. " * 20, description="Words. " * 100, content_locale="en",
                )
                for n in range(500)
            )  # fmt: skip
            through = Submission.speakers.through
            through.objects.bulk_create(
                through(submission=t, user=u)
                for t in talks
                for u in draw.sample(speakers, draw.choice([1, 1, 2]))
            )
            Review.objects.bulk_create(
                Review(submission=t, user=u, score=draw.choice([0, 1, 2]), text="Fine.")
                for t in talks
                for u in draw.sample(people[:40], 3)
            )
            Feedback.objects.bulk_create(
                Feedback(talk=t, rating=draw.randrange(5), review="Nice.")
                for t in talks[:200]
                for _ in range(3)
            )
            ActivityLog.objects.bulk_create(
                ActivityLog(
                    event=event, person=draw.choice(people), content_object=draw.choice(talks),
                    action_type="pretalx.submission.update", data={"n": n},
                )
                for n in range(3_000)
            )  # fmt: skip
            at = event.datetime_from
            for n, talk in enumerate(t for t in talks if t.state == "confirmed"):
                start = at + dt.timedelta(minutes=30 * (n // 6))
                talk.slots.update_or_create(
                    schedule=event.wip_schedule,
                    defaults={
                        "start": start,
                        "end": start + dt.timedelta(minutes=30),
                        "room": rooms[n % 6],
                        "is_visible": True,
                    },
                )
            event.release_schedule("v1", user=None, notify_speakers=False)
            Event.objects.filter(pk=event.pk).update(is_public=True)


class Pretalx:
    """What the scenario asks of the host."""

    name = "pretalx"
    queue_url = os.environ["HOST_REDIS"]
    _engine: Any = None

    def pages(self) -> dict[str, Callable[[], str]]:
        from django.test import Client
        from django_scopes import scopes_disabled
        from pretalx.person.models import User

        with scopes_disabled():
            admin = User.objects.get(email="admin@example.org")
        guest, organiser = Client(), Client()
        organiser.force_login(admin)
        slug = SLUGS[1]
        out: dict[str, Callable[[], str]] = {}
        for path in (
            f"/{slug}/", f"/{slug}/schedule/", f"/{slug}/talk/", f"/{slug}/speaker/", f"/{slug}/schedule.xml",
            f"/{slug}/schedule.ics", f"/{slug}/talk/T10001/",
            f"/{slug}/schedule/changelog/", f"/{slug}/schedule/widgets/schedule.json",
        ):  # fmt: skip
            out[path] = lambda p=path: self._get(guest, p)
        for path in (
            "/orga/event/", f"/orga/event/{slug}/", f"/orga/event/{slug}/submissions/",
            f"/orga/event/{slug}/speakers/", f"/orga/event/{slug}/reviews/", f"/orga/event/{slug}/history/",
            f"/orga/event/{slug}/submissions/T10001/", f"/orga/event/{slug}/submissions/?q=Talk+4",
            f"/api/events/{slug}/submissions/", f"/api/events/{slug}/speakers/",
        ):  # fmt: skip
            out[path] = lambda p=path: self._get(organiser, p)
        return out

    @staticmethod
    def _get(client: Any, path: str) -> str:
        answer = client.get(path, follow=True)
        body = b"".join(answer.streaming_content) if answer.streaming else answer.content
        return f"{answer.status_code}\n{body.decode(errors='replace')}"

    @contextmanager
    def ours(self) -> Iterator[None]:
        from django.conf import settings
        from django.test import override_settings

        mine = {
            "BACKEND": "eventperf.contrib.django.cache.EventPerfCache",
            "LOCATION": os.environ["HOST_REDIS"],
        }
        with override_settings(CACHES={**settings.CACHES, "default": mine}):
            yield

    @contextmanager
    def recording(self) -> Iterator[Any]:
        from eventperf.contrib.django import DjangoRecorder

        with DjangoRecorder(frames=2) as recorder:
            yield recorder

    @contextmanager
    def counting(self) -> Iterator[Counter[str]]:
        from django.db import connection

        texts: Counter[str] = Counter()

        def count(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            texts[sql] += 1
            return execute(sql, params, many, context)

        with connection.execute_wrapper(count):
            yield texts

    def engine(self) -> Any:
        from eventperf.contrib.django import database_engine

        if self._engine is None:
            self._engine = database_engine()
        return self._engine

    def migrate(self, advice: Any) -> Callable[[], None]:
        from django.apps import apps
        from django.core.management import call_command

        from eventperf.contrib.django import migration_options

        wanted = {i.spec.table.rpartition(".")[2] for i in advice.indexes}
        made: list[tuple[str, str, Path]] = []
        for config in apps.get_app_configs():
            if wanted & {m._meta.db_table for m in config.get_models(include_auto_created=True)}:
                options = migration_options(config.label)
                folder = Path(sys.modules[config.name].__file__).parent / "migrations"
                name = f"{int(options['dependency'][:4]) + 1:04}_eventperf"
                (folder / f"{name}.py").write_text(advice.to_migration("django", **options))
                made.append((config.label, options["dependency"], folder / f"{name}.py"))
        for label, _, _ in made:
            call_command("migrate", label, verbosity=0)

        def back() -> None:
            for label, before, _ in made:
                call_command("migrate", label, before, verbosity=0)
            for _, _, file in made:
                file.unlink()

        return back

    def drift(self, advice: Any) -> str:
        from io import StringIO

        from django.core.management import call_command

        out = StringIO()
        call_command("showmigrations", "--plan", stdout=out)
        return f"{out.getvalue().count('[ ]')} migrations to run"

    def enqueue(self, queues: Any, data: int, *, commit: bool) -> Any:
        from django.db import connection, transaction
        from pretalx.person.models import User

        from eventperf.queues.outbox import create_table

        if "eventperf_outbox" not in connection.introspection.table_names():
            create_table(self.engine())
        with transaction.atomic():
            User.objects.create_user(email=f"side{data}@example.org", name="Side", password="side")
            job = queues.enqueue("side", data, using="default")
            transaction.set_rollback(not commit)
        return job

    def deliver(self, queues: Any) -> None:
        from eventperf.queues.outbox import Relay

        with Relay(queues, os.environ["HOST_DATABASE"]) as relay:
            relay.run(burst=True)


if __name__ == "__main__":
    settle()
    if not os.environ.get("HOST_FILLED"):
        fill()
    scenario.run(Pretalx())
