"""Databases of somebody else's for tests, and every form of every rule for statements on them."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlglot import exp

from eventperf.dbopt import DatabaseOptimizer
from eventperf.dbopt.analysis.names import analyse
from eventperf.dbopt.rewrites.known import is_open
from eventperf.dbopt.rewrites.proof import multiset, tables_of
from eventperf.dbopt.rewrites.rules import RULES
from eventperf.dbopt.rewrites.tree import text_of
from eventperf.dbopt.rewrites.trust import cuts_by_chance
from eventperf.dbopt.rewrites.verify import in_order, places
from foreign import Foreign

_numbers = itertools.count()


@contextlib.contextmanager
def place(dialect: str, request: Any, folder: Path) -> Iterator[tuple[str, str | None]]:
    """Yield the URLs of an empty database, and of one for what-if where the engine wants it."""
    if dialect == "sqlite":
        file = folder / f"{next(_numbers)}.db"
        file.touch()
        yield f"sqlite:///{file}", None
        return
    server = request.getfixturevalue("postgres_server" if dialect == "postgres" else "mariadb_server")
    with server.fresh_database() as url, server.fresh_database() as what_if:
        yield url, what_if


class Asked:
    """A database filled from a seed; it runs texts as they are, in auto-commit."""

    def __init__(self, foreign: Foreign, url: str) -> None:
        options = {"no_parameters": True}
        self.engine = create_engine(url, isolation_level="AUTOCOMMIT", execution_options=options)
        self.db = self.engine.connect()
        if foreign.dialect == "mysql":
            self.rows("SET SESSION sql_mode = ''")
        for sql in (*foreign.ddl, *foreign.inserts):
            self.rows(sql)
        if foreign.dialect == "postgres":
            self.rows("ANALYZE")

    def rows(self, sql: str) -> Counter[tuple[Any, ...]]:
        found = self.db.exec_driver_sql(sql)
        return multiset([tuple(row) for row in found]) if found.returns_rows else Counter()

    def difference(self, pair: Pair) -> Any:
        """Return the rows that are lost and gained, or what stands in another order."""
        before, after = (list(map(tuple, self.db.exec_driver_sql(t))) for t in (pair.before, pair.after))
        one, two = multiset(before), multiset(after)
        if one != two:
            return one - two, two - one
        orders = [in_order(rows, pair.sorted_by) for rows in (before, after)]
        return orders if orders[0] != orders[1] else None

    def takes(self, sql: str) -> bool:
        try:
            self.rows(sql if sql.startswith(("SELECT", "WITH")) else f"EXPLAIN {sql}")
        except DBAPIError:
            return False
        return True

    def close(self) -> None:
        self.db.close()
        self.engine.dispose()


class Pair(NamedTuple):
    """A statement as it was written, and a form of it; neither has a LIMIT that keeps rows by chance."""

    rule: str
    before: str
    after: str
    sorted_by: list[int]


def forms(sqls: Iterable[str], optimizer: DatabaseOptimizer) -> Iterator[Pair]:
    """Yield each form of each rule."""
    dialect: Any = optimizer.dialect
    schema = dialect.schema()
    for sql in sqls:
        analysis = analyse(sql, schema)
        tree = analysis.tree
        if not isinstance(tree, (exp.Select, exp.SetOperation)) or not is_open(
            analysis.sql, tree, dialect.name
        ):
            continue
        tables = tables_of(tree, schema)
        promised = dialect.promised(schema, [t.name for t in tables]) if tables else schema
        by_chance = cuts_by_chance(tree, promised)
        for rule in RULES:
            for form in rule.forms(tree, promised):
                one, other = tree.copy(), form.tree.copy()
                for each in (one, other) if by_chance else ():
                    each.set("limit", None)
                    each.set("offset", None)
                before = text_of(one, dialect.name) if by_chance else sql
                yield Pair(form.rule, before, text_of(other, dialect.name), places(tree))
