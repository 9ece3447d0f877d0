"""The names that users and third parties may rely on, and the list that holds them.

``python tests/public_names.py`` writes the list anew: read its diff, every line that goes is a break.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

ROOT = Path(__file__).parent.parent
LIST = ROOT / "tests/public_names.txt"
MODULES = (
    "eventperf",
    "eventperf.cache",
    "eventperf.cache.protocols",
    "eventperf.cli.main",
    "eventperf.contrib.django.cache",
    "eventperf.contrib.django.commit",
    "eventperf.contrib.django.recorder",
    "eventperf.contrib.django.sessions",
    "eventperf.contrib.dogpile",
    "eventperf.contrib.fastapi",
    "eventperf.contrib.flask",
    "eventperf.contrib.logging",
    "eventperf.contrib.opentelemetry",
    "eventperf.contrib.prometheus",
    "eventperf.dbopt",
    "eventperf.dbopt.protocols",
    "eventperf.errors",
    "eventperf.queues",
    "eventperf.queues.backends.memory",
    "eventperf.queues.compat.arq",
    "eventperf.queues.errors",
    "eventperf.queues.manager",
    "eventperf.queues.outbox",
    "eventperf.queues.protocols",
    "eventperf.scaling",
    "eventperf.scaling.backends.kubernetes",
    "eventperf.scaling.backends.prometheus",
    "eventperf.scaling.protocols",
    "eventperf.testing",
    "eventperf.testing.cache",
    "eventperf.testing.clock",
    "eventperf.testing.dbopt",
    "eventperf.testing.kubernetes",
    "eventperf.testing.queues",
    "eventperf.testing.scaling",
)
NOT_PATHS = frozenset(
    {"eventperf.console", "eventperf.event.duration", "eventperf.events", "eventperf.ready"}
)
"""Names of metrics, loggers and the like that look like paths."""


def names_of(module: ModuleType) -> set[str]:
    """Return the public names of a module, and those of its classes as ``Class.name``."""
    listed = getattr(module, "__all__", None)
    if listed is None:
        listed = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_")
            and getattr(value, "__module__", None) == module.__name__
            and not isinstance(value, (TypeVar, ParamSpec))
        ]
    found = set(listed)
    for name in listed:
        value = getattr(module, name)
        if inspect.isclass(value):
            found |= {f"{name}.{own}" for own in _own(value)}
    return found


def _own(cls: type[Any]) -> set[str]:
    ours = [base for base in cls.__mro__ if base.__module__.startswith("eventperf")]
    names = {name for base in ours for name in (*vars(base), *inspect.get_annotations(base))}
    return {name for name in names if not name.startswith(("_", "test_"))}


def written() -> dict[str, set[str]]:
    """Return the list by module."""
    found: dict[str, set[str]] = {}
    module = ""
    for line in LIST.read_text("utf-8").splitlines():
        if line.startswith("["):
            found[module := line[1:-1]] = set()
        elif line:
            name, _, members = line.partition(": ")
            found[module] |= {name, *(f"{name}.{member}" for member in members.split())}
    return found


def present() -> dict[str, set[str]]:
    """Return what is there, without modules whose dependencies are not installed."""
    found = {}
    for name in MODULES:
        try:
            found[name] = names_of(importlib.import_module(name))
        except ImportError as error:
            if (error.name or "eventperf").startswith("eventperf"):
                raise
    return found


def changes() -> tuple[list[str], list[str]]:
    """Return names on the list that are gone, and names that are there and not on the list."""
    before, now = written(), present()
    gone = [f"{m}.{n}" for m in before for n in sorted(before[m] - now.get(m, before[m]))]
    return gone, [f"{m}.{n}" for m in now for n in sorted(now[m] - before.get(m, set()))]


def written_paths() -> list[str]:
    """Return every dotted path below ``eventperf`` that README, docs, examples and metadata name."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "pyproject.toml"]
    for folder, kinds in (("docs", {".md"}), ("examples", {".py", ".toml", ".yml", ".yaml"})):
        pages += [
            p for p in sorted((ROOT / folder).rglob("*")) if p.suffix in kinds and "_build" not in p.parts
        ]
    text = "\n".join(page.read_text("utf-8") for page in pages)
    return sorted(set(re.findall(r"\beventperf(?:\.[A-Za-z_]\w*)+(?![\w*])", text)) - NOT_PATHS)


def find(path: str) -> Any:
    """Return what a dotted path leads to: a module, or a name inside one."""
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError as error:
            if error.name not in {".".join(parts[:n]) for n in range(2, cut + 1)}:
                raise
            continue
        for name in parts[cut:]:
            found = getattr(found, name)
        return found
    raise ModuleNotFoundError(f"no module leads to {path}", name=path)


def _write() -> None:
    lines = []
    for module, names in present().items():
        lines += ["", f"[{module}]"]
        for name in sorted(n for n in names if "." not in n):
            members = sorted(n.partition(".")[2] for n in names if n.startswith(f"{name}."))
            lines.append(f"{name}: {' '.join(members)}" if members else name)
    LIST.write_text("\n".join(lines[1:]) + "\n", "utf-8")


if __name__ == "__main__":
    _write()
