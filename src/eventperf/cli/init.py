"""``eventperf init``: looks at a project and prints the few lines that bring eventperf into it.

Nothing of the project is imported or run: files are read as text and parsed.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Final

from eventperf._core.errors import ConfigurationError
from eventperf.cli.project import BROKERS, CACHES, DRIVERS, FRAMEWORKS, Application, Project, installed, look

_NEW: Final = "eventperf_app.py"
_GAINS: Final = {
    "cache": "one load for all who ask at once, in every process; a Redis that is away costs milliseconds, "
    "not an error page",
    "queues": "jobs that survive kills of workers and of Redis, priorities that never starve, exact counts",
    "database": "indexes that a planner proved, measured once made, taken back when they do not help",
    "console": "one page with queues and cache, and with the database once it has an optimizer=: /ops",
}
_MANAGERS: Final = '''"""The managers of this project, opened by the first call that needs them."""

import os

from eventperf.cache import CacheManager
from eventperf.queues import QueueManager

REDIS = os.environ.get("REDIS_URL", "")

# One server may do for a beginning. In production give each its own: a full cache must evict (allkeys-lfu),
# a full job store must not (noeviction), and one Redis has one policy.
cache = CacheManager(os.environ.get("CACHE_REDIS_URL", REDIS) or None)  # process memory without a URL
queues = QueueManager(os.environ.get("QUEUE_REDIS_URL", REDIS) or "memory://")
'''


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("framework", choices=FRAMEWORKS)
    parser.add_argument("--project", default=".", metavar="FOLDER", help="where it is (default: here)")
    parser.add_argument(
        "--write", action="store_true", help=f"make {_NEW}; files that are there stay as they are"
    )


def run(args: argparse.Namespace) -> int:
    """Say what was found, what it would gain, and the lines; 0.

    Raises:
        ConfigurationError: No such folder, no project of that framework in it, or the file is there.
    """
    if not Path(args.project).is_dir():
        raise ConfigurationError("--project", args.project, "a folder")
    project = look(Path(args.project), args.framework)
    _check(project, args.framework)
    place = _place(project, args.framework)
    if args.write:
        if place.exists():
            raise ConfigurationError("--write", str(place), "a file that is not there yet")
        place.write_text(_MANAGERS, encoding="utf-8")
        print(f"made {place}; the other lines are for you to put in", file=sys.stderr)
    for line in _told(project, args.framework):
        print(line)
    print(f"\n# --- {place.relative_to(project.root)} (new)\n{_MANAGERS}")
    for where, text in _lines(project, args.framework, place):
        print(f"# --- {where}\n{text}\n")
    for line in _worker(project, args.framework, project.module(place)):
        print(line)
    print("# Then: eventperf doctor --help looks at what runs.")
    return 0


def _place(project: Project, framework: str) -> Path:
    """Return the new file: beside Django's settings, else where imports begin, if that is in the folder."""
    if framework == "django" and project.settings is not None:
        return project.settings.parent / _NEW
    beside = project.base if project.root in project.base.parents else project.root
    made = not project.apps or beside in project.apps[0].path.parents
    return (beside if made else project.root) / _NEW


def _check(project: Project, framework: str) -> None:
    if framework == "django":
        if project.settings is None:
            allowed = "a folder with Django settings below it (a module with INSTALLED_APPS)"
            raise ConfigurationError("--project", str(project.root), allowed)
    elif framework not in project.packages:
        raise ConfigurationError("--project", str(project.root), f"a folder with a {framework} application")


# --- telling --------------------------------------------------------------------------------------


def _told(project: Project, framework: str) -> Iterator[str]:
    settings = project.settings if framework == "django" else None
    files = [settings] if settings else list(dict.fromkeys(app.path for app in project.apps))
    where = [str(path.relative_to(project.root)) for path in files]
    yield f"# Found a {framework} project" + (f": {', '.join(where[:3])}" if where else "")
    databases = re.findall(r"'ENGINE': '([\w.]*\w)'", " ".join(project.values.get("DATABASES", [])))
    backends = re.findall(r"'BACKEND': '([\w.]+)'", " ".join(project.values.get("CACHES", [])))
    facts: dict[str, list[str]] = {
        "cache": [*backends, *(c for c in CACHES if c in project.packages)],
        "queues": [b for b in BROKERS if b in project.packages],
        "database": [
            *(d.rpartition(".")[2] for d in databases),
            *(d for d in DRIVERS if d in project.packages),
        ]
        or installed(DRIVERS),  # a configuration that is read at run time names none
    }
    for part, names in facts.items():
        yield f"#   {part}: {', '.join(dict.fromkeys(names)) if names else 'nothing found'}"
    yield "# What it would gain:"
    for part, gain in _GAINS.items():
        yield f"#   {part}: {gain}"
    yield f"# Database, nothing to put in: {_ADVISE[framework].format(manage=project.manage)}"
    if facts["queues"]:
        yield f"# {facts['queues'][0]} can stay until its queue is empty: both run side by side."
    extras = ",".join([framework, "cache", "queues", "dbopt", "console", *_driver(facts["database"])])
    yield f'# Install: pip install "eventperf[{extras}]"'
    if project.pins:
        yield f"#   or pinned, as your requirements are: eventperf[{extras}]=={version('eventperf')}"
    if "psycopg" not in facts["database"] and {"psycopg2", "psycopg2-binary"} & {*facts["database"]}:
        yield "#   psycopg2 serves all but queues in PostgreSQL: these need psycopg 3, the extra postgres"


def _worker(project: Project, framework: str, module: str) -> Iterator[str]:
    """Say how a worker is started: it has the jobs of the modules that its own one imports."""
    commands = {"django": f"{project.manage} eventperf_worker", "flask": "flask eventperf worker"}
    command = commands.get(framework)
    yield f"# Worker: {command or f'eventperf queue worker {module}:queues'}"
    if command is None:
        yield f"#   {module} imports no jobs yet: name the module that defines them (and imports queues from"
        yield f"#   {module}) instead, such as myapp.jobs:queues"
    else:
        yield "#   it runs the jobs of every module that your application imports"


def _driver(found: list[str]) -> list[str]:
    """Return the extra that brings a driver, where the project has a server and no driver of its own yet."""
    if set(found) & set(DRIVERS):
        return []
    return [extra for extra, name in (("postgres", "postgresql"), ("mysql", "mysql")) if name in found]


def _lines(project: Project, framework: str, place: Path) -> Iterator[tuple[str, str]]:
    package = project.module(place)
    if framework == "django" and project.settings is not None:
        caches = _DJANGO_ONE_CACHE if "CACHES" in project.values else _DJANGO_CACHES
        yield (
            str(project.settings.relative_to(project.root)),
            _DJANGO.format(caches=caches, app=package, manage=project.manage),
        )
        yield _urls(project), _DJANGO_URLS.format(app=package)
        return
    app = project.apps[0] if project.apps else Application(project.root / "app.py", "app")
    text = (_FLASK if framework == "flask" else _FASTAPI).format(app=package, name=app.name)
    if app.function:
        imports, _, rest = text.partition("\n\n")
        text = f"{imports}\n\n# in {app.function}(), below the line that makes {app.name}:\n{rest}"
    yield str(app.path.relative_to(project.root)), text


def _urls(project: Project) -> str:
    """Return the file of the URLs that the settings name."""
    named = (project.values.get("ROOT_URLCONF") or ["''"])[-1].strip("'")
    file = project.file(named) if named else None
    return str(file.relative_to(project.root)) if file and project.root in file.parents else "urls.py"


_ADVISE: Final = {
    "django": "{manage} eventperf_advise",
    "flask": "flask eventperf advise",
    "fastapi": "eventperf db advise URL",
}
_DJANGO_CACHES: Final = """CACHES = {
    "default": {
        "BACKEND": "eventperf.contrib.django.cache.EventPerfCache",
        # process memory without a URL
        "LOCATION": os.environ.get("CACHE_REDIS_URL", os.environ.get("REDIS_URL", "")),
    }
}"""
_DJANGO_ONE_CACHE: Final = """# below what assigns CACHES; its other aliases stay as they are
CACHES["default"] = {
    "BACKEND": "eventperf.contrib.django.cache.EventPerfCache",
    # process memory without a URL
    "LOCATION": os.environ.get("CACHE_REDIS_URL", os.environ.get("REDIS_URL", "")),
}"""
_DJANGO: Final = """import os

INSTALLED_APPS += ["eventperf.contrib.django"]
{caches}
EVENTPERF_QUEUES = "{app}:queues"  # the page in the admin; {manage} eventperf_worker"""
_DJANGO_URLS: Final = """from django.urls import include, path

from eventperf.contrib.console import Console, staff_only
from {app} import cache, queues

console = Console(queues=queues, cache=cache, may=staff_only)
urlpatterns += [path("ops/", include(console.django_urls()))]"""
_FLASK: Final = """from eventperf.contrib.console import Console, read_only
from eventperf.contrib.flask import EventPerf
from {app} import cache, queues

EventPerf({name}, cache=cache, queues=queues)  # flask eventperf worker, flask eventperf status
console = Console(queues=queues, cache=cache, may=read_only)  # put your own answer in: who may look?
{name}.register_blueprint(console.flask_blueprint(), url_prefix="/ops")"""
_FASTAPI: Final = """from eventperf.contrib.console import Console, read_only
from eventperf.contrib.fastapi import lifespan
from {app} import cache, queues

# {name} = FastAPI(lifespan=lifespan(cache=cache, queues=queues))
console = Console(queues=queues, cache=cache, may=read_only)  # put your own answer in: who may look?
{name}.mount("/ops", console.asgi())"""
