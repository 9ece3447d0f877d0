"""Small tables to run both forms on."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from sqlglot import exp

from eventperf.dbopt.schema.ddl import quote
from eventperf.dbopt.schema.model import Column, Schema, Table
from eventperf.dbopt.schema.types import category

from .tree import Node, table_of


class Lab:
    """Temporary tables of one connection, gone at the end."""

    def __init__(self, connection: Any, schema: Schema, tables: Sequence[Table], dialect: str) -> None:
        self.schema = schema
        self._db, self._dialect, self._tables = connection, dialect, tables
        self._made: list[str] = []
        last = [t.name.rpartition(".")[2].lower() for t in tables]
        # Two schemas may have a table of one name: both stand side by side here.
        self._names = {
            t.name: t.name.rpartition(".")[2] if last.count(n) == 1 else t.name.replace(".", "__")
            for t, n in zip(tables, last, strict=True)
        }

    def __enter__(self) -> Lab:
        try:
            for table in self._tables:
                self._make(table)
        except BaseException:
            self._drop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._drop()

    def _run(self, sql: str, rows: Sequence[Any] | None = None) -> list[Any]:
        cursor = self._db.cursor()
        try:
            if rows is None:
                cursor.execute(sql)
                return list(cursor.fetchall()) if cursor.description else []
            cursor.executemany(sql, rows)
            return []
        finally:
            cursor.close()

    def _make(self, table: Table) -> None:
        q = self._quote
        parts = []
        for column in table.columns.values():
            type_ = _plain_type(column.type, self._dialect)
            collation = self._collation(column)
            parts.append(f"{q(column.name)} {type_}{collation}{'' if column.nullable else ' NOT NULL'}")
        if table.primary_key:
            parts.append(f"PRIMARY KEY ({', '.join(map(q, table.primary_key))})")
        name = self._names[table.name]
        self._run(f"CREATE TEMPORARY TABLE {q(name)} ({', '.join(parts)})")
        self._made.append(name)

    def _collation(self, column: Column) -> str:
        if column.collation is None or self._dialect != self.schema.dialect:
            return ""
        name = column.collation
        return f" COLLATE {name if self._dialect == 'mysql' else self._quote(name)}"

    def _quote(self, name: str) -> str:
        return quote(name, self._dialect)

    def _drop(self) -> None:
        word = {"mysql": "TEMPORARY TABLE", "sqlite": "TABLE", "postgres": "TABLE"}[self._dialect]
        place = {"mysql": "", "sqlite": "temp.", "postgres": "pg_temp."}[self._dialect]
        for name in self._made:
            with contextlib.suppress(Exception):  # the session's end drops them as well
                self._run(f"DROP {word} {place}{self._quote(name)}")
        self._made.clear()

    def fill(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """Replace a table's rows."""
        name = self._quote(self._names[table.name])
        self._run(f"DELETE FROM {name}")
        if rows:
            mark = "?" if self._dialect == "sqlite" else "%s"
            self._run(f"INSERT INTO {name} VALUES ({', '.join([mark] * len(table.columns))})", rows)

    def rows(self, tree: Node) -> list[Any]:
        """Run one form; what its top LIMIT would keep of equal ranks is not defined, so all rows count."""
        bare = tree.copy()
        if isinstance(bare, (exp.Select, exp.SetOperation)):
            bare.set("limit", None)
            bare.set("offset", None)
        for source in list(bare.find_all(exp.Table)):
            table = table_of(source, self.schema)
            if table is not None and table.name in self._names:
                if self._names[table.name] != source.name and not source.alias:
                    source.set("alias", exp.TableAlias(this=source.this.copy()))
                source.set("this", exp.to_identifier(self._names[table.name], quoted=source.this.quoted))
            source.set("db", None)
            source.set("catalog", None)
        for column in bare.find_all(exp.Column):
            column.set("db", None)
        return self._run(bare.sql(dialect=self._dialect))


def _plain_type(type_: str, dialect: str) -> str:
    family = category(type_)
    if dialect == "mysql":
        return type_
    if dialect == "postgres":
        return type_ if family != "other" and "enum" not in type_ else "text"
    return {"int": "INTEGER", "num": "REAL", "bool": "BOOLEAN"}.get(family, "TEXT")
