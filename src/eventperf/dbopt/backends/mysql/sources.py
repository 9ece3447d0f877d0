"""Statements as MySQL and MariaDB have logged or counted them."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require
from eventperf.dbopt.backends.connect import open_engine
from eventperf.dbopt.errors import SourceUnavailable
from eventperf.dbopt.statements.quiet import muted
from eventperf.dbopt.statements.source import Recorded, Recording

_FIGURES: Final = re.compile(
    r"Query_time:\s*(?P<time>[\d.]+)\s+Lock_time:\s*(?P<lock>[\d.]+)\s+"
    r"Rows_sent:\s*(?P<sent>\d+)\s+Rows_examined:\s*(?P<examined>\d+)"
)
_BEGINS: Final = re.compile(r"# (?:Time|User@Host|Thread_id|Query_time):?\s")
_BANNER: Final = re.compile(
    r"(?:\S.*, Version: .*started with:|Tcp port: .*socket: .*|Time\s+Id\s+Command\s+Argument)\s*$"
)
_LONGEST_BANNER: Final = 1_000
_LONGEST: Final = 1 << 20
_TEXTS: Final = ("select", "insert", "update", "delete", "with", "replace", "use", "set", "(")
#: Percona Server may log one of so many statements, or of so many sessions, and says so in each entry.
_RATE: Final = re.compile(r"Log_slow_rate_type:\s*\w+\s+Log_slow_rate_limit:\s*(\d+)")
_STAMP: Final = re.compile(r"SET timestamp=(\d+)", re.IGNORECASE)

# The log is a CSV table without an index: one scan, and the newest first are kept.
_TABLE: Final = """
SELECT CONVERT(sql_text USING utf8mb4), TIME_TO_SEC(query_time) + MICROSECOND(query_time) / 1e6,
       TIME_TO_SEC(lock_time) + MICROSECOND(lock_time) / 1e6, rows_sent, rows_examined
FROM mysql.slow_log
WHERE db = DATABASE() AND start_time >= NOW(6) - INTERVAL %s SECOND
ORDER BY start_time DESC LIMIT 50000
"""
_DIGESTS: Final = """
SELECT DIGEST_TEXT, COUNT_STAR, SUM_TIMER_WAIT / 1e12, MAX_TIMER_WAIT / 1e12, SUM_LOCK_TIME / 1e12,
       SUM_ROWS_SENT, SUM_ROWS_EXAMINED
FROM performance_schema.events_statements_summary_by_digest
WHERE SCHEMA_NAME = DATABASE() AND DIGEST_TEXT IS NOT NULL
ORDER BY SUM_TIMER_WAIT DESC LIMIT 5000
"""


@contextmanager
def _connect(source: Any, needed_by: str) -> Iterator[tuple[Any, Any]]:
    sqlalchemy = require("sqlalchemy", extra="dbopt", needed_by=needed_by)
    opened = open_engine(source, "source")
    try:
        opened.check()
        with muted(), opened.engine.connect() as db:
            yield db, sqlalchemy
    finally:
        opened.close()


class SlowLogTable:
    """``mysql.slow_log`` of one database, by the server's own clock and time zone.

    Args:
        source: SQLAlchemy engine, or a URL.
    """

    dialect: str = "mysql"

    def __init__(self, source: Any) -> None:
        self._source = source

    def read(self, since_s: float | None, /) -> Recording:
        """Read the last day, or another period.

        Raises:
            SourceUnavailable: The table cannot be read.
        """
        period = 86_400.0 if since_s is None else since_s
        with _connect(self._source, "Workload.from_slow_log") as (db, sqlalchemy):
            try:
                rows = db.exec_driver_sql(_TABLE, (period,)).fetchall()
            except sqlalchemy.exc.DBAPIError as error:
                raise SourceUnavailable(
                    "mysql.slow_log", "grant SELECT on it, and SET GLOBAL log_output = 'TABLE'"
                ) from error
        found = (_recorded(_Entry(0, 1, float(r[1]), float(r[2]), int(r[3]), int(r[4]), r[0])) for r in rows)
        return Recording(covers=f"slow log of the last {period:g} s", rows=filter(None, found))


class Digests:
    """Statement digests of performance_schema: cumulative since their reset.

    Args:
        source: SQLAlchemy engine, or a URL.
    """

    dialect: str = "mysql"

    def __init__(self, source: Any) -> None:
        self._source = source

    def read(self, since_s: float | None, /) -> Recording:
        """Read all digests.

        Raises:
            SourceUnavailable: It is off, or not readable.
        """
        with _connect(self._source, "Workload.from_performance_schema") as (db, sqlalchemy):
            try:
                rows = db.exec_driver_sql(_DIGESTS).fetchall()
            except sqlalchemy.exc.DBAPIError as error:
                cure = "start the server with performance_schema=ON and grant SELECT on it"
                raise SourceUnavailable("performance_schema", cure) from error
        return Recording(
            covers="since the digests were reset",
            rows=[
                Recorded(
                    sql=text,
                    calls=int(calls),
                    total_s=float(total),
                    max_s=float(slowest),
                    lock_s=float(lock),
                    rows_sent=int(sent),
                    rows_examined=int(examined),
                )
                for text, calls, total, slowest, lock, sent, examined in rows
            ],
        )


class SlowLogFile:
    """A slow log file; a period counts back from its last entry, so no clock has to agree.

    Args:
        path: The file.
    """

    dialect: str = "mysql"

    def __init__(self, path: str | Path) -> None:
        self._path = path

    def read(self, since_s: float | None, /) -> Recording:
        """Read the file: once for what it covers, then entry by entry; no more than one is held.

        Raises:
            ConfigurationError: It cannot be read.
        """
        last, thinned = 0, 1
        for entry in self._entries():
            last, thinned = max(last, entry.stamp), max(thinned, entry.stands_for)
        shown = "the whole file" if since_s is None else f"the last {since_s:g} s of the file"
        if last:
            end = dt.datetime.fromtimestamp(last, dt.timezone.utc)
            shown += f", which ends {end:%Y-%m-%d %H:%M:%S} UTC"
        shown += f"; up to {thinned} calls for each entry (log_slow_rate_limit)" if thinned > 1 else ""
        since = 0.0 if since_s is None else last - since_s
        found = (_recorded(e) for e in self._entries() if not e.stamp or e.stamp >= since)
        return Recording(covers=shown, rows=filter(None, found))

    def _entries(self) -> Iterator[_Entry]:
        try:
            with Path(self._path).open(encoding="utf-8", errors="replace") as file:
                yield from _entries(_lines(file))
        except OSError as error:
            allowed = f"a readable slow log ({error.strerror})"
            raise ConfigurationError("path", str(self._path), allowed) from error


def _lines(file: TextIO) -> Iterator[str]:
    """Yield lines; what is longer than a statement that could be analysed is cut, as servers cut texts."""
    is_rest = False
    while line := file.readline(_LONGEST):
        if not is_rest:
            yield line
        is_rest = not line.endswith("\n")


class _Entry(NamedTuple):
    """One entry of a log: when it was written, how many calls it stands for, and what one of them took."""

    stamp: int
    stands_for: int
    took: float
    lock: float
    sent: int
    examined: int
    sql: str


def _entries(lines: Iterable[str]) -> Iterator[_Entry]:
    """Cut a log into entries: comment lines with the figures, then the text up to the next ones.

    What stands between them differs between MySQL, MariaDB and their versions; a text may hold comments
    that begin with ``#`` too.
    """
    figures: re.Match[str] | None = None
    rate = 1
    body: list[str] = []
    length = 0
    in_head = False
    for line in lines:
        if len(line) < _LONGEST_BANNER and _BANNER.match(line):
            continue
        if line.startswith("#") and (in_head or _BEGINS.match(line)):
            if not in_head and figures is not None:
                yield _entry(figures, rate, body)
                figures = None
            if not in_head:
                body, length, rate = [], 0, 1
            in_head = True
            thinned = _RATE.search(line)
            rate = int(thinned[1]) or 1 if thinned is not None else rate
            figures = _FIGURES.search(line) or figures
        else:
            in_head = False
            if length < _LONGEST and not line.startswith("# administrator command"):
                body.append(line.rstrip("\r\n"))
                length += len(line)
    if figures is not None:
        yield _entry(figures, rate, body)


def _entry(figures: re.Match[str], rate: int, body: list[str]) -> _Entry:
    sql = "\n".join(body).strip()
    stamp = _STAMP.search(sql)
    return _Entry(
        int(stamp[1]) if stamp else 0,
        rate,
        float(figures["time"]),
        float(figures["lock"]),
        int(figures["sent"]),
        int(figures["examined"]),
        sql,
    )


def _recorded(entry: _Entry) -> Recorded | None:
    """Return one entry, where its text is one that indexes or rewrites could help."""
    if not entry.sql.lstrip().lower().startswith(_TEXTS):
        return None
    calls = entry.stands_for
    return Recorded(
        sql=entry.sql,
        calls=calls,
        total_s=entry.took * calls,
        max_s=entry.took,
        lock_s=entry.lock * calls,
        rows_sent=entry.sent * calls,
        rows_examined=entry.examined * calls,
    )
