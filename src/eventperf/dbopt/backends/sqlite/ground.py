"""A copy of a SQLite database, to build indexes on and to measure with.

It is SQLite's own temporary database: pages in memory first, then in a file that has no name any more when it
is opened, so that nothing stays of it however the process ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Final

from eventperf.dbopt.errors import StatementRefused
from eventperf.dbopt.protocols import Measurement
from eventperf.dbopt.schema.ddl import create_index_sql, quote
from eventperf.dbopt.schema.model import IndexSpec, Schema
from eventperf.dbopt.statements.workload import Sample

from .harmless import harm
from .running import measured
from .what_if import ScratchPlanner

#: A larger file is not copied for a proof.
_MOST_BYTES: Final = 1 << 30
_PAGES: Final = 2_000
#: The application's writers have to get between two parts of the copy.
_REST_S: Final = 0.001


class CopyGround:
    """The whole file, as of one moment.

    Args:
        sqlite3: The driver.
        db: The copy.
        size: Its bytes.
    """

    place: str = "a copy of the file"

    def __init__(self, sqlite3: Any, db: Any, size: int) -> None:
        self._sqlite3, self._db = sqlite3, db
        self.copied: Sequence[str] = [f"the whole file, {size:,} bytes, for measurements; it is gone again"]

    def unfit(self, table: str, /) -> str | None:
        return None

    def harm(self, sql: str, /) -> str | None:
        """Return why a statement is not run here."""
        return harm(self._db, sql)

    def build(self, spec: IndexSpec, name: str, /, *, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        self._db.set_progress_handler(lambda: time.monotonic() > end, 10_000)
        statement = create_index_sql(spec, name, "sqlite")
        try:
            self._db.execute(statement)
            self._db.execute(f"ANALYZE {quote(spec.table, 'sqlite')}")
        except self._sqlite3.Error as error:
            with suppress(self._sqlite3.Error):
                self._db.set_progress_handler(None, 0)
                self._db.execute(f"DROP INDEX IF EXISTS {quote(name, 'sqlite')}")
            raise StatementRefused(statement, str(error)) from error
        finally:
            self._db.set_progress_handler(None, 0)

    def drop(self, name: str, table: str, /) -> None:
        self._db.execute(f"DROP INDEX {quote(name, 'sqlite')}")

    def measure(self, samples: Sequence[Sample], *, runs: int, timeout_s: float) -> Measurement | None:
        return measured(self._sqlite3, self._db, samples, runs=runs, timeout_s=timeout_s)


class CopiedPlanner(ScratchPlanner):
    """The planner on an empty scratch copy, with a full one for measurements when they are asked for."""

    def __init__(
        self,
        sqlite3: Any,
        schema: Schema,
        ddl: Sequence[Any],
        stats: Sequence[Any],
        source: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        super().__init__(sqlite3, schema, ddl, stats)
        self._source = source

    def ground(self, *, timeout_s: float) -> AbstractContextManager[CopyGround]:
        """Copy the file; see :class:`CopyGround`."""
        return copied(self._sqlite3, self._source, timeout_s)


@contextmanager
def copied(
    sqlite3: Any, source: Callable[[], AbstractContextManager[Any]], timeout_s: float
) -> Iterator[CopyGround]:
    """Copy a database, unless it is too large or takes too long."""
    db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    try:
        with source() as real:
            size = _size(real)
            if size > _MOST_BYTES:
                reason = f"the file has {size:,} bytes, and no more than {_MOST_BYTES:,} are copied"
                raise StatementRefused("copy", reason)
            _copy(sqlite3, real, db, timeout_s)
        yield CopyGround(sqlite3, db, size)
    finally:
        db.close()


def _size(db: Any) -> int:
    pages, each = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    return int(pages) * int(each)


def _copy(sqlite3: Any, real: Any, db: Any, timeout_s: float) -> None:
    end = time.monotonic() + timeout_s

    def check(status: int, remaining: int, total: int) -> None:
        if time.monotonic() > end:
            raise TimeoutError

    try:
        real.backup(db, pages=_PAGES, progress=check, sleep=_REST_S)
    except TimeoutError:
        raise StatementRefused("copy", f"to copy the file took more than {timeout_s:.1f} s") from None
    except (sqlite3.Error, AttributeError, TypeError) as error:  # or another driver's connection
        raise StatementRefused("copy", f"the file could not be copied: {error}") from error
