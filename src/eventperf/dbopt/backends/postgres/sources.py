"""Statements as PostgreSQL has counted them."""

from __future__ import annotations

import re
from typing import Any, Final

from eventperf._core.extras import require
from eventperf.dbopt.backends.connect import open_engine
from eventperf.dbopt.errors import SourceUnavailable
from eventperf.dbopt.statements.quiet import muted
from eventperf.dbopt.statements.source import Recorded, Recording

_SQL = """
SELECT s.query, s.calls, s.{total} / 1000.0, s.{slowest} / 1000.0, s.rows
FROM {view} s JOIN pg_database d ON d.oid = s.dbid
WHERE d.datname = current_database()
  AND s.query !~* '^\\s*(explain|deallocate|prepare|vacuum|analyze|create|drop|alter|show|copy|grant)'
ORDER BY s.{total} DESC LIMIT 5000
"""
# Where the extension is, and what it calls its times: its version stays behind when a server is upgraded.
_PLACE = """
SELECT quote_ident(n.nspname), EXISTS (
  SELECT 1 FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
  WHERE c.relnamespace = n.oid AND c.relname = 'pg_stat_statements' AND a.attname = 'total_exec_time')
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'pg_stat_statements'
"""


# What the optimizer itself asks is counted as nobody's, where its role may say so; only a superuser may.
UNCOUNTED: Final = (
    "SELECT set_config('pg_stat_statements.track', 'none', false) "
    "WHERE current_setting('is_superuser') = 'on' AND current_setting('pg_stat_statements.track', true) <> ''"
)
COUNTED: Final = "RESET pg_stat_statements.track"
_CURE: Final = (
    "load it in shared_preload_libraries, CREATE EXTENSION pg_stat_statements, grant pg_read_all_stats"
)
_CATALOG: Final = re.compile(
    r"\b(pg_catalog|information_schema|pg_class|pg_stats|pg_index(es)?|pg_attribute|pg_namespace|pg_database|"
    r"pg_constraint|pg_inherits|pg_collation|pg_extension|pg_settings|pg_stat_\w+|pg_locks|pg_type|"
    r"pg_advisory_\w+|hypopg\w*|to_regclass|set_config|current_setting)\b",
    re.IGNORECASE,
)


class PgStatStatements:
    """``pg_stat_statements`` of one database.

    Args:
        source: SQLAlchemy engine, or a URL.
    """

    dialect: str = "postgres"

    def __init__(self, source: Any) -> None:
        self._source = source

    def read(self, since_s: float | None, /) -> Recording:
        """Read all figures; they are cumulative, so ``since_s`` cannot narrow them.

        Raises:
            SourceUnavailable: The extension is not installed, not loaded, or not readable.
        """
        sqlalchemy = require("sqlalchemy", extra="dbopt", needed_by="Workload.from_pg_stat_statements")
        opened = open_engine(self._source, "source")
        try:
            opened.check()
            with muted(), opened.engine.connect() as db:
                place = db.exec_driver_sql(_PLACE).fetchone()
                if place is None:
                    raise SourceUnavailable("pg_stat_statements", _CURE)
                try:
                    rows = db.exec_driver_sql(_query(*place)).fetchall()
                except sqlalchemy.exc.DBAPIError as error:
                    raise SourceUnavailable("pg_stat_statements", _CURE) from error
                reset = _reset(db, sqlalchemy, place[0])
        finally:
            opened.close()
        visible = [row for row in rows if row[0] != "<insufficient privilege>"]
        shown = [row for row in visible if not _CATALOG.search(row[0])]
        out = Recording(
            covers=f"since the server's statistics were reset ({reset})",
            rows=[
                Recorded(sql=q, calls=int(n), total_s=float(total), max_s=float(slowest), rows_sent=int(sent))
                for q, n, total, slowest, sent in shown
            ],
        )
        if len(visible) < len(rows):
            out.notes.append("statements of other users are hidden: grant pg_read_all_stats")
        return out


def _query(place: str, is_new: bool) -> str:
    total, slowest = ("total_exec_time", "max_exec_time") if is_new else ("total_time", "max_time")
    return _SQL.format(view=f"{place}.pg_stat_statements", total=total, slowest=slowest)


def _reset(db: Any, sqlalchemy: Any, place: str) -> str:
    try:
        return str(db.exec_driver_sql(f"SELECT stats_reset FROM {place}.pg_stat_statements_info").scalar())
    except sqlalchemy.exc.DBAPIError:  # before PostgreSQL 14
        return "at an unknown time"
