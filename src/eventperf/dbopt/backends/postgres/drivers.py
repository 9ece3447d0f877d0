"""psycopg and psycopg2 behind one face: the backend calls psycopg's, and psycopg2's connections learn it."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import Any, Final

_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def connection_of(fairy: Any) -> Any:
    """Return a pooled connection's own, with the calls of psycopg's."""
    db = fairy.driver_connection
    return _Connection(db) if type(db).__module__.startswith("psycopg2") else db


def pour(source: Any, out: str, db: Any, into: str) -> int:
    """Copy what the statement ``out`` tells of one connection by ``into`` of another; return the rows."""
    with source.cursor() as reading, db.cursor() as writing:
        if isinstance(source, _Connection) or isinstance(db, _Connection):
            with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as file:
                reading.copy_expert(out, file)
                file.seek(0)
                writing.copy_expert(into, file)
        else:
            with reading.copy(out) as blocks, writing.copy(into) as copy:
                for block in blocks:
                    copy.write(block)
        rows: int = writing.rowcount
        return rows


def sqlstate(error: Any) -> str | None:
    """Return the five letters of an error of either driver."""
    code: str | None = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return code


class _Connection:
    """A connection of psycopg2."""

    def __init__(self, db: Any) -> None:
        self._db = db

    @property
    def closed(self) -> bool:
        return bool(self._db.closed)

    @property
    def autocommit(self) -> bool:
        return bool(self._db.autocommit)

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._db.autocommit = value

    def rollback(self) -> None:
        self._db.rollback()

    def commit(self) -> None:
        self._db.commit()

    def cancel(self) -> None:
        self._db.cancel()

    def cursor(self) -> _Cursor:
        return _Cursor(self._db.cursor())

    def execute(self, sql: str, values: Any = None, *, prepare: bool | None = None) -> _Cursor:
        del prepare  # psycopg2 prepares nothing
        return self.cursor().execute(sql, values)


class _Cursor:
    """A cursor of psycopg2 whose ``execute`` returns it, and that copies rows."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def __enter__(self) -> _Cursor:
        return self

    def __exit__(self, *exc: object) -> None:
        self._cursor.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._cursor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def execute(self, sql: str, values: Any = None) -> _Cursor:
        self._cursor.execute(sql, None if values is None else _sent(values))
        return self

    @contextmanager
    def copy(self, sql: str) -> Iterator[_Rows]:
        rows = _Rows()
        yield rows
        rows.text.seek(0)
        self._cursor.copy_expert(sql, rows.text)


class _Rows:
    """Rows of texts on their way into COPY."""

    def __init__(self) -> None:
        self.text: StringIO = StringIO()

    def write_row(self, row: Sequence[str | None]) -> None:
        cells = ("\\N" if v is None else v.translate(_ESCAPES) for v in row)
        self.text.write("\t".join(cells) + "\n")


def _sent(values: Any) -> Any:
    """Return parameters in types that psycopg2 sends: it knows neither UUIDs nor mappings."""
    if isinstance(values, dict):
        return {name: _adapted(v) for name, v in values.items()}
    return tuple(_adapted(v) for v in values)


def _adapted(value: Any) -> Any:
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, dict):
        return json.dumps(value, default=str)
    return [_adapted(v) for v in value] if isinstance(value, list) else value
