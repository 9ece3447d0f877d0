"""Try to prove two statements different, on small tables made for that purpose.

Rows are drawn from the statement's own constants and their neighbours, with NULLs wherever the schema
allows them, duplicates wherever no key forbids them, and empty tables. Equality on all of them proves
nothing by itself; a rule's condition does. It catches rules that are wrong, which conditions do not.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from sqlglot import exp

from eventperf.dbopt.schema.model import Schema, Table
from eventperf.dbopt.statements.told import reason

from .lab import Lab
from .made import domains, draw_rows
from .tree import Node, inlined, table_of

_ROUNDS: Final = 120
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


def tables_of(tree: Node, schema: Schema) -> list[Table] | None:
    """Return the tables a statement reads; ``None`` where it reads something else as well."""
    found: dict[str, Table] = {}
    names = {c.alias.lower() for c in tree.find_all(exp.CTE)}
    for source in tree.find_all(exp.Table):
        table = table_of(source, schema)
        if table is not None:
            found[table.name] = table
        elif source.db or source.name.lower() not in names:
            return None
    return list(found.values())


def compare(
    before: Node,
    after: Node,
    schema: Schema,
    connection: Any = None,
    *,
    seed: int = 7,
    rounds: int = _ROUNDS,
    seconds: float = _SECONDS,
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
        seconds: They end after so many.
    """
    known = tables_of(before, schema)
    if known is None:
        return Trial(None, note="it reads something that is not a table")
    end = time.monotonic() + min(seconds, _SECONDS)
    if connection is not None:
        try:
            with Lab(connection, schema, known, schema.dialect) as lab:
                return _try(lab, before, after, known, random.Random(seed), rounds // 3, end, schema.dialect)
        except Exception as error:
            note = _said(error, before, schema.dialect)
    else:
        note = ""
    own = sqlite3.connect(":memory:", isolation_level=None)
    try:
        with Lab(own, schema, known, "sqlite") as lab:
            where = "sqlite" if schema.dialect == "sqlite" else f"SQLite, translated from {schema.dialect}"
            return _try(lab, before, after, known, random.Random(seed), rounds, end, where)
    except Exception as error:  # a statement this engine cannot run proves nothing, and says so
        return Trial(None, note=note or _said(error, before, "sqlite"))
    finally:
        own.close()


def _try(
    lab: Lab,
    before: Node,
    after: Node,
    tables: Sequence[Table],
    draw: random.Random,
    rounds: int,
    end: float,
    where: str,
) -> Trial:
    drawn = {t.name: domains(before, t, lab.schema) for t in tables}
    filled = done = 0
    for number in range(rounds):
        if filled >= _ENOUGH or time.monotonic() > end:
            break
        few, hit = draw.choice([1, 2, 3, 4]), draw.random() < 0.6
        for table in tables:
            made = draw_rows(table, drawn[table.name], draw, few, hit, lab.schema.dialect)
            lab.fill(table, [] if number == 0 else made)
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


def sample_rows(
    before: Node, after: Node, schema: Schema, tables: Iterable[tuple[Table, list[Any]]]
) -> Trial:
    """Run both forms on samples of the real rows, in SQLite's memory, where the real ones take too long."""
    own = sqlite3.connect(":memory:", isolation_level=None)
    end = time.monotonic() + _SECONDS
    own.set_progress_handler(lambda: time.monotonic() > end, 20_000)
    given = list(tables)
    try:
        with Lab(own, schema, [t for t, _ in given], "sqlite") as lab:
            for table, rows in given:
                lab.fill(table, [tuple(map(_storable, r)) for r in rows])
            one, two = (multiset(lab.rows(t)) for t in (before, after))
            return Trial(one == two, 1, int(bool(one)), where="SQLite")
    except Exception as error:
        return Trial(None, note=_said(error, before, "sqlite"))
    finally:
        own.close()


def _said(error: Exception, tree: Node, dialect: str) -> str:
    return reason(error, tree.sql(dialect=dialect), dialect)[:120]


def _storable(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    return value if value is None or isinstance(value, (int, float, str, bytes)) else str(value)
