"""Names that came out of a database, a file or a queue are data in everything that is written: each output is
read back by a parser of its own, and holds the names as they were, and nothing else.
"""

from __future__ import annotations

import ast
import html
import io
import json
import logging
import re
from contextlib import redirect_stdout
from html.parser import HTMLParser
from typing import Any

import pytest
import sqlglot
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlglot import exp

from eventperf._core.errors import ConfigurationError
from eventperf.cli.output import emit_json, facts, say, table
from eventperf.contrib.logging import LoggingSink
from eventperf.dbopt import Advice
from eventperf.dbopt.errors import AdviceMismatch
from eventperf.dbopt.findings import DropAdvice, IndexAdvice, PartitionAdvice, RewriteAdvice
from eventperf.dbopt.health import Fault, HealthReport, TableHealth
from eventperf.dbopt.schema.ddl import create_index_sql, quote, quote_table
from eventperf.dbopt.schema.engines import ENGINES
from eventperf.dbopt.schema.model import IndexSpec, Key
from eventperf.queues import QueueManager
from eventperf.queues.events import JobEvent
from hostile import NAMES

SQL_NAMES = NAMES.filter(lambda n: "\x00" not in n and not re.search("[\ud800-\udfff]", n))
"""No server has names with NUL or halves of characters."""
DIALECTS = sorted(ENGINES)
FEW = settings(max_examples=40)
TWINS = ("x" * 62 + "a", "x" * 62 + "b")


def advice(dialect: str, table_: str, column: str, index: str, text: str) -> Advice:
    """Return advice that holds the names wherever a name or a text from outside can be."""
    spec = IndexSpec(table_, (Key(column), Key(column + "2", descending=True)), include=())
    found = Advice(
        dialect=dialect, proof=text, since=text, warnings=[text], copied=[text], unserved={text: text}
    )
    found.indexes.append(
        IndexAdvice(
            name=index, spec=spec, sql=create_index_sql(spec, index, dialect), reason=text, gain=0.5,
            size_bytes=1, write_cost=0.1, proof=text, rejected=((text, text),),
        )
    )  # fmt: skip
    names = {"index": quote(index, dialect), "table": quote_table(table_, dialect)}
    sql = ENGINES[dialect].drop_index.format(**names)
    found.drops.append(DropAdvice(name=index, table=table_, kind="unused", evidence=text, sql=sql))
    found.rewrites.append(
        RewriteAdvice(
            fingerprint=text, rule=text, before=text, after=text, is_safe=False, verdict=text, advice=text
        )
    )
    found.partitions.append(PartitionAdvice(table=table_, column=column, reason=text, ddl=(text,), prunes=()))
    return found


def dot_free(dialect: str, name: str) -> str:
    return name.replace(".", "_") if ENGINES[dialect].has_schemas else name


@pytest.mark.parametrize("dialect", DIALECTS)
@FEW
@given(table_=SQL_NAMES, column=SQL_NAMES, index=SQL_NAMES)
def test_an_index_statement_holds_its_names(dialect: str, table_: str, column: str, index: str) -> None:
    table_ = dot_free(dialect, table_)
    sql = create_index_sql(IndexSpec(table_, (Key(column),)), index, dialect)
    (tree,) = sqlglot.parse(sql.removesuffix(ENGINES[dialect].online), read=dialect)
    assert isinstance(tree, exp.Create)
    made = tree.this
    assert made.this.name == index
    assert made.args["table"].name == table_
    assert [c.name for c in made.find_all(exp.Column)] == [column]


@pytest.mark.parametrize("dialect", DIALECTS)
@FEW
@given(table_=SQL_NAMES, column=SQL_NAMES, index=SQL_NAMES, text=NAMES)
def test_a_script_holds_one_statement_and_comments(
    dialect: str, table_: str, column: str, index: str, text: str
) -> None:
    found = advice(dialect, dot_free(dialect, table_), column, index, text)
    lines = found.to_sql()
    statement = found.indexes[0].sql + ";"
    before, rest = lines.split(statement, 1)
    for line in re.split("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]", (before + rest).rstrip("\n")):
        assert line.startswith("--") or not line
        assert line.isprintable()


@pytest.mark.parametrize("kind", ["django", "alembic"])
@pytest.mark.parametrize("dialect", DIALECTS)
@FEW
@given(table_=SQL_NAMES, column=SQL_NAMES, index=SQL_NAMES, text=NAMES)
def test_a_migration_calls_what_its_writer_called_and_nothing_else(
    kind: Any, dialect: str, table_: str, column: str, index: str, text: str
) -> None:
    source = advice(dialect, dot_free(dialect, table_), column, index, text).to_migration(kind)
    tree = ast.parse(source)
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert column in texts or f"-{column}" in texts
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    called = {re.sub(r"\(.*\)", "()", name, flags=re.DOTALL) for name in called}
    assert called <= {
        "models.Index", "models.F", "models.F().desc", "migrations.AddIndex", "AddIndexConcurrently",
        "op.create_index", "op.drop_index", "op.get_context", "op.get_context().autocommit_block",
        "sa.column", "sa.column().desc", "op.get_context().autocommit_block()",
    }  # fmt: skip
    bodies = [type(node).__name__ for node in tree.body]
    assert set(bodies) <= {"Expr", "Import", "ImportFrom", "Assign", "FunctionDef", "ClassDef"}
    assert all(isinstance(n.value, ast.Constant) for n in tree.body if isinstance(n, ast.Expr))


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def _read(page: str) -> _Page:
    read = _Page()
    read.feed(page)
    read.close()
    return read


def _health(name: str) -> HealthReport:
    report = HealthReport(dialect="sqlite", notes=[name], faults=[Fault(kind="k", about=name, evidence=name)])
    report.tables.append(TableHealth(name=name, rows=1, size_bytes=1, index_bytes=None, indexes=0))
    report.drops.append(DropAdvice(name=name, table=name, kind="unused", evidence=name, sql=name))
    return report


@FEW
@given(name=SQL_NAMES, text=NAMES)
def test_pages_have_the_same_elements_whatever_the_names(name: str, text: str) -> None:
    for make in (lambda n, t: advice("sqlite", n, n, n, t).to_html(), lambda n, t: _health(n).to_html()):
        plain, hostile = _read(make("name", "text")), _read(make(name, text))
        assert hostile.tags == plain.tags
        assert hostile.attributes == plain.attributes


@FEW
@given(name=SQL_NAMES, text=NAMES)
def test_reports_steer_no_terminal_and_forge_no_line(name: str, text: str) -> None:
    makes = (lambda n, t: str(advice("sqlite", n, n, n, t)), lambda n, t: str(_health(n)))
    for make, splits in zip(makes, (True, False), strict=True):
        shown = make(name, text)
        assert shown.replace("\n", "").isprintable()
        more = 3 * text.count("\n") if splits else 0  # statements keep their lines, indented
        assert shown.count("\n") <= make("name", "text").count("\n") + more


@FEW
@given(cells=st.lists(NAMES, min_size=2, max_size=2), title=NAMES)
def test_what_commands_print_steers_no_terminal(cells: list[str], title: str) -> None:
    out = io.StringIO()
    with redirect_stdout(out):
        table(["a", "b"], [cells], title=title)
        facts(title, {"a": cells[0]})
        say(cells[1])
    assert out.getvalue().replace("\n", "").isprintable()
    out = io.StringIO()
    with redirect_stdout(out):
        emit_json({"cells": cells, title: title})
    assert out.getvalue().replace("\n", "").isprintable()
    assert json.loads(out.getvalue()) == {"cells": cells, title: title}


@FEW
@given(name=NAMES)
def test_a_log_line_is_one_line(name: str) -> None:
    records: list[str] = []
    logger = logging.Logger("names")
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    LoggingSink(logger, private=True)(JobEvent(kind="failed", job_id=name, type=name, queue=name, error=name))
    (line,) = records
    assert line.isprintable()


@pytest.mark.parametrize("place", ["type", "queue", "namespace"])
@FEW
@given(name=NAMES)
def test_names_of_queues_are_harmless_or_refused(place: str, name: str) -> None:
    try:
        if place == "namespace":
            QueueManager("memory://", namespace=name)
        elif place == "queue":
            QueueManager("memory://").enqueue("t", 1, queue=name)
        else:
            QueueManager("memory://").enqueue(name, 1)
    except ConfigurationError:
        return
    assert name.isprintable()
    assert not set(name) & set("{}|,\x1e\x1f")


def test_names_that_are_the_same_up_to_their_last_byte_stay_two() -> None:
    for dialect in DIALECTS:
        made = {create_index_sql(IndexSpec(n, (Key(n),)), n, dialect) for n in TWINS}
        assert len(made) == 2


PLAN = advice("sqlite", "t", "c", "i", "text").to_dict()


def _paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [path for key, inner in items for path in _paths(inner, (*at, key))]


@FEW
@given(
    path=st.sampled_from(_paths(json.loads(json.dumps(PLAN)))),
    value=NAMES | st.none() | st.booleans() | st.integers() | st.floats() | st.lists(NAMES, max_size=2)
    | st.dictionaries(NAMES, NAMES, max_size=2),
)  # fmt: skip
def test_a_plan_with_one_part_changed_is_a_plan_or_refused(path: tuple[Any, ...], value: Any) -> None:
    data = json.loads(json.dumps(PLAN))
    at = data
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    try:
        plan = Advice.from_dict(data)
    except AdviceMismatch:
        return
    assert str(plan).replace("\n", "").isprintable()
    plan.to_html()
    statements = {index.sql for index in plan.indexes}
    script = plan.to_sql()
    for sql in statements:
        script = script.replace(f"{sql};", "")
    assert all(line.startswith("--") or not line for line in script.split("\n"))


def test_html_of_the_standard_library_is_what_pages_are_read_with() -> None:
    assert _read(f"<p>{html.escape('<b>')}</p>").tags == {"p"}
