"""What a database is asked to do: statements with their weight, times and sample parameters."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, Protocol

from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError
from eventperf._core.files import private
from eventperf._core.urls import Registry

from .fingerprint import Fingerprint, fingerprint, is_read, parse, statements
from .lex import Token, bind, split, split_lines
from .samples import Sample as Sample
from .samples import merged, probes
from .source import StatementSource
from .values import decode, encode, plain

#: Readers of servers' own records, above this module and imported when they are asked for.
SOURCES: Final = Registry(
    "dbopt.sources",
    {
        "slow_log": "eventperf.dbopt.backends.mysql.sources:SlowLogFile",
        "slow_log_table": "eventperf.dbopt.backends.mysql.sources:SlowLogTable",
        "performance_schema": "eventperf.dbopt.backends.mysql.sources:Digests",
        "pg_stat_statements": "eventperf.dbopt.backends.postgres.sources:PgStatStatements",
    },
)
_CALLS: Final = re.compile(r"--\s*calls:\s*([\d_]+)", re.IGNORECASE)
_SAMPLES: Final = 16
_PIECE: Final = 1 << 18  # characters of a script that are read at once
_FORMAT: Final = "eventperf-workload-1"


@dataclass(slots=True, kw_only=True)
class Statement:
    """All executions of one fingerprint.

    Attributes:
        fingerprint: Its name and normalised text.
        calls: Executions (a weight, when the source counts none).
        total_s: Seconds in all, ``None`` where the source does not time.
        max_s: The slowest execution.
        lock_s: Seconds waited for locks.
        rows_sent: Rows returned in all.
        rows_examined: Rows read in all.
        samples: Some executions; those with values can be measured.
        callers: Where the application sent it from (``file:line``), with counts.
        looped: Executions that one statement instead of an N+1 loop would save: they buy no index.
        is_cut: The source had cut the text.
        error: Why it could not be parsed.
    """

    fingerprint: Fingerprint
    calls: int = 0
    total_s: float | None = None
    max_s: float | None = None
    lock_s: float | None = None
    rows_sent: int | None = None
    rows_examined: int | None = None
    samples: list[Sample] = field(default_factory=list)
    callers: dict[str, int] = field(default_factory=dict)
    looped: int = 0
    is_cut: bool = False
    error: str | None = None

    @property
    def alone(self) -> float:
        """The share of its executions that are not the rounds of an N+1 loop."""
        return max(0.0, 1.0 - self.looped / self.calls) if self.calls else 1.0

    @property
    def sql(self) -> str:
        """One execution's text."""
        return self.samples[0].sql if self.samples else self.fingerprint.text

    @property
    def mean_s(self) -> float | None:
        """Mean seconds of one execution."""
        return None if self.total_s is None or not self.calls else self.total_s / self.calls

    @property
    def is_read(self) -> bool:
        """Whether it only reads."""
        return is_read(self.sql)

    @property
    def measurable(self) -> list[Sample]:
        """Samples that can be run again: every parameter has a value, and the text is whole."""
        return [] if self.is_cut else [s for s in self.samples if s.values is not None]

    def probes(self, most: int) -> list[Sample]:
        """Return samples that stand for all that can be run again, of each text the dearest first."""
        return probes(self.measurable, most)

    def absorb(self, other: Statement) -> None:
        """Add another source's figures for the same fingerprint."""
        self.calls += other.calls
        self.looped += other.looped
        for name in ("total_s", "lock_s", "rows_sent", "rows_examined"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if theirs is not None:
                setattr(self, name, theirs if mine is None else mine + theirs)
        if other.max_s is not None:
            self.max_s = max(self.max_s or 0.0, other.max_s)
        self.samples = merged(self.samples, other.samples, _SAMPLES)
        for place, count in other.callers.items():
            self.callers[place] = self.callers.get(place, 0) + count
        self.is_cut, self.error = self.is_cut and other.is_cut, self.error or other.error


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowQuery:
    """One line of the ranking by calls x time.

    Fields the source does not know are ``None``. ``sample`` is redacted unless asked otherwise.
    """

    fingerprint: str
    calls: int
    total_s: float | None
    mean_s: float | None
    max_s: float | None
    lock_s: float | None
    rows_sent: int | None
    rows_examined: int | None
    sample: str
    callers: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


class Workload:
    """Statements by fingerprint, from any source.

    Attributes:
        dialect: ``"sqlite"``, ``"postgres"`` or ``"mysql"``: how its texts are read.
        since: What period the figures cover, in words.
        notes: What could not be read.
    """

    def __init__(self, dialect: str = "sqlite", *, since: str = "since recording began") -> None:
        if dialect not in ("sqlite", "postgres", "mysql"):
            raise ConfigurationError("dialect", dialect, "sqlite, postgres or mysql")
        self.dialect = dialect
        self.since = since
        self.notes: list[str] = []
        self._statements: dict[str, Statement] = {}

    def __len__(self) -> int:
        return len(self._statements)

    def __iter__(self) -> Iterator[Statement]:
        return iter(self._statements.values())

    def __getitem__(self, fingerprint_id: str) -> Statement:
        return self._statements[fingerprint_id]

    def __contains__(self, fingerprint_id: object) -> bool:
        return fingerprint_id in self._statements

    def __repr__(self) -> str:
        return f"<Workload of {len(self)} statements, {self.since}>"

    def add(
        self,
        sql: str,
        *,
        calls: int = 1,
        total_s: float | None = None,
        max_s: float | None = None,
        lock_s: float | None = None,
        rows_sent: int | None = None,
        rows_examined: int | None = None,
        samples: Sequence[Any] = (),
        times: Sequence[float | None] = (),
        callers: Mapping[str, int] | None = None,
        looped: int = 0,
    ) -> None:
        """Add executions of ``sql``; a text of several statements is taken apart.

        Args:
            sql: The text, with parameters of any driver's style.
            samples: Parameter values (sequences or mappings), one per execution that was sampled.
            times: Seconds that each of them took, in the same order, where they are known.
            looped: Executions that one statement instead of an N+1 loop would save.
        """
        parts = list(statements(sql, self.dialect))
        for part in parts:
            name = fingerprint(part, self.dialect)
            bound = bind(part, None, self.dialect)
            kept = []
            for given, took in zip_longest(samples, times[: len(samples)]):
                if given:
                    b = bind(part, given, self.dialect)
                    values = None if b.values is None else plain(b.values)
                    kept.append(Sample(b.sql, values, None if took is None else took / len(parts)))
            if not kept:
                kept = [Sample(bound.sql, () if bound.parameters == 0 and "..." not in part else None)]
            known = self._statements.get(name.id)
            is_new = known is None or known.is_cut or known.error is not None
            parsed = parse(bound.sql, self.dialect) if is_new else None  # one of a kind tells for all
            entry = Statement(
                fingerprint=name,
                calls=calls,
                total_s=None if total_s is None else total_s / len(parts),
                max_s=max_s,
                lock_s=lock_s,
                rows_sent=rows_sent,
                rows_examined=rows_examined,
                samples=kept[:_SAMPLES],
                callers=dict(callers or {}),
                looped=looped,
                is_cut=parsed is not None and parsed.is_cut,
                error=None if parsed is None else parsed.error,
            )
            if known is None:
                self._statements[name.id] = entry
            else:
                known.absorb(entry)

    def merge(self, other: Workload) -> Workload:
        """Return the sum of two workloads of one dialect."""
        if other.dialect != self.dialect:
            raise ConfigurationError("other", other.dialect, f"a workload of {self.dialect}")
        since = self.since if self.since == other.since else f"{self.since}; {other.since}"
        out = Workload(self.dialect, since=since)
        out.notes = [*self.notes, *other.notes]
        for entry in [*self, *other]:
            copy = Statement(fingerprint=entry.fingerprint, is_cut=True)
            copy.absorb(entry)
            copy.is_cut = entry.is_cut
            if entry.fingerprint.id in out:
                out[entry.fingerprint.id].absorb(copy)
            else:
                out._statements[entry.fingerprint.id] = copy
        return out

    def minus(self, earlier: Workload) -> Workload:
        """Return what happened between two snapshots of cumulative server statistics.

        A statement whose counters went back was reset in between; its new figures count in full.
        """
        out = Workload(self.dialect, since="between two snapshots")
        out.notes = list(self.notes)
        for entry in self:
            old = earlier._statements.get(entry.fingerprint.id)
            copy = Statement(fingerprint=entry.fingerprint, is_cut=True)
            copy.absorb(entry)
            copy.is_cut = entry.is_cut
            if old is not None and old.calls <= copy.calls:
                copy.calls -= old.calls
                for name in ("total_s", "lock_s", "rows_sent", "rows_examined"):
                    mine, theirs = getattr(copy, name), getattr(old, name)
                    if mine is not None and theirs is not None:
                        setattr(copy, name, max(0, mine - theirs))
            if copy.calls:
                out._statements[entry.fingerprint.id] = copy
        return out

    def snapshot(self) -> Workload:
        """Return an independent copy of this moment, for a later :meth:`minus`."""
        return self.merge(Workload(self.dialect, since=self.since))

    def slow_queries(self, limit: int = 50, *, redact: bool = True) -> list[SlowQuery]:
        """Return the statements that cost most in all (calls x mean time), most first."""
        ranked = sorted(self, key=lambda s: (-(s.total_s or 0.0), -s.calls, s.fingerprint.id))
        return [
            SlowQuery(
                fingerprint=s.fingerprint.id,
                calls=s.calls,
                total_s=s.total_s,
                mean_s=s.mean_s,
                max_s=s.max_s,
                lock_s=s.lock_s,
                rows_sent=s.rows_sent,
                rows_examined=s.rows_examined,
                sample=s.fingerprint.text if redact else s.sql,
                callers=tuple(sorted(s.callers, key=lambda place: -s.callers[place])),
            )
            for s in ranked[:limit]
        ]

    # --- files ---------------------------------------------------------------------------------

    def save(self, path: str | Path, *, values: bool = False) -> None:
        """Write the workload as JSON.

        Args:
            path: Where to.
            values: Keep literals and parameter values. Without them the file names no one's data,
                and the statements can be advised on but not measured.
        """
        data = {
            "format": _FORMAT,
            "dialect": self.dialect,
            "since": self.since,
            "notes": self.notes,
            "statements": [_to_json(s, values) for s in self],
        }
        with open(path, "w", encoding="utf-8", opener=private) as file:
            file.write(json.dumps(data, indent=1))

    @classmethod
    def load(cls, path: str | Path) -> Workload:
        """Read what :meth:`save` wrote.

        Raises:
            ConfigurationError: The file is something else.
        """
        try:
            data = json.loads(_read(path))
        except ValueError:
            data = None
        if not isinstance(data, dict) or data.get("format") != _FORMAT:
            raise ConfigurationError("path", str(path), f"a file of format {_FORMAT}")
        out = cls(data["dialect"], since=data["since"])
        out.notes = list(data["notes"])
        for row in data["statements"]:
            samples = [
                Sample(sql, None if v is None else decode(v), *took) for sql, v, *took in row.pop("samples")
            ]
            name = Fingerprint(*row.pop("fingerprint"))
            out._statements[name.id] = Statement(fingerprint=name, samples=samples, **row)
        return out

    @classmethod
    def from_sql_file(cls, path: str | Path, dialect: str = "sqlite") -> Workload:
        """Read a script; ``-- calls: N`` before a statement gives its weight (else 1)."""
        return cls._from_parts(split_lines(pieces(path), dialect), dialect, str(path))

    @classmethod
    def from_sql(cls, text: str, dialect: str = "sqlite", *, source: str = "text") -> Workload:
        """Read a script from a string; see :meth:`from_sql_file`.

        >>> w = Workload.from_sql("-- calls: 40\\nSELECT 1; SELECT a FROM t WHERE b = 2")
        >>> [s.calls for s in w]
        [40, 1]
        """
        return cls._from_parts(split(text, dialect), dialect, source)

    @classmethod
    def _from_parts(cls, parts: Iterable[list[Token]], dialect: str, source: str) -> Workload:
        out = cls(dialect, since=f"as weighted in {source}")
        for part in parts:
            notes = "".join(t.text for t in part if t.kind == "comment")
            found = _CALLS.search(notes)
            calls = int(found[1].replace("_", "")) if found else 1
            out.add("".join(t.text for t in part).strip(), calls=calls)
        return out

    @classmethod
    def from_source(cls, source: StatementSource, since: Duration | None = None) -> Workload:
        """Collect what a source has recorded.

        Args:
            source: Any object with ``dialect`` and ``read``.
            since: How far back, where the source knows times.

        Raises:
            SourceUnavailable: The source cannot be read; the error names the cure.
        """
        recording = source.read(None if since is None else seconds(since, name="since"))
        out = cls(source.dialect, since=recording.covers)
        for row in recording.rows:
            out.add(
                row.sql,
                calls=row.calls,
                total_s=row.total_s,
                max_s=row.max_s,
                lock_s=row.lock_s,
                rows_sent=row.rows_sent,
                rows_examined=row.rows_examined,
                samples=row.samples,
                callers=row.callers,
            )
        out.notes += recording.notes
        return out

    @classmethod
    def from_recorder(cls, recorder: _Recorder) -> Workload:
        """Take what a recorder has seen so far."""
        return recorder.workload()

    @classmethod
    def from_slow_log(cls, source: Any, since: Duration | None = None) -> Workload:
        """Read a MySQL or MariaDB slow log: a file's path, or an engine for ``mysql.slow_log``."""
        is_file = isinstance(source, (str, Path)) and "://" not in str(source)
        return cls.from_source(SOURCES.resolve("slow_log" if is_file else "slow_log_table")(source), since)

    @classmethod
    def from_performance_schema(cls, source: Any) -> Workload:
        """Read the statement digests of MySQL or MariaDB (cumulative since their reset)."""
        return cls.from_source(SOURCES.resolve("performance_schema")(source))

    @classmethod
    def from_pg_stat_statements(cls, source: Any) -> Workload:
        """Read ``pg_stat_statements`` (cumulative since its reset)."""
        return cls.from_source(SOURCES.resolve("pg_stat_statements")(source))


class _Recorder(Protocol):
    def workload(self) -> Workload: ...


def pieces(path: str | Path) -> Iterator[str]:
    """Yield a text file piece by piece.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", errors="replace") as file:
            while piece := file.read(_PIECE):
                yield piece
    except OSError as error:
        raise ConfigurationError("path", str(path), f"a readable file ({error.strerror})") from error


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise ConfigurationError("path", str(path), f"a readable file ({error.strerror})") from error


def _to_json(entry: Statement, values: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        name: getattr(entry, name)
        for name in ("calls", "total_s", "max_s", "lock_s", "rows_sent", "rows_examined", "callers", "looped")
    }
    row |= {"fingerprint": list(entry.fingerprint), "is_cut": entry.is_cut, "error": entry.error}
    if values:
        row["samples"] = [
            [s.sql, None if s.values is None else encode(s.values), s.seconds] for s in entry.samples
        ]
    else:
        row["samples"] = [[bind(entry.fingerprint.text.replace("?", ":x"), None).sql, None]]
    return row
