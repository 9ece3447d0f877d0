"""``eventperf init``: looks at a project and prints the few lines that bring eventperf into it.

Nothing of the project is imported or run: files are read as text and parsed.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final

from eventperf._core.errors import ConfigurationError

_MOST_FILES: Final = 3_000
_MOST_BYTES: Final = 500_000
_SKIPPED: Final = frozenset({"node_modules", "site-packages", "__pycache__", "build", "dist", "migrations"})
_NEW: Final = "eventperf_app.py"
_BROKERS: Final = ("celery", "rq", "django-rq", "dramatiq", "arq", "huey", "taskiq", "django-q2", "saq")
_CACHES: Final = (
    "django-redis",
    "flask-caching",
    "cachelib",
    "fastapi-cache2",
    "cashews",
    "aiocache",
    "dogpile.cache",
)
_DRIVERS: Final = (
    "psycopg", "psycopg2", "psycopg2-binary", "asyncpg", "pymysql", "mysqlclient", "aiomysql", "aiosqlite",
)  # fmt: skip
_FRAMEWORKS: Final = ("django", "fastapi", "flask")

_WORD: Final = re.compile(r"""["']?([A-Za-z][\w.\-]*)[\[\s]*[=<>~!"'\n\]]""")
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


@dataclass(slots=True)
class Project:
    """What was found.

    Attributes:
        root: Where.
        base: Where its imports begin: the folder of manage.py, or ``src`` where that is no package.
        packages: Names of requirements, in small letters.
        apps: ``(file, variable)`` of each ``Flask()`` or ``FastAPI()``.
        settings: Django's settings module, as a file: the one that manage.py names.
        values: Settings of interest, as their source text.
        has_caches: Whether these settings name caches already.
        pins: Whether its requirements name exact versions.
        factory: File with a ``create_app`` function.
    """

    root: Path
    base: Path
    packages: set[str] = field(default_factory=set)
    apps: list[tuple[Path, str]] = field(default_factory=list)
    settings: Path | None = None
    values: dict[str, str] = field(default_factory=dict)
    factory: Path | None = None
    pins: bool = False
    has_caches: bool = False

    def module(self, path: Path) -> str:
        """Return the name under which a file is imported."""
        base = self.base if self.base in path.parents else self.root
        return ".".join(path.relative_to(base).with_suffix("").parts)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("framework", choices=_FRAMEWORKS)
    parser.add_argument("--project", default=".", metavar="FOLDER", help="where it is (default: here)")
    parser.add_argument(
        "--write", action="store_true", help=f"make {_NEW}; files that are there stay as they are"
    )


def run(args: argparse.Namespace) -> int:
    """Say what was found, what it would gain, and the lines; 0.

    Raises:
        ConfigurationError: No such folder, no project of that framework in it, or the file is there.
    """
    root = Path(args.project)
    if not root.is_dir():
        raise ConfigurationError("--project", args.project, "a folder")
    project = look(root)
    _check(project, args.framework)
    at = project.apps[0][0] if project.apps else project.factory
    beside = project.base if at is not None and project.base in at.parents else root
    place = (project.settings.parent if project.settings else beside) / _NEW
    if args.write:
        if place.exists():
            raise ConfigurationError("--write", str(place), "a file that is not there yet")
        place.write_text(_MANAGERS, encoding="utf-8")
        print(f"made {place}; the other lines are for you to put in", file=sys.stderr)
    for line in _told(project, args.framework):
        print(line)
    print(f"\n# --- {place.relative_to(root)} (new)\n{_MANAGERS}")
    for where, text in _lines(project, args.framework, place):
        print(f"# --- {where}\n{text}\n")
    for line in _worker(args.framework, project.module(place)):
        print(line)
    print("# Then: eventperf doctor --help looks at what runs.")
    return 0


# --- looking --------------------------------------------------------------------------------------


def look(root: Path) -> Project:
    """Read requirements and sources below ``root``."""
    src = root / "src"
    found = Project(root, src if src.is_dir() and not (src / "__init__.py").exists() else root)
    managed: tuple[Path, str] | None = None
    for path in sorted(root.glob("requirements*.txt")) + sorted(root.glob("requirements/*.txt")):
        lines = [line for line in _text(path).splitlines() if line.strip()[:1].isalpha()]
        found.packages |= {_name(line) for line in lines}
        found.pins = found.pins or any("==" in line for line in lines)
    for name in ("pyproject.toml", "setup.cfg", "setup.py", "Pipfile"):
        found.packages |= {
            _name(word)
            for word in re.findall(r'["\']?([A-Za-z][\w.\-\[\],]*)\s*[=<>~!"\'\n]', _text(root / name))
        }
    for path in _sources(root):
        try:
            tree = ast.parse(_text(path))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        _read(found, path, tree)
        if path.name == "manage.py" and managed is None and (named := _settings_named(tree)):
            managed = path.parent, named
    if managed is not None:
        _settle(found, *managed)
    return found


def _settings_named(tree: ast.Module) -> str | None:
    """Return the settings module that a manage.py names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and len(node.args) == 2:
            words = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            if words[:1] == ["DJANGO_SETTINGS_MODULE"] and isinstance(words[-1], str):
                return words[-1]
    return None


def _settle(found: Project, base: Path, module: str) -> None:
    """Take the settings that manage.py names: what another module assigns may not be what counts."""
    found.base = base
    place = base.joinpath(*module.split("."))
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            found.settings = path
    if found.settings is not None:
        found.has_caches = re.search(r"^\s*CACHES\b", _text(found.settings), re.MULTILINE) is not None


def _sources(root: Path) -> Iterator[Path]:
    seen, folders = 0, [root]
    while folders:
        folder = folders.pop(0)
        try:
            entries = sorted(folder.iterdir())
        except OSError:
            continue
        if (folder / "pyvenv.cfg").exists():
            continue
        for entry in entries:
            if entry.is_symlink() or entry.name.startswith("."):
                continue
            if entry.is_dir() and entry.name not in _SKIPPED and len(entry.relative_to(root).parts) <= 4:
                folders.append(entry)
            elif entry.suffix == ".py":
                seen += 1
                if seen > _MOST_FILES:
                    return
                yield entry


def _text(path: Path) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_MOST_BYTES)
    except OSError:
        return ""


def _name(requirement: str) -> str:
    return re.split(r"[\s\[<>=~!;@]", requirement.strip(), maxsplit=1)[0].lower().replace("_", "-")


def _read(found: Project, path: Path, tree: ast.Module) -> None:
    names = {
        t.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for t in node.targets
        if isinstance(t, ast.Name)
    }
    for name, value in names.items():
        if (
            isinstance(value, ast.Call)
            and isinstance(value.func, ast.Name)
            and value.func.id in ("Flask", "FastAPI")
        ):
            found.apps.append((path, name))
            found.packages.add(value.func.id.lower())
    if "INSTALLED_APPS" in names and (found.settings is None or len(path.parts) < len(found.settings.parts)):
        found.settings = path
        for name in ("CACHES", "DATABASES", "SESSION_ENGINE", "TASKS"):
            if name in names:
                found.values[name] = ast.unparse(names[name])
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "create_app":
            found.factory = path
        for module in _imported(node):
            found.packages.add(module.partition(".")[0].lower().replace("_", "-"))


def _imported(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []


def _check(project: Project, framework: str) -> None:
    if framework == "django":
        if project.settings is None:
            allowed = "a folder with Django settings below it (a module with INSTALLED_APPS)"
            raise ConfigurationError("--project", str(project.root), allowed)
    elif framework not in project.packages:
        raise ConfigurationError("--project", str(project.root), f"a folder with a {framework} application")


# --- telling --------------------------------------------------------------------------------------


def _told(project: Project, framework: str) -> Iterator[str]:
    settings = project.settings
    where = [
        str(path.relative_to(project.root))
        for path in ([settings] if settings else [p for p, _ in project.apps])
    ]
    yield f"# Found a {framework} project" + (f": {', '.join(where[:3])}" if where else "")
    databases = re.findall(r"'ENGINE': '([\w.]+)'", project.values.get("DATABASES", ""))
    backends = re.findall(r"'BACKEND': '([\w.]+)'", project.values.get("CACHES", ""))
    facts = {
        "cache": [*backends, *(c for c in _CACHES if c in project.packages)],
        "queues": [b for b in _BROKERS if b in project.packages],
        "database": [
            *(d.rpartition(".")[2] for d in databases),
            *(d for d in _DRIVERS if d in project.packages),
        ],
    }
    for part, names in facts.items():
        yield f"#   {part}: {', '.join(names) if names else 'nothing found'}"
    yield "# What it would gain:"
    for part, gain in _GAINS.items():
        yield f"#   {part}: {gain}"
    yield f"# Database, nothing to put in: {_ADVISE[framework]}"
    if facts["queues"]:
        yield f"# {facts['queues'][0]} can stay until its queue is empty: both run side by side."
    extras = ",".join([framework, "cache", "queues", "dbopt", "console", *_driver(facts["database"])])
    yield f'# Install: pip install "eventperf[{extras}]"'
    if project.pins:
        yield f"#   or pinned, as your requirements are: eventperf[{extras}]=={version('eventperf')}"
    if "psycopg" not in project.packages and {"psycopg2", "psycopg2-binary"} & project.packages:
        yield "#   psycopg2 serves all but queues in PostgreSQL: these need psycopg 3, the extra postgres"


def _worker(framework: str, module: str) -> Iterator[str]:
    """Say how a worker is started: it has the jobs of the modules that its own one imports."""
    command = {"django": "python manage.py eventperf_worker", "flask": "flask eventperf worker"}.get(
        framework
    )
    yield f"# Worker: {command or f'eventperf queue worker {module}:queues'}"
    if command is None:
        yield f"#   {module} imports no jobs yet: name the module that defines them (and imports queues from"
        yield f"#   {module}) instead, such as myapp.jobs:queues"
    else:
        yield "#   it runs the jobs of every module that your application imports"


def _driver(found: list[str]) -> list[str]:
    """Return the extra that brings a driver, where the project has a server and no driver of its own yet."""
    if set(found) & set(_DRIVERS):
        return []
    return [extra for extra, name in (("postgres", "postgresql"), ("mysql", "mysql")) if name in found]


def _lines(project: Project, framework: str, place: Path) -> Iterator[tuple[str, str]]:
    package = project.module(place)
    if framework == "django" and project.settings is not None:
        caches = _DJANGO_ONE_CACHE if project.has_caches else _DJANGO_CACHES
        yield str(project.settings.relative_to(project.root)), _DJANGO.format(caches=caches, app=package)
        yield "urls.py", _DJANGO_URLS.format(app=package)
        return
    path, name = project.apps[0] if project.apps else (project.factory or project.root / "app.py", "app")
    text = _FLASK if framework == "flask" else _FASTAPI
    yield str(path.relative_to(project.root)), text.format(app=package, name=name)


_ADVISE: Final = {
    "django": "python manage.py eventperf_advise",
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
EVENTPERF_QUEUES = "{app}:queues"  # the page in the admin; manage.py eventperf_worker"""
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
