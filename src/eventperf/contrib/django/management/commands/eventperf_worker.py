"""``manage.py eventperf_worker``: run jobs inside Django."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django
from django.conf import settings
from django.core.management.base import CommandError

from eventperf._core.errors import ConfigurationError
from eventperf.contrib._jobs import load, wrap_handlers
from eventperf.contrib.django.connections import fresh_connections, fresh_connections_async, in_process

if TYPE_CHECKING:  # Django ships no types
    from argparse import ArgumentParser as CommandParser

    from eventperf.queues import QueueManager

    BaseCommand = object
else:
    from django.core.management.base import BaseCommand


class Command(BaseCommand):
    """Run jobs until SIGTERM, which lets running ones finish."""

    help = "Run the jobs of the QueueManager that EVENTPERF_QUEUES (or the argument) names."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("queues", nargs="?", help="Dotted path, for example myapp.jobs:queues.")
        parser.add_argument("--queue", action="append", help="Serve this queue only; may be repeated.")
        parser.add_argument("--concurrency", type=int, help="Slots in all.")
        parser.add_argument("--burst", action="store_true", help="Stop when nothing is left to do now.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the worker."""
        path = options["queues"] or getattr(settings, "EVENTPERF_QUEUES", None)
        if not path:
            raise CommandError(
                "Name the queues: set EVENTPERF_QUEUES = 'myapp.jobs:queues' or give the path."
            )
        try:
            queues: QueueManager = load(path, argument="queues")
            if django.VERSION >= (6,):
                from eventperf.contrib.django.tasks import register

                register()
            wrap_handlers(queues, fresh_connections, fresh_connections_async, setup=in_process)
            queues.worker(options["queue"], options["concurrency"]).run(burst=options["burst"])
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
