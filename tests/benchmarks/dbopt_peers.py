"""Index advisers to compare with, by their published methods, on PostgreSQL with HypoPG; and SQLite's own.

The tools themselves run where they install: SQLite's ``.expert`` does. supabase's index_advisor, dexter and
the Extend algorithm (Schlosser, Kossmann, Boissier, ICDE 2019) need servers or languages that are not
here, so their selection rules were written down again, on the same planner, with the same samples.
"""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Index = tuple[str, tuple[str, ...]]


class Asked(NamedTuple):
    """A statement with ``%(name)s`` parameters, one set of values, and its weight."""

    sql: str
    values: Mapping[str, Any]
    weight: float


def tables_of(sql: str, columns: Mapping[str, Sequence[str]]) -> list[str]:
    words = set(re.findall(r"\w+", sql.lower()))
    return [table for table in columns if table in words]


def named_columns(sql: str, columns: Mapping[str, Sequence[str]]) -> list[Index]:
    """Return the columns that a statement names after its FROM, except single primary keys."""
    rest = set(re.findall(r"\w+", sql.lower().partition(" from ")[2]))
    return [(t, (c,)) for t in tables_of(sql, columns) for c in columns[t] if c in rest and c != "id"]


def naive(asked: Iterable[Asked], columns: Mapping[str, Sequence[str]]) -> list[Index]:
    """One index per column found in a WHERE, JOIN or ORDER BY."""
    return list(dict.fromkeys(i for a in asked for i in named_columns(a.sql, columns)))


class WhatIf:
    """Costs under hypothetical indexes, each statement and set asked once."""

    def __init__(self, connection: Any) -> None:
        self.db = connection
        self.explains = 0
        self._known: dict[tuple[str, frozenset[Index]], tuple[float, frozenset[Index]]] = {}
        self._made: dict[Index, tuple[int, int]] = {}

    def size(self, index: Index) -> int:
        return self._ensure(index)[1]

    def _ensure(self, index: Index) -> tuple[int, int]:
        if index not in self._made:
            text = f"CREATE INDEX ON {index[0]} ({', '.join(index[1])})"
            oid = self.db.execute("SELECT indexrelid FROM hypopg_create_index(%s)", (text,)).fetchone()[0]
            size = self.db.execute("SELECT hypopg_relation_size(%s::oid)", (oid,)).fetchone()[0]
            self._made[index] = (int(oid), int(size))
        return self._made[index]

    def cost(self, asked: Asked, indexes: Iterable[Index]) -> tuple[float, frozenset[Index]]:
        """Return the planner's cost and the indexes in the plan."""
        words = set(re.findall(r"\w+", asked.sql.lower()))
        wanted = frozenset(i for i in indexes if i[0] in words)
        key = (asked.sql, wanted)
        if key not in self._known:
            self.db.execute("SELECT hypopg_reset()")
            self._made.clear()
            oids = {self._ensure(i)[0]: i for i in wanted}
            self.explains += 1
            plan = self.db.execute(f"EXPLAIN (FORMAT JSON) {asked.sql}", asked.values or None).fetchone()[0]
            used = frozenset(oids[int(n)] for n in re.findall(r"<(\d+)>", str(plan)) if int(n) in oids)
            self._known[key] = (float(plan[0]["Plan"]["Total Cost"]), used)
        return self._known[key]


def single_columns(
    asked: Sequence[Asked], columns: Mapping[str, Sequence[str]], what_if: WhatIf
) -> list[Index]:
    """supabase index_advisor's rule: per statement, every column of its tables; keep what the plan uses."""
    out: dict[Index, None] = {}
    for a in asked:
        every = [(t, (c,)) for t in tables_of(a.sql, columns) for c in columns[t] if c != "id"]
        out |= dict.fromkeys(sorted(what_if.cost(a, every)[1]))
    return list(out)


def pairs(asked: Sequence[Asked], columns: Mapping[str, Sequence[str]], what_if: WhatIf) -> list[Index]:
    """dexter's rule: per statement, single columns, then pairs; keep what halves the cost."""
    out: dict[Index, None] = {}
    for a in asked:
        singles = named_columns(a.sql, columns)
        before, _ = what_if.cost(a, ())
        one, used = what_if.cost(a, singles)
        both = [(x[0], (x[1][0], y[1][0])) for x, y in itertools.permutations(singles, 2) if x[0] == y[0]]
        two, wider = what_if.cost(a, [*singles, *both])
        best, chosen = (two, wider) if two < one * 0.5 else (one, used)
        if best < before * 0.5:
            out |= dict.fromkeys(sorted(chosen))
    return list(out)


def extend(
    asked: Sequence[Asked],
    columns: Mapping[str, Sequence[str]],
    what_if: WhatIf,
    *,
    budget: int = 500_000_000,
) -> list[Index]:
    """Extend with width 2: add, or lengthen by one column, what gains most per byte, until nothing does."""
    singles = list(dict.fromkeys(i for a in asked for i in named_columns(a.sql, columns)))
    chosen: frozenset[Index] = frozenset()

    def total(indexes: frozenset[Index]) -> float:
        return sum(a.weight * what_if.cost(a, indexes)[0] for a in asked)

    now = start = total(chosen)
    while True:
        steps: list[tuple[float, frozenset[Index], float]] = []
        used = sum(what_if.size(i) for i in chosen)
        for single in singles:
            options = [(chosen | {single}, single, 0)] if single not in chosen else []
            options += [
                (
                    (chosen - {old}) | {(old[0], (*old[1], *single[1]))},
                    (old[0], (*old[1], *single[1])),
                    what_if.size(old),
                )
                for old in chosen
                if old[0] == single[0] and len(old[1]) == 1 and old != single
            ]
            for after, new, freed in options:
                more = max(1, what_if.size(new) - freed)
                cost = total(after)
                if now - cost > start * 0.003 and used + more <= budget:
                    steps.append(((now - cost) / more, after, cost))
        if not steps:
            return sorted(chosen)
        _, chosen, now = max(steps, key=lambda s: s[0])


def expert(database: Path, statements: Sequence[str]) -> list[str] | None:
    """Return what SQLite's ``.expert`` advises, statement by statement; ``None`` without the shell."""
    shell = shutil.which("sqlite3")
    if shell is None:
        return None
    script = "".join(f".expert\n{' '.join(s.split())};\n" for s in statements)
    done = subprocess.run([shell, str(database)], input=script, capture_output=True, text=True, timeout=300)
    found = re.findall(r"^(CREATE INDEX .*?);", done.stdout, re.MULTILINE)
    return list(dict.fromkeys(found))
