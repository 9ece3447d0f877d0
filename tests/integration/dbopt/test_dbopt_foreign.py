"""Random schemas that nobody here made: every valid statement is read, and every form gives the same rows."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlglot import exp

from eventperf.dbopt import Advice, DatabaseOptimizer, Workload
from eventperf.dbopt.analysis.names import analyse
from eventperf.dbopt.rewrites.known import is_known
from eventperf.dbopt.rewrites.proof import multiset, tables_of
from eventperf.dbopt.rewrites.rules import RULES
from eventperf.dbopt.rewrites.tree import text_of
from eventperf.dbopt.rewrites.trust import cuts_by_chance
from foreign import DIALECTS, Foreign

FEW = [pytest.param(dialect, range(1), id=dialect) for dialect in DIALECTS]
MANY = [pytest.param(d, range(100, 180), id=f"{d}-long", marks=pytest.mark.long) for d in DIALECTS]
_numbers = itertools.count()
pytestmark = pytest.mark.timeout(3_600)  # the long ones; nothing here depends on how long it takes


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

    def takes(self, sql: str) -> bool:
        try:
            self.rows(sql if sql.startswith(("SELECT", "WITH")) else f"EXPLAIN {sql}")
        except DBAPIError:
            return False
        return True

    def close(self) -> None:
        self.db.close()
        self.engine.dispose()


def forms(sqls: Iterable[str], optimizer: DatabaseOptimizer) -> Iterator[tuple[str, str, str, str]]:
    """Yield (rule, statement, one text, other text) for each form of each rule; both texts without a LIMIT
    that keeps rows by chance."""
    dialect: Any = optimizer.dialect
    schema = dialect.schema()
    for sql in sqls:
        tree = analyse(sql, schema).tree
        if not isinstance(tree, (exp.Select, exp.SetOperation)) or not is_known(tree):
            continue
        tables = tables_of(tree, schema)
        promised = dialect.promised(schema, [t.name for t in tables]) if tables else schema
        by_chance = cuts_by_chance(tree, promised)
        for rule in RULES:
            for form in rule.forms(tree, promised):
                pair = [tree.copy(), form.tree.copy()]
                for each in pair if by_chance else ():
                    each.set("limit", None)
                    each.set("offset", None)
                yield form.rule, sql, *(text_of(each, dialect.name) for each in pair)


@pytest.mark.parametrize(("dialect", "seeds"), FEW + MANY)
def test_no_form_of_any_rule_gives_other_rows(
    dialect: str, seeds: range, request: Any, tmp_path: Path
) -> None:
    """Without the trial and the comparison that stand behind the conditions: each has to hold by itself."""
    compared, wrong = 0, []
    for seed in seeds:
        foreign = Foreign(seed, dialect, rows=25, statements=60 if len(seeds) == 1 else 150)
        with place(dialect, request, tmp_path) as (url, _):
            asked = Asked(foreign, url)
            sqls = [s for s in foreign.statements if asked.takes(s)]
            with DatabaseOptimizer(asked.engine) as optimizer:
                found = list(forms(sqls, optimizer))
            for _ in ("today", "after hostile changes"):
                for rule, sql, one, other in found:
                    with contextlib.suppress(DBAPIError):  # what cannot run has no rows to compare
                        compared += 1
                        before, after = asked.rows(one), asked.rows(other)
                        if before != after:
                            wrong.append((rule, sql, other, before - after, after - before))
                for change in foreign.changes:
                    with contextlib.suppress(DBAPIError):
                        asked.rows(change)
            asked.close()
    assert not wrong
    assert compared > 8 * len(seeds)


@pytest.mark.parametrize(("dialect", "seeds"), [*FEW, *MANY])
def test_advice_reads_every_statement_that_the_engine_takes(
    dialect: str, seeds: range, request: Any, tmp_path: Path
) -> None:
    for seed in seeds:
        foreign = Foreign(seed, dialect, rows=80, statements=8 if len(seeds) == 1 else 24)
        with place(dialect, request, tmp_path) as (url, what_if):
            asked = Asked(foreign, url)
            sqls = [s for s in foreign.statements if asked.takes(s)]
            assert len(sqls) > 4
            work = Workload.from_sql(";\n".join(sqls), dialect)
            with DatabaseOptimizer(asked.engine, what_if=what_if) as optimizer:
                advice = optimizer.advise(work, budget="1h")
            assert not [s.error for s in work if s.error]
            assert not refusals(advice), seed
            for index in advice.indexes:
                asked.rows(index.sql)
            for rewrite in (r for r in advice.rewrites if r.is_safe and r.after):
                assert asked.rows(work[rewrite.fingerprint].sql) == asked.rows(rewrite.after or "")
            assert advice.to_html()
            assert advice.to_migration("django")
            asked.close()


def refusals(advice: Advice) -> list[str]:
    said = ("not analysed", "what is not here", "could not", "refused", "parser does not know", "was cut")
    lines = [*advice.warnings, *advice.unserved.values()]
    return [line for line in lines if any(word in line for word in said)]
