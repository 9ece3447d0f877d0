"""Try to prove two statements different, on small tables made for that purpose.

Rows are drawn from the statement's own constants and their neighbours, with NULLs wherever the schema
allows them, duplicates wherever no key forbids them, and empty tables. Equality on all of them proves
nothing by itself; a rule's condition does. It catches rules that are wrong, which conditions do not.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import random
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from sqlglot import exp

from .rewrite_tree import Node, inlined
from .schema.ddl import quote
from .schema.model import Schema, Table
from .schema.types import category

_ROUNDS: Final = 60
_ENOUGH: Final = 12
_SECONDS: Final = 4.0


@dataclass(frozen=True, slots=True)
class Trial:
    """The outcome of a comparison on made rows.

    Attributes:
        equal: No difference was seen; ``None`` when nothing could be compared.
        sets: How many sets of tables were tried.
        with_rows: In how many of them the statement found something.
        note: Why nothing could be compared, or which rows differed.
        where: The engine that ran both.
    """

    equal: bool | None
    sets: int = 0
    with_rows: int = 0
    note: str = ""
    where: str = ""


def multiset(rows: Sequence[Sequence[Any]]) -> Counter[tuple[Any, ...]]:
    """Return rows as a multiset; floats agree to nine digits, since sums depend on their order.

    >>> multiset([(0.1 + 0.2, None)]) == multiset([(0.3, None)])
    True
    """
    return Counter(tuple(map(_normal, row)) for row in rows)


def _normal(value: Any) -> Any:
    if isinstance(value, (float, Decimal)):
        return f"{float(value):.9g}"
    return value if value is None or isinstance(value, (int, str, bytes)) else repr(value)


def compare(
    before: Node, after: Node, schema: Schema, connection: Any = None, *, seed: int = 7, rounds: int = _ROUNDS
) -> Trial:
    """Run both forms on adversarial tables.

    Args:
        before: The statement.
        after: The other form.
        schema: Types, nullability and keys that the rows must respect.
        connection: A DBAPI connection to a what-if database of the same engine; temporary tables are made
            in it. Without one, both forms are translated and run on SQLite.
        seed: Of the draw.
        rounds: At most this many sets of tables.
    """
    names = {t.name for t in before.find_all(exp.Table)}
    ctes = {c.alias for c in before.find_all(exp.CTE)}
    tables = [schema.table(n) for n in sorted(names - ctes)]
    if any(t is None for t in tables):
        return Trial(None, note="it reads something that is not a table")
    known = [t for t in tables if t is not None]
    if connection is not None:
        try:
            with _Lab(connection, schema.dialect, known) as lab:
                return _try(lab, before, after, known, random.Random(seed), rounds // 3, schema.dialect)
        except Exception as error:
            note = str(error).splitlines()[0][:120]
    else:
        note = ""
    own = sqlite3.connect(":memory:", isolation_level=None)
    try:
        with _Lab(own, "sqlite", known) as lab:
            where = "sqlite" if schema.dialect == "sqlite" else f"SQLite, translated from {schema.dialect}"
            return _try(lab, before, after, known, random.Random(seed), rounds, where)
    except Exception as error:  # a statement this engine cannot run proves nothing, and says so
        return Trial(None, note=note or str(error).splitlines()[0][:120])
    finally:
        own.close()


def _try(
    lab: _Lab,
    before: Node,
    after: Node,
    tables: Sequence[Table],
    draw: random.Random,
    rounds: int,
    where: str,
) -> Trial:
    domains = {t.name: _domains(before, t) for t in tables}
    filled = done = 0
    end = time.monotonic() + _SECONDS
    for number in range(rounds):
        if filled >= _ENOUGH or time.monotonic() > end:
            break
        few, hit = draw.choice([1, 2, 3]), draw.random() < 0.6
        for table in tables:
            lab.fill(table, [] if number == 0 else _rows(table, domains[table.name], draw, few, hit))
        numbers = [draw.choice([0, 1, 2, 3]) for _ in range(200)]

        def value(n: int, numbers: Sequence[Any] = numbers) -> Any:
            return numbers[n % 200]

        one, two = (multiset(lab.rows(inlined(t, value))) for t in (before, after))
        done += 1
        if one != two:
            lost, gained = list((one - two).elements())[:2], list((two - one).elements())[:2]
            return Trial(False, done, filled, f"lost {lost}, gained {gained}", where)
        filled += bool(one)
    return Trial(True, done, filled, where=where)


# --- rows ---------------------------------------------------------------------------------------


def _domains(tree: Node, table: Table) -> dict[str, tuple[list[Any], list[Any]]]:
    """Return the values each column may take: constants it is compared with, their neighbours, and a few."""
    found: dict[str, list[Any]] = {c.lower(): [] for c in table.columns}
    for node in tree.find_all(exp.Predicate):
        if node.find(exp.Select) is not None and not isinstance(node, exp.In):
            continue
        literals = [n for n in node.find_all(exp.Literal) if n.find_ancestor(exp.Predicate) is node]
        for column in node.find_all(exp.Column):
            if column.name.lower() in found:
                found[column.name.lower()] += [n.name for n in literals]
    return {c.name: _values(c.type, found[c.name.lower()]) for c in table.columns.values()}


def _values(type_: str, literals: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Return values that constants of the statement suggest, and a few others."""
    family = category(type_)
    hits: list[Any] = []
    if family in ("int", "num"):
        for text in literals:
            with contextlib.suppress(ValueError):
                number = float(text)
                hits += (
                    [number - 1, number, number + 1] if family == "num" else [int(number), int(number) + 1]
                )
        return hits, [1, 2, 3] if family == "int" else [1.0, 2.0, 5.0]
    if family in ("date", "time", "zoned"):
        for text in literals:
            with contextlib.suppress(ValueError):
                day = dt.date.fromisoformat(text[:10])
                hits += [day, day + dt.timedelta(days=1), day - dt.timedelta(days=1)]
        each = ([d.isoformat() for d in days] for days in (hits, [dt.date(1995, 1, 15), dt.date(2026, 5, 1)]))
        return tuple(  # type: ignore[return-value]
            t if family == "date" else [f"{d} {h}" for d in t for h in ("00:00:00", "13:14:15")] for t in each
        )
    if family == "bool":
        return [True, False], []
    if family == "text":
        if type_.lower().startswith("enum"):
            return re.findall(r"'([^']*)'", type_), []
        length = re.search(r"\((\d+)\)", type_)
        cut = int(length[1]) if length else 1_000
        for text in literals:
            bare = text.replace("%", "").replace("_", "x")
            hits += [bare[:cut], text.replace("%", "q").replace("_", "x")[:cut]]
        return hits, ["a", "b", "", *(h.upper() for h in hits)]
    if not type_:
        return [], [1, 2, "a"]
    raise ValueError(f"no rows can be made for type {type_}")


def _rows(
    table: Table, domains: dict[str, tuple[list[Any], list[Any]]], draw: random.Random, few: int, hit: bool
) -> list[tuple[Any, ...]]:
    """Draw few rows from few values: conditions and joins must hit, keys must repeat where they may."""
    keys = [k for k in (table.primary_key, *table.unique_sets) if k]
    chosen: dict[str, list[Any]] = {}
    for column in table.columns.values():
        hits, others = domains[column.name]
        pool = hits if hits and hit else [*hits, *others]
        if hits:
            pool = draw.sample(pool, min(len(pool), draw.choice([1, 2, 3])))
        elif not any(column.name in k for k in keys):
            pool = pool[:few]  # the same few values in every table, so that joins find partners
        chosen[column.name] = pool
        if column.nullable and draw.random() < 0.6:
            chosen[column.name] = [*pool, None]
    out: list[tuple[Any, ...]] = []
    seen: dict[tuple[str, ...], set[Any]] = {k: set() for k in keys}
    names = list(table.columns)
    for _ in range(draw.choice([0, 1, 4, 8, 12, 12])):
        row = {name: draw.choice(chosen[name]) for name in names}
        marks = {k: tuple(str(row[c]).lower() for c in k if c in row) for k in keys}
        clash = any(marks[k] in seen[k] for k in keys if all(row.get(c) is not None for c in k))
        if clash or any(row.get(c) is None for c in table.primary_key):
            continue
        for key, mark in marks.items():
            seen[key].add(mark)
        out.append(tuple(row[name] for name in names))
    return out


# --- tables -------------------------------------------------------------------------------------


class _Lab:
    """Temporary tables of one connection, gone at the end."""

    def __init__(self, connection: Any, dialect: str, tables: Sequence[Table]) -> None:
        self._db, self._dialect, self._tables = connection, dialect, tables
        self._made: list[str] = []

    def __enter__(self) -> _Lab:
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
            parts.append(f"{q(column.name)} {type_}{'' if column.nullable else ' NOT NULL'}")
        if table.primary_key:
            parts.append(f"PRIMARY KEY ({', '.join(map(q, table.primary_key))})")
        name = table.name.rpartition(".")[2]
        self._run(f"CREATE TEMPORARY TABLE {q(name)} ({', '.join(parts)})")
        self._made.append(name)

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
        name = self._quote(table.name.rpartition(".")[2])
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
        for table in bare.find_all(exp.Table):
            table.set("db", None)
            table.set("catalog", None)
        return self._run(bare.sql(dialect=self._dialect))


def _plain_type(type_: str, dialect: str) -> str:
    family = category(type_)
    if dialect == "mysql":
        return type_
    if dialect == "postgres":
        return type_ if family != "other" and "enum" not in type_ else "text"
    return {"int": "INTEGER", "num": "REAL", "bool": "BOOLEAN"}.get(family, "TEXT")


def sample_rows(before: Node, after: Node, tables: Iterator[tuple[Table, list[Any]]]) -> Trial:
    """Run both forms on samples of the real rows, in SQLite's memory, where the real ones take too long."""
    own = sqlite3.connect(":memory:", isolation_level=None)
    end = time.monotonic() + _SECONDS
    own.set_progress_handler(lambda: time.monotonic() > end, 20_000)
    given = list(tables)
    try:
        with _Lab(own, "sqlite", [t for t, _ in given]) as lab:
            for table, rows in given:
                lab.fill(table, [tuple(map(_storable, r)) for r in rows])
            one, two = (multiset(lab.rows(t)) for t in (before, after))
            return Trial(one == two, 1, int(bool(one)), where="SQLite")
    except Exception as error:
        return Trial(None, note=str(error).splitlines()[0][:120])
    finally:
        own.close()


def _storable(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    return value if value is None or isinstance(value, (int, float, str, bytes)) else str(value)
