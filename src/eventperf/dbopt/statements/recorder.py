"""Record what an application sends to its database: from where, how often, how long, and N+1 loops."""

from __future__ import annotations

import itertools
import random as random_module
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, Final
from weakref import WeakKeyDictionary

from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require
from eventperf.dbopt.schema.engines import DIALECTS, engine_behind, sqlalchemy_for

from .callers import Callers, shown
from .fingerprint import Fingerprint, bounded, is_read
from .loaders import ONCE, Guess, equal, general, loader_option, of_batches
from .quiet import is_muted
from .workload import Workload

_SAMPLES: Final = 16
_N_PLUS_ONE: Final = 5
_LONGEST: Final = 16_384  # bytes of one sample's text and values
_HELD: Final = 8_000_000  # bytes of all samples and texts
_TEXTS: Final = 4_000_000  # bytes of texts whose shape is remembered
_COMPARED: Final = (
    2_048  # bytes of values that are held for a transaction, to tell whether a loop's rounds differ
)
_LONGEST_SHAPE: Final = 65_536
_PLACES: Final = 64  # callers of one statement
_TOLD: Final = 20  # loops in the notes of a workload; n_plus_one() has all


@dataclass(frozen=True, slots=True, kw_only=True)
class NPlusOne:
    """One line of code that sends one statement per row of another.

    Attributes:
        caller: ``file:line`` of what sends them, and of those who called it: the loop may be theirs.
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
    """All executions of one shape."""

    __slots__ = ("callers", "calls", "max_s", "name", "reads", "samples", "size", "sql", "total_s")

    def __init__(self, name: Fingerprint, sql: str) -> None:
        if len(name.text) > _LONGEST_SHAPE:  # as a server would cut it; its name stays
            name = Fingerprint(name.id, name.text[:_LONGEST_SHAPE])
        self.name = name
        self.sql = sql if len(sql) <= _LONGEST else name.text
        self.size = len(self.sql)
        self.calls = 0
        self.total_s = 0.0
        self.max_s = 0.0
        self.samples: list[tuple[str, Any, float]] = []
        self.callers: dict[Any, int] = {}
        self.reads = is_read(self.sql)


class _Group:
    __slots__ = ("fix", "most", "path", "queries", "runs", "total_s", "varies")

    def __init__(self, fix: str, path: str) -> None:
        self.varies = False
        self.runs = self.queries = self.most = 0
        self.total_s = 0.0
        self.fix = fix
        self.path = path


class _Loop:
    """One statement from one line in one transaction: how often, and what the first round asked for."""

    __slots__ = ("first", "seen")

    def __init__(self, asked: tuple[str, Any]) -> None:
        self.seen = 0
        self.first: tuple[str, Any] | None = None
        if _size(asked[1]) <= _COMPARED:
            sql, values = asked  # a copy: who sends may change the values in place for the next round
            self.first = sql, values.copy() if isinstance(values, (list, dict)) else values


class QueryRecorder:
    """Record statements of a SQLAlchemy engine, sync or async, at less than 10 microseconds each.

    ``observe`` takes statements from anything else (Django's ``execute_wrapper``, a driver). Safe for
    threads and tasks. Statements are kept by shape: texts that differ in literals or comments are one. At
    most ``max_statements`` shapes are kept, those that cost most; executions of others are counted in
    ``dropped``. Samples of long texts and values are left out, and all of them hold at most 8 MB.

    Args:
        engine: SQLAlchemy ``Engine`` or ``AsyncEngine``, a session, Flask-SQLAlchemy's ``db``, or ``None`` to
            be fed by ``observe`` alone.
        dialect: Only without an engine: ``"sqlite"``, ``"postgres"`` or ``"mysql"``.
        max_statements: Most different shapes kept.
        threshold: Same statement from one line this often in one transaction is an N+1 loop.
        skip: Packages (or folders) whose frames are no callers, beside everything that was installed.
        frames: How many lines of the application a loop names, the nearest first.
        own: Packages that are the application although they were installed, as a host's often is.
        random: Draws of the sampling, for tests.
    """

    def __init__(
        self,
        engine: Any = None,
        *,
        dialect: str | None = None,
        max_statements: int = 5_000,
        threshold: int = _N_PLUS_ONE,
        skip: Iterable[str] = (),
        frames: int = 3,
        own: Iterable[str] = (),
        random: Callable[[], float] = random_module.random,
    ) -> None:
        if threshold < 2:
            raise ConfigurationError("threshold", threshold, "at least 2")
        if max_statements < 1:
            raise ConfigurationError("max_statements", max_statements, "at least 1")
        if frames < 1:
            raise ConfigurationError("frames", frames, "at least 1")
        for name, packages in (("skip", skip), ("own", own)):
            if isinstance(packages, str):
                raise ConfigurationError(name, packages, f"a list of packages: [{packages!r}]")
        self.dropped: int = 0
        self._random = random
        self._threshold = threshold
        self._max = max_statements
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._texts: dict[str, _Entry] = {}
        self._held = self._remembered = 0
        self._groups: dict[tuple[Fingerprint, Any], _Group] = {}
        self._runs: WeakKeyDictionary[Any, dict[Any, _Loop]] = WeakKeyDictionary()
        self._run_name = f"_eventperf_run_{id(self)}"
        self._caller = Callers(skip, 1, own).find
        self._path = Callers(skip, frames, own).find
        self._engine = engine_behind(engine)
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
        event = sqlalchemy_for("QueryRecorder").event
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
        if entry.reads and not many:
            # As an attribute of the connection: a weak dictionary costs more than all the rest.
            known = conn.__dict__
            run = known.get(self._run_name)
            if run is None:
                run = known[self._run_name] = {}
            self._count(run, entry.name, caller, took, (sql, params), partial(loader_option, context))

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
        if scope is not None and entry.reads:
            run = self._runs.setdefault(scope, {})
            self._count(run, entry.name, place, seconds, (sql, params), fix or general)

    def _record(self, sql: str, params: Any, took: float, caller: Any) -> _Entry:
        with self._lock:
            entry = self._texts.get(sql)
            if entry is None:
                entry = self._find(sql)
            entry.calls += 1
            entry.total_s += took
            is_dearest = took > entry.max_s
            if is_dearest:
                entry.max_s = took
            callers = entry.callers
            if caller in callers or len(callers) < _PLACES:
                callers[caller] = callers.get(caller, 0) + 1
            # The first place is the dearest one's; the others are a reservoir (Vitter's algorithm R).
            if len(entry.samples) < _SAMPLES:
                is_kept = self._keep(entry, len(entry.samples), (sql, params, took))
                if is_dearest and is_kept:
                    entry.samples.insert(0, entry.samples.pop())
            elif is_dearest:
                self._keep(entry, 0, (sql, params, took))
            elif 0 < (slot := int(self._random() * entry.calls)) < _SAMPLES:
                self._keep(entry, slot, (sql, params, took))
            return entry

    def _find(self, sql: str) -> _Entry:
        """Return the entry of a text's shape, and remember that this text has it."""
        name = bounded(sql, self.dialect, _LONGEST)
        entry = self._entries.get(name.id)
        if entry is None:
            if len(self._entries) >= self._max or self._held > 2 * _HELD:
                self._make_room()
            entry = self._entries[name.id] = _Entry(name, sql)
            self._held += entry.size
        if len(sql) <= _LONGEST:
            self._remembered += len(sql) + 100
            if self._remembered > _TEXTS:
                self._texts.clear()
                self._remembered = len(sql) + 100
            self._texts[sql] = entry
        return entry

    def _make_room(self) -> None:
        """Give up the shapes that cost least so far, a tenth at once: a late one may cost most in the end."""
        cheap = sorted(self._entries.values(), key=lambda e: e.total_s)[: max(1, self._max // 10)]
        for entry in cheap:
            del self._entries[entry.name.id]
            self.dropped += entry.calls
            self._held -= entry.size
        self._texts.clear()

    def _keep(self, entry: _Entry, slot: int, sample: tuple[str, Any, float]) -> bool:
        size = len(sample[0]) + _size(sample[1])
        if size > _LONGEST or self._held + size > _HELD:
            return False
        if slot < len(entry.samples):
            old = entry.samples[slot]
            size -= len(old[0]) + _size(old[1])
            entry.samples[slot] = sample
        else:
            entry.samples.append(sample)
        entry.size += size
        self._held += size
        return True

    def _count(
        self,
        run: dict[Any, _Loop],
        name: Fingerprint,
        caller: Any,
        took: float,
        asked: tuple[str, Any],
        fix: Callable[[], str],
    ) -> None:
        key = (name, caller)
        loop = run.get(key)
        if loop is None:
            loop = run[key] = _Loop(asked)
        elif loop.first is not None and not equal(loop.first, asked):
            loop.first = None
        loop.seen += 1
        seen = loop.seen
        if seen < self._threshold:
            return
        with self._lock:
            group = self._groups.get(key)
            if group is None:
                if len(self._groups) >= self._max:
                    return
                path = caller if isinstance(caller, str) else self._path(sys._getframe(1))
                told = of_batches(fix(), name.text)
                group = self._groups[key] = _Group(told, shown(path if path[0] in caller else caller))
            if seen == self._threshold:
                group.runs += 1
                group.queries += seen
                group.total_s += took * seen  # the first ones were not yet known to be a loop
            else:
                group.queries += 1
                group.total_s += took
            group.most = max(group.most, seen)
            group.varies = group.varies or loop.first is None

    # --- what was seen -------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget everything recorded so far."""
        with self._lock:
            self._entries.clear()
            self._texts.clear()
            self._held = self._remembered = 0
            self._groups.clear()
            self.dropped = 0

    def workload(self) -> Workload:
        """Return what was recorded so far; recording goes on."""
        with self._lock:
            taken = [
                (e.sql, e.calls, e.total_s, e.max_s, list(e.samples), dict(e.callers), e.name.id)
                for e in self._entries.values()
            ]
            dropped, is_full = self.dropped, self._held > _HELD * 0.95
            looped: dict[str, int] = {}
            for (name, _), group in self._groups.items():
                if not isinstance(group.fix, Guess):  # the ORM has told: one statement would do
                    looped[name.id] = looped.get(name.id, 0) + group.queries - group.runs
        out = Workload(self.dialect)
        for sql, calls, total_s, max_s, samples, callers, name_id in taken:
            places = {shown(c): n for c, n in callers.items()}
            texts: dict[str, list[tuple[Any, float]]] = {}
            for text, values, took in samples:
                texts.setdefault(text, []).append((values, took))
            first = next(iter(texts), sql)
            kept, times = zip(*texts.pop(first), strict=True) if texts else ((), ())
            out.add(
                first,
                calls=calls,
                total_s=total_s,
                max_s=max_s,
                samples=kept,
                times=times,
                callers=places,
                looped=looped.get(name_id, 0),
            )
            for text, others in texts.items():
                kept, times = zip(*others, strict=True)
                out.add(text, calls=0, samples=kept, times=times)
        for loop in self.n_plus_one()[:_TOLD]:
            out.notes.append(
                f"{loop.fingerprint} is an N+1 loop, {loop.queries} statements in {loop.runs} transactions, "
                f"from {loop.caller}: {loop.fix}"
            )
        if dropped:
            text = f"more than {self._max} different shapes, and these cost least"
            out.notes.append(f"{dropped} executions were dropped: {text}; max_statements= keeps more")
        if is_full:
            out.notes.append(f"samples hold {_HELD // 1_000_000} MB: later ones were left out")
        return out

    def n_plus_one(self) -> list[NPlusOne]:
        """Return the loops that were seen, the most statements first."""
        with self._lock:
            groups = list(self._groups.items())
        out = [
            NPlusOne(
                caller=group.path,
                statement=name.text,
                fingerprint=name.id,
                runs=group.runs,
                queries=group.queries,
                most=group.most,
                total_s=group.total_s,
                fix=group.fix if group.varies else ONCE,
            )
            for (name, _), group in groups
        ]
        return sorted(out, key=lambda g: -g.queries)


def _size(value: Any) -> int:
    """Return about how many bytes a value holds; containers are looked into, three levels deep."""
    stack, size = [(value, 0)], 0
    while stack and size <= _LONGEST:
        item, depth = stack.pop()
        if isinstance(item, (str, bytes, bytearray)):
            size += len(item) + 50
        elif isinstance(item, Mapping) and depth < 3:
            size += 64
            stack += [(v, depth + 1) for v in itertools.islice(item.values(), 1_000)]
        elif isinstance(item, (list, tuple)) and depth < 3:
            size += 64 + 8 * len(item)
            stack += [(v, depth + 1) for v in item[:1_000]]
        elif isinstance(item, memoryview):
            size += item.nbytes
        else:
            inner = getattr(item, "obj", None) or getattr(item, "adapted", None)
            size += 32
            if inner is not None and depth < 3:
                stack.append((inner, depth + 1))
    return size


def _dialect_of(engine: Any) -> str:
    try:
        return DIALECTS[engine.dialect.name]
    except (AttributeError, KeyError):
        given = getattr(getattr(engine, "dialect", None), "name", type(engine).__name__)
        allowed = "a SQLAlchemy engine for sqlite, postgresql, mysql or mariadb"
        raise ConfigurationError("engine", given, allowed) from None
