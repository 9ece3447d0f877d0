"""What-if on MySQL and MariaDB: the real optimizer on sampled shadow tables in the ``what_if`` database.

These servers have no hypothetical indexes. A sample of two per cent of each table is copied, candidates
are built on the copies, where they cost milliseconds, and EXPLAIN is told which of them to ignore. The
optimizer chooses the plan; its price is computed for the real row counts, because MariaDB tells none.
The application's tables are only read.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, Final, TypeAlias

from sqlglot import exp

from eventperf.dbopt.indexes.estimate import StatisticsPlanner
from eventperf.dbopt.protocols import Plan, Query, columns_of
from eventperf.dbopt.rewrites.tree import text_of
from eventperf.dbopt.schema.ddl import create_index_sql, quote
from eventperf.dbopt.schema.model import IndexSpec, Schema, Table, index_name
from eventperf.dbopt.schema.selectivity import prefix_distinct, selectivity
from eventperf.dbopt.statements.lex import render
from eventperf.dbopt.statements.quiet import muted

Source: TypeAlias = Callable[[], AbstractContextManager[Any]]
MARK: Final = "eventperf what-if copy"
_WHOLE: Final = 5_000
_SHARE: Final = 0.02
_MOST: Final = 40_000
_INDEXES: Final = 50
_SEEK: Final = 4.0


class Refused(Exception):
    """The ``what_if`` database cannot be used; the text says why."""


class Shadows:
    """Sampled copies of tables in the ``what_if`` database; real tables of others are never touched.

    Args:
        db: Connection to ``what_if``.
        source: Opens connections to the application's database; only read.
        schema: The application's tables.
        empty: Copy no rows.
    """

    def __init__(self, db: Any, source: Source, schema: Schema, *, empty: bool = False) -> None:
        self._db, self._source, self._schema, self._empty = db, source, schema, empty
        self.made: dict[str, frozenset[str]] = {}
        self.rows: dict[str, int] = {}
        self.share: dict[str, float] = {}
        self.whole: set[str] = set()
        with db.cursor() as cursor:
            cursor.execute(
                "SELECT GET_LOCK(CONCAT('eventperf.shadow.', LEFT(SHA2(DATABASE(), 256), 32)), 20)"
            )
            if cursor.fetchone()[0] != 1:
                raise Refused("another optimizer is using it")
            cursor.execute("SET SESSION foreign_key_checks = 0, unique_checks = 0, sql_mode = ''")
        own = self._run(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() "
            "AND table_comment <> %s",
            (MARK,),
        )
        taken = sorted({row[0] for row in own} & schema.tables.keys())
        if taken:
            self.close()
            raise Refused(f"it has a table {taken[0]} of its own")

    def need(self, columns: Mapping[str, frozenset[str]]) -> set[str]:
        """Copy tables with at least these columns; return those that were made anew."""
        missing = {t: c for t, c in columns.items() if t not in self.made or not c <= self.made[t]}
        if missing:
            with self._source() as source:
                for name, wanted in missing.items():
                    whole = wanted | self.made.get(name, frozenset())
                    self._copy(source, self._schema.tables[name], whole)
        return set(missing)

    def fill(self, name: str) -> None:
        """Copy all rows of a table that there is a sample of."""
        with self._source() as source:
            self._copy(source, self._schema.tables[name], self.made[name], is_whole=True)

    def _run(self, sql: str, values: Any = None, *, source: Any = None) -> list[Any]:
        with (self._db if source is None else source).cursor() as cursor:
            cursor.execute(sql, values)
            return list(cursor.fetchall())

    def _copy(self, source: Any, table: Table, columns: frozenset[str], *, is_whole: bool = False) -> None:
        name = quote(table.name, "mysql")
        there = self._run(
            "SELECT table_comment FROM information_schema.tables WHERE table_schema = DATABASE() "
            "AND table_name = %s",
            (table.name,),
        )
        if there and there[0][0] != MARK:
            raise Refused(f"it has a table {table.name} of its own")
        if there:
            self._run(f"DROP TABLE {name}")  # with fewer columns, or left by a run that was killed
        definition = self._run(f"SHOW CREATE TABLE {name}", source=source)[0][1]
        self._run(shadow_definition(definition))
        self._run(f"ALTER TABLE {name} COMMENT = '{MARK}'")
        self.made[table.name] = columns
        self.share[table.name] = 1.0
        if not self._empty:
            self._fill(source, table, name, columns, is_whole=is_whole)

    def _fill(
        self, source: Any, table: Table, name: str, wanted_columns: frozenset[str], *, is_whole: bool
    ) -> None:
        computed = {
            row[0]
            for row in self._run(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = DATABASE() "
                "AND table_name = %s AND extra LIKE '%%GENERATED%%'",
                (table.name,),
            )
        }
        columns = [c for c in table.columns if c not in computed and c in wanted_columns]
        columns = columns or [c for c in table.columns if c not in computed][:1]
        wanted = min(1.0, max(_SHARE, _WHOLE / max(1, table.rows)), max(_MOST, 1) / max(1, table.rows))
        pick = ""
        is_whole = is_whole or wanted >= 1
        if not is_whole:
            key = table.columns.get(table.primary_key[0]) if len(table.primary_key) == 1 else None
            if key is not None and "int" in key.type:
                pick = f" WHERE MOD({quote(key.name, 'mysql')}, {max(1, round(1 / wanted))}) = 0"
            else:
                pick = f" WHERE RAND(7) < {wanted:.6f}"
        names = ", ".join(quote(c, "mysql") for c in columns)
        most = 2 * max(_MOST, table.rows) if is_whole else 2 * _MOST
        rows = self._run(f"SELECT {names} FROM {name}{pick} LIMIT {most}", source=source)
        if is_whole and len(rows) < most:
            self.whole.add(table.name)
        elif len(rows) < min(table.rows, _WHOLE) / 10:  # keys with gaps
            rows = self._run(f"SELECT {names} FROM {name} LIMIT {_WHOLE}", source=source)
        share = min(1.0, len(rows) / max(1, table.rows)) or 1.0  # of an empty one, all
        self.share[table.name] = 1.0 if table.name in self.whole else share
        self.rows[table.name] = len(rows)
        marks = ", ".join(["%s"] * len(columns))
        with self._db.cursor() as cursor:
            cursor.executemany(f"INSERT INTO {name} ({names}) VALUES ({marks})", rows)
        self._db.commit()
        self._run(f"ANALYZE TABLE {name}")

    def close(self) -> None:
        """Drop the copies."""
        if not self._db.open:
            return
        for table in self.made:
            with suppress(Exception):  # the next run removes what stays
                self._run(f"DROP TABLE IF EXISTS {quote(table, 'mysql')}")
        self.made.clear()
        self._run("SELECT RELEASE_LOCK(CONCAT('eventperf.shadow.', LEFT(SHA2(DATABASE(), 256), 32)))")
        self._run("SET SESSION foreign_key_checks = DEFAULT, unique_checks = DEFAULT, sql_mode = DEFAULT")


def shadow_definition(text: str) -> str:
    """Return CREATE TABLE without foreign keys, partitions, counters and places on disk."""
    lines = [line for line in text.splitlines() if " FOREIGN KEY " not in line]
    for at, line in enumerate(lines):
        if line.startswith(")"):
            lines[at - 1] = lines[at - 1].rstrip(",")
            end = re.sub(r" (AUTO_INCREMENT|DATA DIRECTORY|INDEX DIRECTORY|COMMENT)=('[^']*'|\S+)", "", line)
            return "\n".join([*lines[:at], end.rstrip(";")])
    return "\n".join(lines)


class ShadowPlanner:
    """The server's own optimizer on shadow tables; see the module.

    Args:
        db: Connection to ``what_if``, kept until :meth:`close`.
        release: Gives that connection back.
        source: Opens connections to the application's database.
        schema: The application's tables.
    """

    is_real: bool = True
    is_cheapest: bool = False

    def __init__(self, db: Any, release: Any, source: Source, schema: Schema, server: str) -> None:
        self.explains: int = 0
        self.method: str = f"{server}'s optimizer on sampled copies"
        self.notes: list[str] = []
        self._db, self._release, self._schema = db, release, schema
        self._shadows = Shadows(db, source, schema)
        self._sizes = StatisticsPlanner(schema)
        self._made: dict[str, dict[IndexSpec, str]] = defaultdict(dict)
        self._wanted: dict[str, frozenset[str]] = defaultdict(frozenset)

    def expect(self, queries: Iterable[Query], /) -> None:
        """Note what will be planned, so that each table is copied once, with all that is asked of it."""
        for query in queries:
            for table, columns in columns_of(query, self._schema).items():
                self._wanted[table] |= columns

    def copied(self) -> list[str]:
        """Tell what of the application's data was copied."""
        made, tables, rows = self._shadows.made, self._schema.tables, self._shadows.rows
        return [
            f"{t}: {len(c)} of {len(tables[t].columns)} columns of {rows.get(t, 0):,} rows"
            for t, c in made.items()
        ]

    def _copy(self, query: Query) -> None:
        self.expect((query,))
        for table in self._shadows.need({t: self._wanted[t] for t in query.analysis.tables}):
            self._made[table].clear()

    def close(self) -> None:
        """Drop the copies and give the connection back; once is enough, twice is allowed."""
        release, self._release = self._release, None
        if release is None:
            return
        try:
            self._shadows.close()
        finally:
            release()

    def size(self, spec: IndexSpec, /) -> int:
        """Return the estimated bytes for the real row count."""
        return self._sizes.size(spec)

    def plan(self, query: Query, specs: Sequence[IndexSpec], /) -> Plan:
        """EXPLAIN as if exactly ``specs`` existed, and price the plan."""
        wanted = [s for s in specs if s.table in query.analysis.tables]
        with muted():
            self._copy(query)
            self._build(wanted)
            sql = self._hinted(query, wanted)
            values = self._values(query)
            self.explains += 1
            text, given = render(sql, values, "format", "mysql")
            with self._db.cursor() as cursor:
                cursor.execute(f"EXPLAIN FORMAT=TRADITIONAL {text}", given or None)
                names = [d[0].lower() for d in cursor.description]
                rows = [_unfiltered(dict(zip(names, row, strict=True))) for row in cursor.fetchall()]
        by_name = {n: s for table in query.tables for s, n in self._made[table].items()}
        used, existing = set(), set()
        for row in rows:
            for key in re.split(r"[,()]", str(row.get("key") or "")):
                if key in by_name:
                    used.add(by_name[key])
                elif key and key not in ("PRIMARY", "intersect", "union", "sort_union"):
                    existing.add(key)
        shown = "\n".join(
            f"{r['table']}: {r['type']} {r['key'] or 'no index'} {r['extra'] or ''}".strip() for r in rows
        )
        cost = _Pricer(query, self._schema, self._shadows.share, by_name, values).price(rows)
        return Plan(cost=max(1.0, cost), text=shown, used=frozenset(used), existing=frozenset(existing))

    def _build(self, wanted: Sequence[IndexSpec]) -> None:
        """Build what is missing, all indexes of one table in one pass over its sample."""
        missing: dict[str, list[IndexSpec]] = defaultdict(list)
        for spec in wanted:
            if spec not in self._made[spec.table]:
                missing[spec.table].append(spec)
        for table, specs in missing.items():
            made = self._made[table]
            name = quote(table, "mysql")
            drop = [s for s in made if s not in wanted][: max(0, len(made) + len(specs) - _INDEXES)]
            parts = [f"DROP INDEX {quote(made.pop(s), 'mysql')}" for s in drop]
            for spec in specs:
                made[spec] = index_name(spec, limit=64, prefix="hypo")
                text = create_index_sql(spec, made[spec], "mysql")
                body = text[text.index(f" ON {name} ") + len(f" ON {name} ") :].partition(" ALGORITHM")[0]
                parts.append(f"ADD INDEX {quote(made[spec], 'mysql')} {body}")
            try:
                with self._db.cursor() as cursor:
                    cursor.execute(f"ALTER TABLE {name} {', '.join(parts)}")
            except BaseException:
                for spec in specs:
                    made.pop(spec, None)
                raise

    def _hinted(self, query: Query, wanted: Sequence[IndexSpec]) -> str:
        tree: Any = query.analysis.expanded or query.analysis.tree
        tree = tree.copy()
        keep = set(wanted)
        for node in tree.find_all(exp.Table):
            table = self._schema.table(node.name)
            unwanted = [n for s, n in self._made[table.name].items() if s not in keep] if table else []
            node.set("db", None)
            node.set("version", None)  # the copy has no history
            if unwanted:
                names = [exp.to_identifier(n, quoted=True) for n in unwanted]
                hint = exp.IndexTableHint(this="IGNORE", expressions=names)
                node.set("hints", [hint])
        for column in tree.find_all(exp.Column):
            column.set("db", None)  # views name their columns in full
        for select in tree.find_all(exp.Select):
            select.set("locks", None)  # of which MariaDB writes some in another way
        for node in list(tree.find_all(exp.RegexpLike)):  # MariaDB has the operator only
            sides = (side.sql(dialect="mysql") for side in (node.this, node.expression))
            node.replace(exp.Paren(this=exp.var(" REGEXP ".join(sides))))
        return text_of(tree, "mysql")

    def _values(self, query: Query) -> tuple[Any, ...]:
        """Return the recorded parameters, or values that occur in the columns they are compared with."""
        if query.sample.values is not None:
            return query.sample.values
        marks = [int(n) for n in re.findall(r":p(\d+)", query.sample.sql)]
        out: list[Any] = [1] * max(marks, default=0)
        for use in query.analysis.uses:
            table = self._schema.tables[use.table]
            places = {c.lower(): i for i, c in enumerate(table.columns)}
            for predicate in use.predicates:
                place = places.get(predicate.column.lower())
                if place is None or not table.sample:
                    continue
                known = [r[place] for r in table.sample if r[place] is not None]
                for value in predicate.values:
                    if known and isinstance(value, str) and re.fullmatch(r":p\d+", value):
                        out[int(value[2:]) - 1] = known[len(known) // 2]
        return tuple(out)


def _unfiltered(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of a plan without the filter of row ids that MariaDB writes beside the way it reads:
    ``ref|filter``, ``index|other``, ``12 (3%)``."""
    for name in ("type", "key"):
        if row.get(name):
            row[name] = str(row[name]).partition("|")[0]
    row["rows"] = str(row.get("rows") or "").partition(" ")[0]
    return row


class _Pricer:
    """Prices a plan for the real row counts: nested loops multiply, sorts and subqueries add."""

    def __init__(
        self,
        query: Query,
        schema: Schema,
        share: dict[str, float],
        made: dict[str, IndexSpec],
        values: tuple[Any, ...],
    ) -> None:
        self._query, self._schema, self._share, self._values = query, schema, share, values
        self._specs = {i.name: i.spec for t in schema.tables.values() for i in t.indexes} | made
        self._uses = {u.alias.lower(): u for u in reversed(query.analysis.uses)}

    def price(self, rows: Sequence[dict[str, Any]]) -> float:
        """Return the cost of all SELECTs in a plan."""
        blocks: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for row in rows:
            blocks[row["id"]].append(row)
        total, first = 0.0, 1.0
        for number, (_, block) in enumerate(blocks.items()):
            cost, out = self._block(block, first=number == 0)
            if number == 0:
                total, first = cost, max(1.0, out)
            else:
                total += cost * (first if "DEPENDENT" in str(block[0]["select_type"]) else 1.0)
        return total

    def _block(self, rows: Sequence[dict[str, Any]], *, first: bool) -> tuple[float, float]:
        cost, outer = 0.0, 1.0
        extras = " ".join(str(r.get("extra") or "") for r in rows)
        for row in rows:
            step, matched = self._step(row)
            buffered = "join buffer" in str(row.get("extra") or "")
            cost += step * (1.0 + outer / 5_000 if buffered else max(1.0, outer))
            outer *= max(matched, 1e-6)
        if "filesort" in extras or "temporary" in extras:
            cost += 0.15 * outer * math.log2(outer + 2)
        elif first:
            cost *= self._stops_early(outer)
        return cost, outer

    def _stops_early(self, rows: float) -> float:
        tree: Any = self._query.analysis.tree
        limit = tree.args.get("limit") if isinstance(tree, exp.Select) else None
        number = limit.expression if limit is not None else None
        if not isinstance(number, exp.Literal) or not number.is_int or tree.find(exp.AggFunc) is not None:
            return 1.0
        return min(1.0, max(1.0, float(number.name)) / max(rows, 1e-3))

    def _step(self, row: dict[str, Any]) -> tuple[float, float]:
        """Return (cost of one pass, rows kept) of one table in the plan."""
        use = self._uses.get(str(row["table"]).lower())
        table = self._schema.tables[use.table] if use is not None else None
        rows = float(row["rows"] or 1)
        if table is None or use is None:
            return rows * 0.6, rows
        size = float(max(1, table.rows))
        share = self._share.get(table.name, 1.0)
        covering = "Using index" in str(row.get("extra") or "") and "condition" not in str(row.get("extra"))
        kept = 1.0
        for predicate in use.predicates:
            kept *= selectivity(predicate, table, self._values)
        kept = max(kept, 1.0 / size)
        width = table.size_bytes / size
        how = row["type"]
        if how == "ALL":
            return size * (0.4 + width / 150), size * kept
        spec = self._specs.get(str(row["key"] or ""))
        if how == "index":
            narrow = sum(c.stats.width for c in map(table.column, spec.columns) if c) if spec else width
            return size * ((0.4 + narrow / 150) if covering else 0.6 + _SEEK), size * kept
        matched = 1.0
        if how in ("ref", "ref_or_null", "fulltext") and spec is not None:
            matched = self._looked_up(row, use, table, spec, size)
        elif how not in ("const", "eq_ref", "system"):
            matched = max(1.0, rows / share)
        per = 3.0 + matched * (0.6 if covering or row["key"] == "PRIMARY" else 0.6 + _SEEK)
        return per, min(matched, max(size * kept, 1e-3)) if how != "eq_ref" else max(min(1.0, kept * 4), 1e-3)

    def _looked_up(self, row: dict[str, Any], use: Any, table: Table, spec: IndexSpec, size: float) -> float:
        parts = str(row["ref"] or "").split(",")
        known = {p.column: p for p in use.predicates if p.kind in ("eq", "in", "null")}
        share, joined = 1.0, []
        for key in spec.keys[: len(parts)]:
            if key.name in known:
                share *= selectivity(known[key.name], table, self._values)
            else:
                joined.append(key.name)
        if joined:
            share /= max(1.0, prefix_distinct(table, joined)[-1])
        return max(size * share, 1e-3)
