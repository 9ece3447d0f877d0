"""Flask: an extension with ``init_app``, and ``flask eventperf worker``, ``status`` and ``advise``."""

from __future__ import annotations

import functools
import json
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eventperf._core.errors import ConfigurationError, EventPerfError
from eventperf._core.extras import require

from ._jobs import wrap_handlers

require("flask", extra="flask", needed_by="eventperf.contrib.flask")
import click  # noqa: E402
from flask import Flask, current_app, has_app_context  # noqa: E402
from flask.cli import AppGroup, ScriptInfo, with_appcontext  # noqa: E402

if TYPE_CHECKING:
    from eventperf.cache import CacheManager
    from eventperf.queues import QueueManager

__all__ = ["EventPerf"]


@dataclass(slots=True)
class _State:
    cache: CacheManager | None
    queues: QueueManager | None


class EventPerf:
    """The managers of a Flask application.

    Hand over managers you built, or let ``init_app`` build them from the application's configuration:
    ``EVENTPERF_CACHE_URL`` (``""`` for process memory) with ``EVENTPERF_CACHE_OPTIONS``, and
    ``EVENTPERF_QUEUES_URL`` with ``EVENTPERF_QUEUES_OPTIONS``; the options are keyword arguments of
    :class:`~eventperf.cache.CacheManager` and :class:`~eventperf.queues.QueueManager`.

    Args:
        app: Calls :meth:`init_app` at once.
        cache: Wins over the configuration.
        queues: Wins over the configuration.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        cache: CacheManager | None = None,
        queues: QueueManager | None = None,
    ) -> None:
        self._cache = cache
        self._queues = queues
        self._only: _State | None = None
        self._apps = 0
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Attach to ``app``; opens no connection."""
        state = _State(self._cache or _cache_from(app), self._queues or _queues_from(app))
        app.extensions["eventperf"] = state
        self._apps += 1
        self._only = state if self._apps == 1 else None
        app.cli.add_command(_commands())

    @property
    def cache(self) -> CacheManager:
        """The cache of the current application.

        Raises:
            ConfigurationError: No cache was given or configured, or no application context is active.
        """
        cache = self._cache or self._state().cache
        if cache is None:
            raise ConfigurationError(
                "cache", None, "EventPerf(cache=...) or app.config['EVENTPERF_CACHE_URL']"
            )
        return cache

    @property
    def queues(self) -> QueueManager:
        """The queues of the current application.

        Raises:
            ConfigurationError: No queues were given or configured, or no application context is active.
        """
        queues = self._queues or self._state().queues
        if queues is None:
            raise ConfigurationError(
                "queues", None, "EventPerf(queues=...) or app.config['EVENTPERF_QUEUES_URL']"
            )
        return queues

    def ready(self) -> tuple[dict[str, Any], int]:
        """View for a readiness check: 200 once every data set of the cache is warm, 503 before.

        ``app.add_url_rule("/ready", view_func=eventperf.ready)``; the body names the data sets.
        """
        state = self.cache.readiness()
        return state, 200 if state["ready"] else 503

    def _state(self) -> _State:
        if has_app_context():
            state = current_app.extensions.get("eventperf")
            if isinstance(state, _State):
                return state
        elif self._only is not None:
            return self._only
        raise ConfigurationError("app", None, "an application context of an app that init_app was called for")


def _cache_from(app: Flask) -> CacheManager | None:
    url = app.config.get("EVENTPERF_CACHE_URL")
    if url is None:
        return None
    from eventperf.cache import CacheManager

    return CacheManager(*((url,) if url else ()), **app.config.get("EVENTPERF_CACHE_OPTIONS", {}))


def _queues_from(app: Flask) -> QueueManager | None:
    url = app.config.get("EVENTPERF_QUEUES_URL")
    if url is None:
        return None
    from eventperf.queues import QueueManager

    return QueueManager(url, **app.config.get("EVENTPERF_QUEUES_OPTIONS", {}))


def _commands() -> AppGroup:
    group = AppGroup("eventperf", help="Workers, queues and database advice of eventperf.")

    @group.command("worker")
    @click.option("--queue", "names", multiple=True, help="Serve this queue only; may be repeated.")
    @click.option("--concurrency", type=click.IntRange(min=1), help="Slots in all.")
    @click.option("--burst", is_flag=True, help="Stop when nothing is left to do now.")
    def worker(names: tuple[str, ...], concurrency: int | None, burst: bool) -> None:
        """Run jobs, each inside an application context of its own, until SIGTERM."""
        queues = _configured(current_app)
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        wrap_handlers(queues, app.app_context, setup=_setup(click.get_current_context()))
        _check_processes(queues)
        try:
            queues.worker(list(names) or None, concurrency).run(burst=burst)
        except ConfigurationError as error:
            raise click.ClickException(str(error)) from error

    @group.command("status")
    def status() -> None:
        """Print the exact counts of every queue."""
        click.echo(
            f"{'queue':<12}{'waiting':>9}{'delayed':>9}{'active':>8}{'completed':>11}{'failed':>8}{'dead':>6}"
        )
        for s in _configured(current_app).status():
            click.echo(
                f"{s.name:<12}{s.waiting:>9}{s.delayed:>9}{s.active:>8}{s.completed:>11}{s.failed:>8}{s.dead:>6}"
            )

    group.add_command(_advise)
    return group


@click.command("advise")
@click.option("--bind", help="Key of SQLALCHEMY_BINDS; the default database when not given.")
@click.option(
    "--workload", metavar="FILE", help="What QueryRecorder(db).workload().save() wrote, SQL, or a slow log."
)
@click.option("--since", default="24h")
@click.option("--what-if", metavar="URL", help="Database where hypothetical objects may be made.")
@click.option("--budget", default="30s", help="Time for the search.")
@click.option("--unproved", is_flag=True, help="Show indexes that no planner has proved.")
@click.option("--include", multiple=True, metavar="TABLE", help="Only this table; may be repeated.")
@click.option("--exclude", multiple=True, metavar="TABLE", help="Not this table; may be repeated.")
@click.option(
    "--migration", is_flag=True, help="Print an Alembic migration after the project's last one instead."
)
@click.option("--html", metavar="FILE", help="Write one page.")
@click.option("--plan", metavar="FILE", help="Write a plan file for `eventperf db apply`.")
@click.option("--json", "as_json", is_flag=True)
@with_appcontext
def _advise(
    bind: str | None, workload: str | None, since: str, what_if: str | None, budget: str, **options: Any
) -> None:
    """Indexes and better statements for the application's own database; changes nothing."""
    from eventperf.dbopt import DatabaseOptimizer, Limits

    from ._advice import advise, workload_of, write

    try:
        limits = Limits(include=options["include"], exclude=options["exclude"])
        with DatabaseOptimizer(_database(current_app, bind), what_if=what_if, limits=limits) as optimizer:
            statements = workload_of(optimizer, workload, since)
            advice = advise(optimizer, statements, budget=budget, unproved=options["unproved"])
        if options["html"]:
            write(options["html"], advice.to_html())
        if options["plan"]:
            advice.save(options["plan"])
        if options["migration"]:
            click.echo(advice.to_migration("alembic", down_revision=_last_migration(current_app)))
        else:
            click.echo(
                json.dumps(advice.to_dict(), indent=2, default=str) if options["as_json"] else str(advice)
            )
    except EventPerfError as error:
        raise click.ClickException(str(error)) from error


def _database(app: Any, bind: str | None) -> Any:
    """Return Flask-SQLAlchemy's engine, or the URL that the configuration names."""
    known = app.extensions.get("sqlalchemy")
    db = known if hasattr(known, "engines") else getattr(known, "db", None)  # Flask-SQLAlchemy 3, or 2
    if db is not None:
        engines = getattr(db, "engines", None) or {None: db.engine}
        if bind not in engines:
            raise ConfigurationError("--bind", bind, [k for k in engines if k])
        return engines[bind]
    url = app.config.get("EVENTPERF_DATABASE_URL") or app.config.get("SQLALCHEMY_DATABASE_URI")
    if not url:
        raise ConfigurationError(
            "database", None, "Flask-SQLAlchemy, or app.config['EVENTPERF_DATABASE_URL']"
        )
    return url


def _last_migration(app: Any) -> str | None:
    """Return the head of Flask-Migrate's migrations, which a new one comes after."""
    migrate = app.extensions.get("migrate")
    if migrate is None:
        return None
    from alembic.script import ScriptDirectory

    head: str | None = ScriptDirectory.from_config(migrate.migrate.get_config()).get_current_head()
    return head


def _setup(context: click.Context) -> functools.partial[Callable[[], AbstractContextManager[Any]]]:
    """Return how a new process builds the application that this command was given."""
    info = context.find_object(ScriptInfo)
    path, make = (info.app_import_path, info.create_app) if info is not None else (None, None)
    return functools.partial(_in_process, path, make)


def _in_process(
    path: str | None, make: Callable[..., Flask] | None
) -> Callable[[], AbstractContextManager[Any]]:
    return ScriptInfo(app_import_path=path, create_app=make).load_app().app_context


def _check_processes(queues: QueueManager) -> None:
    """Refuse ``cpu=True`` handlers whose processes could not build the application."""
    heavy = sorted(name for name, kind in queues.types.items() if kind.mode == "process" and kind.handler)
    if not heavy:
        return
    try:
        pickle.dumps(queues.process_setup)
    except Exception as error:
        raise click.ClickException(
            f"{heavy[0]} has cpu=True, and its process cannot build this application ({error}): "
            "name it with --app or FLASK_APP, or make create_app a function of a module"
        ) from error


def _configured(app: Any) -> QueueManager:
    state = app.extensions.get("eventperf")
    if not isinstance(state, _State) or state.queues is None:
        raise click.ClickException("no queues: use EventPerf(queues=...) or set EVENTPERF_QUEUES_URL")
    return state.queues
