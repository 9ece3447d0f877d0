"""``manage.py eventperf_advise``: indexes and better statements for one of the project's own databases."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.db import connections

from eventperf._core.errors import EventPerfError
from eventperf.contrib._advice import advise, workload_of, write
from eventperf.contrib.django.advice import migration_options
from eventperf.contrib.django.engine import database_engine

if TYPE_CHECKING:  # Django ships no types
    from argparse import ArgumentParser as CommandParser

    BaseCommand = object
else:
    from django.core.management.base import BaseCommand


class Command(BaseCommand):
    """Advise; the database is only read."""

    help = "Advise indexes and better statements for a database of DATABASES; changes nothing."
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--database", default="default", help="Its alias in DATABASES.")
        parser.add_argument(
            "--workload",
            metavar="FILE",
            help="What DjangoRecorder().workload().save() wrote, SQL, or a slow log.",
        )
        parser.add_argument("--since", default="24h", help="How far back, where the record has times.")
        parser.add_argument(
            "--what-if", metavar="ALIAS", help="Alias or URL of a database for hypothetical objects."
        )
        parser.add_argument("--budget", default="30s", help="Time for the search.")
        parser.add_argument(
            "--unproved", action="store_true", help="Show indexes that no planner has proved."
        )
        parser.add_argument(
            "--include", action="append", default=[], metavar="TABLE", help="Only this table."
        )
        parser.add_argument("--exclude", action="append", default=[], metavar="TABLE", help="Not this table.")
        parser.add_argument("--migration", metavar="APP", help="Print the migration of one app instead.")
        parser.add_argument(
            "--packages",
            action="store_true",
            help="With --migration: also indexes of other apps' tables (installed packages), in SQL.",
        )
        parser.add_argument("--html", metavar="FILE", help="Write one page.")
        parser.add_argument("--plan", metavar="FILE", help="Write a plan file for `eventperf db apply`.")
        parser.add_argument("--json", action="store_true")

    def handle(self, *args: Any, **options: Any) -> str:
        """Return the advice, which Django prints."""
        try:
            text = self._advise(options)
        except (EventPerfError, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from error
        return text

    def _advise(self, options: dict[str, Any]) -> str:
        from eventperf.dbopt import DatabaseOptimizer, Limits

        engine = database_engine(options["database"])
        what_if: Any = options["what_if"]
        other = database_engine(what_if) if what_if in connections.settings else None
        limits = Limits(include=options["include"], exclude=options["exclude"])
        try:
            with DatabaseOptimizer(engine, what_if=other or what_if, limits=limits) as optimizer:
                workload = workload_of(optimizer, options["workload"], options["since"])
                advice = advise(optimizer, workload, budget=options["budget"], unproved=options["unproved"])
        finally:
            for opened in (engine, other):
                if opened is not None:
                    opened.dispose()
        if options["html"]:
            write(options["html"], advice.to_html())
        if options["plan"]:
            advice.save(options["plan"])
        if options["migration"]:
            known = migration_options(options["migration"], options["database"], packages=options["packages"])
            tables = {i.spec.table.rpartition(".")[2] for i in advice.indexes}
            if not tables & {*known["models"], *known["others"]}:
                rest = f", only for other apps: {', '.join(sorted(tables))} (--packages)" if tables else ""
                said = f"nothing to advise for {options['migration']}{rest}; no migration is written"
                print(said, file=sys.stderr)
                return ""
            return advice.to_migration("django", **known)
        return json.dumps(advice.to_dict(), indent=2, default=str) if options["json"] else str(advice)
