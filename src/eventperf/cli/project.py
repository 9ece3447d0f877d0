"""What a folder shows of the project in it: requirements, applications, Django settings.

Nothing of the project is imported or run: files are read as text and parsed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

FRAMEWORKS: Final = ("django", "fastapi", "flask")
BROKERS: Final = ("celery", "rq", "django-rq", "dramatiq", "arq", "huey", "taskiq", "django-q2", "saq")
CACHES: Final = (
    "django-redis",
    "flask-caching",
    "cachelib",
    "fastapi-cache2",
    "cashews",
    "aiocache",
    "dogpile.cache",
)
DRIVERS: Final = (
    "psycopg", "psycopg2", "psycopg2-binary", "asyncpg", "pymysql", "mysqlclient", "aiomysql", "aiosqlite",
)  # fmt: skip

_MOST_FILES: Final = 3_000
_MOST_BYTES: Final = 500_000
_MOST_STARS: Final = 10  # settings that import settings
_SKIPPED: Final = frozenset(
    {"node_modules", "site-packages", "__pycache__", "build", "dist", "migrations", "tests"}
)
_NAMING: Final = (
    "manage.py",
    "__main__.py",
    "wsgi.py",
    "asgi.py",
)  # who names Django's settings, the best first


@dataclass(frozen=True, slots=True)
class Application:
    """A line ``name = Flask(...)``, or of a class made from it, and the function around it if any."""

    path: Path
    name: str
    function: str = ""


@dataclass(slots=True)
class Project:
    """What was found.

    Attributes:
        root: Where.
        base: Where its imports begin: the folder of manage.py, the first above a package, or ``src``.
        packages: Names of requirements, in small letters.
        apps: What makes its Flask or FastAPI, those of whole modules first.
        settings: Django's settings module, as a file: the one that manage.py or wsgi.py names.
        values: What these settings and those they import by ``*`` assign and change: source texts by name.
        manage: How its management commands are run.
        pins: Whether its requirements name exact versions.
    """

    root: Path
    base: Path
    packages: set[str] = field(default_factory=set)
    apps: list[Application] = field(default_factory=list)
    settings: Path | None = None
    values: dict[str, list[str]] = field(default_factory=dict)
    manage: str = "python manage.py"
    pins: bool = False

    def module(self, path: Path) -> str:
        """Return the name under which a file is imported."""
        base = self.base if self.base in path.parents else self.root
        return ".".join(path.relative_to(base).with_suffix("").parts)

    def file(self, module: str) -> Path | None:
        """Return the file of a module of the project."""
        return _file(self.base, module)


def look(root: Path, framework: str = "") -> Project:
    """Read requirements and sources below ``root``; of applications those of ``framework``, or all."""
    root = root.resolve()
    found = Project(root, _base(root))
    _require(found)
    named: list[tuple[int, Path, str]] = []
    installing: list[Path] = []
    made: list[tuple[Application, str]] = []
    kin = {"Flask": "flask", "FastAPI": "fastapi"}
    bases: dict[str, set[str]] = {}
    for path in _sources(root):
        tree = _tree(path)
        if tree is None:
            continue
        for node in tree.body:
            found.packages |= {m.partition(".")[0].lower().replace("_", "-") for m in _imported(node)}
            if isinstance(node, ast.ClassDef):
                bases.setdefault(node.name, set()).update(_last(base) for base in node.bases)
        made += _made(path, tree)
        if "INSTALLED_APPS" in _assigned(tree):
            installing.append(path)
        if path.name in _NAMING and (module := _settings_named(tree)):
            named.append((_NAMING.index(path.name), path, module))
    _inherit(kin, bases)
    wanted = {framework} if framework in FRAMEWORKS else set(FRAMEWORKS)
    apps = [app for app, callee in made if kin.get(callee) in wanted]
    found.apps = sorted(apps, key=lambda app: bool(app.function))  # stable: the nearest to the root first
    found.packages |= {kin[callee] for _, callee in made if callee in kin}
    _settle(found, sorted(named, key=lambda n: n[0]), installing)
    return found


def installed(names: tuple[str, ...]) -> list[str]:
    """Return which of these packages the environment has that this runs in."""
    there = []
    for name in names:
        try:
            version(name)
        except PackageNotFoundError:
            continue
        there.append(name)
    return there


def _base(root: Path) -> Path:
    """Return where imports begin: above the package that ``root`` is, or ``src`` where that is none."""
    while (root / "__init__.py").exists():
        root = root.parent
    src = root / "src"
    return src if src.is_dir() and not (src / "__init__.py").exists() else root


def _require(found: Project) -> None:
    """Read the names of requirements."""
    root = found.root
    for path in sorted(root.glob("requirements*.txt")) + sorted(root.glob("requirements/*.txt")):
        lines = [line for line in _text(path).splitlines() if line.strip()[:1].isalpha()]
        found.packages |= {_name(line) for line in lines}
        found.pins = found.pins or any("==" in line for line in lines)
    for name in ("pyproject.toml", "setup.cfg", "setup.py", "Pipfile"):
        found.packages |= {
            _name(word)
            for word in re.findall(r'["\']?([A-Za-z][\w.\-\[\],]*)\s*[=<>~!"\'\n]', _text(root / name))
        }


# --- Django's settings ----------------------------------------------------------------------------


def _settings_named(tree: ast.Module) -> str | None:
    """Return the settings module that a manage.py names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and len(node.args) == 2:
            words = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            if words[:1] == ["DJANGO_SETTINGS_MODULE"] and isinstance(words[-1], str):
                return words[-1]
    return None


def _settle(found: Project, named: list[tuple[int, Path, str]], installing: list[Path]) -> None:
    """Take the settings that the project starts with: what another module assigns may not be what counts."""
    for rank, path, module in named:
        # Imports begin beside a manage.py, and somewhere above the others.
        for base in [path.parent] if rank == 0 else [found.base, *path.parents]:
            settings = _file(base, module)
            if settings is not None and found.root in settings.parents:
                found.base, found.settings = base, settings
                if path.name == "__main__.py":
                    found.manage = f"python -m {found.module(path.parent)}"
                break
        if found.settings is not None:
            break
    else:  # nobody says it: the nearest to the root that has the URLs too
        read = [(path, _values(path, found.base)) for path in installing]
        best = sorted(read, key=lambda r: ("ROOT_URLCONF" not in r[1], len(r[0].parts)))
        found.settings = best[0][0] if best else None
    if found.settings is not None:
        found.values = _values(found.settings, found.base)


def _values(path: Path, base: Path, seen: frozenset[Path] = frozenset()) -> dict[str, list[str]]:
    """Return what a module assigns, after what it imports by ``*``; functions apart."""
    tree = _tree(path)
    values: dict[str, list[str]] = {}
    if tree is None or len(seen) > _MOST_STARS:
        return values
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            folder = path
            for _ in range(node.level):
                folder = folder.parent
            file = _file(folder if node.level else base, node.module or "__init__")
            if file is not None and file not in seen:
                _extend(values, _values(file, base, seen | {path}))
    _extend(values, _assigned(tree))
    return values


def _extend(values: dict[str, list[str]], more: dict[str, list[str]]) -> None:
    for name, texts in more.items():
        values.setdefault(name, []).extend(texts)


def _assigned(tree: ast.Module) -> dict[str, list[str]]:
    """Return the values of ``X = ...``, ``X += ...`` and ``X[...] = ...`` outside of functions, as texts."""
    values: dict[str, list[str]] = {}
    nodes: list[ast.AST] = list(tree.body)
    while nodes:
        node = nodes.pop(0)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                while isinstance(target, ast.Subscript):
                    target = target.value
                if isinstance(target, ast.Name):
                    values.setdefault(target.id, []).append(ast.unparse(node.value))
        nodes = [*(n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt)), *nodes]
    return values


# --- applications ---------------------------------------------------------------------------------


def _made(path: Path, tree: ast.Module) -> Iterator[tuple[Application, str]]:
    """Yield each ``name = Callee(...)`` with the name of the function around it."""
    scopes: list[tuple[ast.AST, str]] = [(tree, "")]
    while scopes:
        scope, function = scopes.pop(0)
        for node in ast.iter_child_nodes(scope):
            if isinstance(node, ast.ClassDef):
                continue
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                scopes.append((node, function or node.name))
            elif isinstance(node, ast.stmt):
                scopes.append((node, function))
                if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Call):
                    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                    if isinstance(target, ast.Name):
                        yield Application(path, target.id, function), _last(node.value.func)
                elif isinstance(node, ast.Return) and isinstance(node.value, ast.Call):
                    yield Application(path, "app", function), _last(node.value.func)


def _inherit(kin: dict[str, str], bases: dict[str, set[str]]) -> None:
    """Add the classes that are made from those in ``kin``, over any number of steps."""
    more = True
    while more:
        heirs = {name: kin[b] for name, of in bases.items() if name not in kin for b in of if b in kin}
        kin.update(heirs)
        more = bool(heirs)


def _last(node: ast.expr) -> str:
    """Return the last name of ``a.b.C``."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


# --- files ----------------------------------------------------------------------------------------


def _file(base: Path, module: str) -> Path | None:
    place = base.joinpath(*module.split("."))
    files = (place.with_name(f"{place.name}.py"), place / "__init__.py")
    return next((file for file in files if file.is_file()), None)


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


def _tree(path: Path) -> ast.Module | None:
    try:
        return ast.parse(_text(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _text(path: Path) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_MOST_BYTES)
    except OSError:
        return ""


def _name(requirement: str) -> str:
    return re.split(r"[\s\[<>=~!;@]", requirement.strip(), maxsplit=1)[0].lower().replace("_", "-")


def _imported(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
