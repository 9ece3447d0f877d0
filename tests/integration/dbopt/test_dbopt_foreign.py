"""Random schemas that nobody here made: every valid statement is read, and every form gives the same rows."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from dbopt_forms import Asked, forms, place
from eventperf.dbopt import Advice, DatabaseOptimizer, Workload
from foreign import DIALECTS, Foreign

FEW = [pytest.param(dialect, range(1), id=dialect) for dialect in DIALECTS]
MANY = [pytest.param(d, range(100, 180), id=f"{d}-long", marks=pytest.mark.long) for d in DIALECTS]
pytestmark = pytest.mark.timeout(3_600)  # the long ones; nothing here depends on how long it takes


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
                for pair in found:
                    with contextlib.suppress(DBAPIError):  # what cannot run has no rows to compare
                        compared += 1
                        if (said := asked.difference(pair)) is not None:
                            wrong.append((pair, said))
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
