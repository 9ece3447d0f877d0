"""pretix (event ticketing on Django) with eventperf inside; run by ``tests/hosts/run.py``."""

from __future__ import annotations

import datetime as dt
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import scenario

SLUGS = [f"conf{n}" for n in range(4)]
PEOPLE = 1_200


def settle() -> None:
    """Point pretix at this run's servers, and load it."""
    at = urlsplit(os.environ["HOST_DATABASE"])
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "pretix.settings",
        "PRETIX_DATABASE_BACKEND": "postgresql",
        "PRETIX_DATABASE_NAME": at.path[1:],
        "PRETIX_DATABASE_USER": at.username or "",
        "PRETIX_DATABASE_HOST": at.hostname or "",
        "PRETIX_DATABASE_PORT": str(at.port),
        "PRETIX_REDIS_LOCATION": os.environ["HOST_REDIS"],
        "PRETIX_PRETIX_DATADIR": os.environ["HOST_FOLDER"],
        "PRETIX_PRETIX_URL": "http://testserver",
    }
    import django
    from django.conf import settings

    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "eventperf.contrib.django"]
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    settings.COMPRESS_ENABLED = False
    settings.LOGGING_CONFIG = None
    django.setup()


def fill() -> None:
    """Make four events with thousands of rows through pretix's own models."""
    from django.core.management import call_command
    from django_scopes import scope, scopes_disabled
    from pretix.base.models import Event, Organizer, Team, User

    call_command("migrate", verbosity=0)
    draw = random.Random(7)
    with scopes_disabled():
        organizer = Organizer.objects.create(name="Org", slug="org")
        admin = User.objects.create_user("admin@example.org", "admin")
        team = Team.objects.create(
            organizer=organizer, name="All", all_events=True,
            all_event_permissions=True, all_organizer_permissions=True,
        )  # fmt: skip
        team.members.add(admin)
        team.tokens.create(name="API", token="t" * 64)
    for number, slug in enumerate(SLUGS):
        with scope(organizer=organizer):
            begin = dt.datetime(2027, 3, 1 + number, 9, tzinfo=dt.timezone.utc)
            event = Event.objects.create(
                organizer=organizer, name=f"Conference {number}", slug=slug, live=True, currency="EUR",
                date_from=begin, plugins="pretix.plugins.banktransfer,pretix.plugins.checkinlists",
            )  # fmt: skip
            _sell(event, number, draw, admin)


def _sell(event: Any, number: int, draw: random.Random, admin: Any) -> None:
    """Fill one event: products, orders with positions and payments, check-ins, vouchers, a log."""
    from django.utils.timezone import now
    from pretix.base.models import (
        Checkin as Entrance,  # codespell:ignore
    )
    from pretix.base.models import (
        InvoiceAddress,
        LogEntry,
        Order,
        OrderPayment,
        OrderPosition,
        Voucher,
    )
    from pretix.base.models.orders import Transaction

    rule = event.tax_rules.create(name="VAT", rate=Decimal("19.00"))
    items = []
    for c in range(3):
        category = event.categories.create(name=f"Category {c}", position=c)
        items += [
            event.items.create(
                category=category,
                name=f"Ticket {c}-{n}",
                default_price=Decimal(23 + n),
                tax_rule=rule,
                position=n,
            )
            for n in range(5)
        ]
    for item in items:
        quota = event.quotas.create(name=item.name, size=5_000)
        quota.items.add(item)
        if item.position % 2 == 0:
            quota.variations.set([item.variations.create(value=f"Size {n}", position=n) for n in range(3)])
    question = event.questions.create(question="T-shirt?", type="S", identifier="SHIRT")
    question.items.set(items)
    variations = {item.pk: list(item.variations.all()) for item in items}
    channel = event.organizer.sales_channels.get(identifier="web")
    orders = Order.objects.bulk_create(
        Order(
            event=event, organizer=event.organizer, code=f"{'ACDE'[number]}{n:04}",
            status=draw.choice("pppnec"), email=f"p{draw.randrange(PEOPLE)}@example.org",
            datetime=now() - dt.timedelta(minutes=7 * n), expires=now() + dt.timedelta(days=9),
            total=Decimal(46), sales_channel=channel, locale="en", secret=f"s{number}{n:09}",
        )
        for n in range(1_500)
    )  # fmt: skip
    positions = []
    for order in orders:
        for n in range(draw.choice([1, 1, 2, 3])):
            item = draw.choice(items)
            choice = variations[item.pk]
            positions.append(
                OrderPosition(
                    order=order, organizer=event.organizer, positionid=n + 1, item=item,
                    variation=draw.choice(choice) if choice else None, price=item.default_price,
                    attendee_name_parts={"_scheme": "full", "full_name": f"Person {draw.randrange(PEOPLE)}"},
                    attendee_name_cached=f"Person {draw.randrange(PEOPLE)}",
                    attendee_email=f"p{draw.randrange(PEOPLE)}@example.org", tax_rate=Decimal(19),
                    tax_rule=rule, tax_value=Decimal(4), secret=f"secret{number}-{order.code}-{n}",
                    pseudonymization_id=f"{number}{order.code}{n}",
                )
            )  # fmt: skip
    OrderPosition.objects.bulk_create(positions)
    OrderPayment.objects.bulk_create(
        OrderPayment(
            order=o, local_id=1, amount=o.total, provider="banktransfer",
            state="confirmed" if o.status == "p" else "created", info="{}",
        )
        for o in orders
    )  # fmt: skip
    InvoiceAddress.objects.bulk_create(
        InvoiceAddress(order=o, company=f"Company {n % 90}", city="Berlin", name_cached="A Name")
        for n, o in enumerate(orders)
    )
    Transaction.objects.bulk_create(
        Transaction(
            order=p.order, positionid=p.positionid, item=p.item, variation=p.variation, count=1,
            price=p.price, tax_rate=p.tax_rate, tax_rule=rule, tax_value=p.tax_value,
            datetime=p.order.datetime,
        )
        for p in positions
    )  # fmt: skip
    entry = event.checkin_lists.create(name="Entry", all_products=True)
    Entrance.objects.bulk_create(
        Entrance(position=p, list=entry, datetime=now(), successful=True)
        for p in positions
        if p.order.status == "p" and draw.random() < 0.5
    )
    Voucher.objects.bulk_create(
        Voucher(
            event=event, code=f"V{number}{n:05}", item=draw.choice(items), tag=f"tag{n % 7}", max_usages=1
        )
        for n in range(800)
    )
    LogEntry.objects.bulk_create(
        LogEntry(
            content_object=draw.choice(orders), event=event, organizer=event.organizer, user=admin,
            action_type="pretix.event.order.paid", data="{}", datetime=now(),
        )
        for n in range(3_000)
    )  # fmt: skip


class Pretix:
    """What the scenario asks of the host."""

    name = "pretix"
    queue_url = os.environ["HOST_REDIS"]
    _engine: Any = None

    def pages(self) -> dict[str, Callable[[], str]]:
        from django.test import Client

        guest, organizer, program = Client(), Client(), Client(headers={"authorization": "Token " + "t" * 64})
        organizer.post("/control/login", {"email": "admin@example.org", "password": "admin"})
        shop, control = f"/org/{SLUGS[1]}", f"/control/event/org/{SLUGS[1]}"
        api = f"/api/v1/organizers/org/events/{SLUGS[1]}"
        asked = {
            guest: ("/org/", f"{shop}/", f"{shop}/widget/product_list", f"{shop}/order/C0007/s1000000007/"),
            organizer: (
                "/control/events/", f"{control}/", f"{control}/orders/", f"{control}/orders/?query=Person+77",
                f"{control}/orders/C0007/", f"{control}/orders/overview/", f"{control}/items/",
                f"{control}/quotas/", f"{control}/vouchers/", f"{control}/checkinlists/", f"{control}/logs/",
                "/control/search/orders/?query=p77@example.org",
            ),
            program: (
                f"{api}/orders/", f"{api}/orders/?email=p77@example.org", f"{api}/orderpositions/",
                f"{api}/items/", f"{api}/quotas/?with_availability=true", f"{api}/vouchers/?code=V100077",
            ),
        }  # fmt: skip
        return {
            path: lambda client=client, path=path: self._get(client, path)
            for client, paths in asked.items()
            for path in paths
        }

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
        with override_settings(CACHES=dict.fromkeys(settings.CACHES, mine)):
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
        from pretix.base.models import User

        from eventperf.queues.outbox import create_table

        if "eventperf_outbox" not in connection.introspection.table_names():
            create_table(self.engine())
        with transaction.atomic():
            User.objects.create_user(f"side{data}@example.org", "side")
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
    scenario.run(Pretix())
