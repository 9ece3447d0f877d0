"""Record what an application sends to its database: from where, how often, how long, and N+1 loops."""

from __future__ import annotations

import importlib.util
import os
import random as random_module
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Final
from weakref import WeakKeyDictionary

from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require
from eventperf.dbopt.schema.engines import DIALECTS

from .fingerprint import fingerprint, is_read
from .quiet import is_muted
from .workload import Workload

_SAMPLES: Final = 16
_N_PLUS_ONE: Final = 5
_LIBRARIES: Final = (
    *("sqlalchemy", "greenlet", "asyncio", "concurrent", "contextlib", "threading", "functools"),
    *("flask_sqlalchemy", "sqlmodel", "aiosqlite"),
    *("django.db", "django.utils.functional", "django.template", "django.core.paginator"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NPlusOne:
    """One line of code that sends one statement per row of another.

    Attributes:
        caller: ``file:line`` of the loop.
        statement: The normalised text.
        fingerprint: Its name.
        runs: Transactions in which the loop was seen.
        queries: Statements it sent in all.
        most: Most in one transaction.
        total_s: Seconds they took.
        fix: What to write instead.
    """

    caller: str
    statement: str
    fingerprint: str
    runs: int
    queries: int
    most: int
    total_s: float
    fix: str


class _Entry:
    __slots__ = ("callers", "calls", "max_s", "reads", "samples", "total_s")

    def __init__(self, sql: str) -> None:
        self.calls = 0
        self.total_s = 0.0
        self.max_s = 0.0
        self.samples: list[Any] = []
        self.callers: dict[Any, int] = {}
        self.reads = is_read(sql)


class _Group:
    __slots__ = ("fix", "most", "queries", "runs", "total_s")

    def __init__(self, fix: str) -> None:
        self.runs = self.queries = self.most = 0
        self.total_s = 0.0
        self.fix = fix


class QueryRecorder:
    """Record statements of a SQLAlchemy engine, sync or async, at less than 10 microseconds each.

    ``observe`` takes statements from anything else (Django's ``execute_wrapper``, a driver). Safe for
    threads and tasks. At most ``max_statements`` different texts are kept; more are counted in
    ``dropped``.

    Args:
        engine: SQLAlchemy ``Engine`` or ``AsyncEngine``, or ``None`` to be fed by ``observe`` alone.
        dialect: Only without an engine: ``"sqlite"``, ``"postgres"`` or ``"mysql"``.
        max_statements: Most different texts kept.
        threshold: Same statement from one line this often in one transaction is an N+1 loop.
        random: Draws of the sampling, for tests.
    """

    def __init__(
        self,
        engine: Any = None,
        *,
        dialect: str | None = None,
        max_statements: int = 5_000,
        threshold: int = _N_PLUS_ONE,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        if threshold < 2:
            raise ConfigurationError("threshold", threshold, "at least 2")
        self.dropped: int = 0
        self._random = random
        self._threshold = threshold
        self._max = max_statements
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._groups: dict[tuple[str, Any], _Group] = {}
        self._runs: WeakKeyDictionary[Any, dict[Any, int]] = WeakKeyDictionary()
        self._run_name = f"_eventperf_run_{id(self)}"
        self._internal: dict[str, bool] = {}
        self._places = _places()
        self._engine = getattr(engine, "sync_engine", engine)
        if self._engine is None:
            self.dialect: str = dialect or "sqlite"
        else:
            self.dialect = _dialect_of(self._engine)
            self._listen()

    def __enter__(self) -> QueryRecorder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening; what was recorded stays."""
        if self._engine is not None:
            event = require("sqlalchemy", extra="dbopt", needed_by="QueryRecorder").event
            event.remove(self._engine, "before_cursor_execute", self._before)
            event.remove(self._engine, "after_cursor_execute", self._after)
            self._engine = None

    def _listen(self) -> None:
        event = require("sqlalchemy", extra="dbopt", needed_by="QueryRecorder").event
        event.listen(self._engine, "before_cursor_execute", self._before)
        event.listen(self._engine, "after_cursor_execute", self._after)

    # --- the hot path --------------------------------------------------------------------------

    def _before(self, conn: Any, cursor: Any, sql: str, params: Any, context: Any, many: bool) -> None:
        context.eventperf_began = perf_counter()

    def _after(self, conn: Any, cursor: Any, sql: str, params: Any, context: Any, many: bool) -> None:
        took = perf_counter() - context.eventperf_began
        if is_muted():
            return
        if many:
            params = params[0] if params else None
        caller = self._caller(sys._getframe(1))
        entry = self._record(sql, params, took, caller)
        if entry is not None and entry.reads and not many:
            # As an attribute of the connection: a weak dictionary costs more than all the rest.
            known = conn.__dict__
            run = known.get(self._run_name)
            if run is None:
                run = known[self._run_name] = {}
            self._count(run, sql, caller, took, partial(_fix, context))

    def observe(
        self,
        sql: str,
        params: Any = None,
        seconds: float = 0.0,
        caller: Any = None,
        *,
        scope: Any = None,
        fix: Callable[[], str] | None = None,
    ) -> None:
        """Record one statement that something else has run.

        Args:
            sql: Text with the driver's placeholders.
            params: Values as the driver took them.
            seconds: How long it took.
            caller: ``"file:line"``; found on the stack when not given.
            scope: Weak-referenceable object that lives as long as the transaction or request, for N+1.
            fix: Tells what would turn a loop into one statement; asked once per loop.
        """
        if is_muted():
            return
        place = caller if caller is not None else self._caller(sys._getframe(1))
        entry = self._record(sql, params, seconds, place)
        if scope is not None and entry is not None and entry.reads:
            self._count(self._runs.setdefault(scope, {}), sql, place, seconds, fix or _general)

    def _record(self, sql: str, params: Any, took: float, caller: Any) -> _Entry | None:
        with self._lock:
            entry = self._entries.get(sql)
            if entry is None:
                if len(self._entries) >= self._max:
                    self.dropped += 1
                    return None
                entry = self._entries[sql] = _Entry(sql)
            entry.calls += 1
            entry.total_s += took
            if took > entry.max_s:
                entry.max_s = took
            callers = entry.callers
            callers[caller] = callers.get(caller, 0) + 1
            # Reservoir sampling (Vitter's algorithm R).
            if len(entry.samples) < _SAMPLES:
                entry.samples.append(params)
            elif (slot := int(self._random() * entry.calls)) < _SAMPLES:
                entry.samples[slot] = params
            return entry

    def _count(self, run: dict[Any, int], sql: str, caller: Any, took: float, fix: Callable[[], str]) -> None:
        key = (sql, caller)
        seen = run[key] = run.get(key, 0) + 1
        if seen < self._threshold:
            return
        with self._lock:
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = _Group(fix())
            if seen == self._threshold:
                group.runs += 1
                group.queries += seen
                group.total_s += took * seen  # the first ones were not yet known to be a loop
            else:
                group.queries += 1
                group.total_s += took
            group.most = max(group.most, seen)

    def _caller(self, frame: Any) -> Any:
        """Return (file, line) of the nearest frame of the application."""
        internal = self._internal
        greenlet: Any = None
        while frame is not None:
            # File names are hashed once in their life, code objects each time.
            name = frame.f_code.co_filename
            skip = internal.get(name)
            if skip is None:
                skip = internal[name] = name.startswith("<") or _normal(name).startswith(self._places)
            if not skip:
                return name, frame.f_lineno
            frame = frame.f_back
            if frame is None and "greenlet" in sys.modules:
                # SQLAlchemy's asyncio runs the driver in a greenlet: its caller is in the parent.
                greenlet = (greenlet or sys.modules["greenlet"].getcurrent()).parent
                frame = greenlet.gr_frame if greenlet is not None else None
        return ("unknown", 0)

    # --- what was seen -------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget everything recorded so far."""
        with self._lock:
            self._entries.clear()
            self._groups.clear()
            self.dropped = 0

    def workload(self) -> Workload:
        """Return what was recorded so far; recording goes on."""
        with self._lock:
            taken = [
                (sql, e.calls, e.total_s, e.max_s, list(e.samples), dict(e.callers))
                for sql, e in self._entries.items()
            ]
            dropped = self.dropped
        out = Workload(self.dialect)
        for sql, calls, total_s, max_s, samples, callers in taken:
            places = {_place(c): n for c, n in callers.items()}
            out.add(sql, calls=calls, total_s=total_s, max_s=max_s, samples=samples, callers=places)
        if dropped:
            out.notes.append(f"{dropped} statements were dropped: more than {self._max} different texts")
        return out

    def n_plus_one(self) -> list[NPlusOne]:
        """Return the loops that were seen, the most statements first."""
        with self._lock:
            groups = list(self._groups.items())
        out = []
        for (sql, caller), group in groups:
            name = fingerprint(sql, self.dialect)
            out.append(
                NPlusOne(
                    caller=_place(caller),
                    statement=name.text,
                    fingerprint=name.id,
                    runs=group.runs,
                    queries=group.queries,
                    most=group.most,
                    total_s=group.total_s,
                    fix=group.fix,
                )
            )
        return sorted(out, key=lambda g: -g.queries)


def _place(caller: Any) -> str:
    return caller if isinstance(caller, str) else f"{caller[0]}:{caller[1]}"


def _normal(name: str) -> str:
    return os.path.normcase(os.path.abspath(name))


def _places() -> tuple[str, ...]:
    """Return where the files of libraries lie, whose frames are nobody's code.

    Real places, not parts of names: an application may live in a folder called eventperf or sqlalchemy.
    """
    here = Path(__file__).resolve().parent.parent
    found = [str(here) + os.sep, str(here.parent / "contrib") + os.sep]
    for name in _LIBRARIES:
        if name.partition(".")[0] not in sys.modules:
            continue  # nobody's frames, and finding it would import it
        module = sys.modules.get(name)
        place = getattr(module, "__file__", None)
        if place is None:
            with suppress(ImportError, ValueError, AttributeError):
                spec = importlib.util.find_spec(name)
                place = spec.origin if spec is not None else None
        if place is not None:
            path = Path(place)
            found.append(str(path.parent) + os.sep if path.name == "__init__.py" else str(path))
    return tuple(_normal(f) + os.sep if f.endswith(os.sep) else _normal(f) for f in found)


def _dialect_of(engine: Any) -> str:
    try:
        return DIALECTS[engine.dialect.name]
    except (AttributeError, KeyError):
        given = getattr(getattr(engine, "dialect", None), "name", type(engine).__name__)
        allowed = "a SQLAlchemy engine for sqlite, postgresql, mysql or mariadb"
        raise ConfigurationError("engine", given, allowed) from None


def _general() -> str:
    return "fetch all rows in one statement (WHERE key IN (...)), or join them in the first one"


def _fix(context: Any) -> str:
    """Name the loader option that turns the loop into one statement, where the ORM tells."""
    options = getattr(context, "execution_options", None) or {}
    load = options.get("_sa_orm_load_options")
    state = getattr(getattr(context, "compiled", None), "compile_state", None)
    path = list(getattr(state, "current_path", None) or ())
    if load is not None and len(path) >= 2 and getattr(load, "_lazy_loaded_from", None) is not None:
        steps = []
        for mapper, relation in zip(path[::2], path[1::2], strict=False):
            loader = "selectinload" if getattr(relation, "uselist", False) else "joinedload"
            steps.append(f"{loader}({mapper.class_.__name__}.{relation.key})")
        return f"options({'.'.join(steps)})"
    refreshed = getattr(load, "_refresh_state", None)
    if refreshed is not None:
        name = refreshed.mapper.class_.__name__
        only = sorted(getattr(getattr(state, "compile_options", None), "_only_load_props", None) or ())
        if only and not refreshed.expired:
            return f"options({', '.join(f'undefer({name}.{column})' for column in only)})"
        return f"{name} objects expire at each commit: expire_on_commit=False, or one SELECT that loads all"
    return _general()
