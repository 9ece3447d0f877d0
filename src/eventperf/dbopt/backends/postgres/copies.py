"""Sampled copies of the application's tables, as temporary tables of one session in ``what_if``.

Only what the statements touch is copied: their tables, and of those the columns they read and the columns of
existing indexes; the others are there without their values. Keys, exclusion constraints, indexes, collations
and the application's own types come along, because plans depend on them. All of it is gone when the session
ends, however it ends.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, Final

from eventperf.dbopt.protocols import Query, columns_of
from eventperf.dbopt.schema.ddl import quote, quote_table
from eventperf.dbopt.schema.model import Schema, Table
from eventperf.dbopt.schema.vetting import is_immutable
from eventperf.dbopt.statements.lex import tokens

from .drivers import pour

_WHOLE: Final = 20_000
_SHARE: Final = 0.02
#: A table of no more rows and bytes is copied whole at once: that takes no longer than to sample it.
_SMALL_ROWS: Final = 100_000
_SMALL_BYTES: Final = 16_000_000
_READ_MS: Final = 10_000
#: Rows and bytes that are copied and analysed in a second, at least, and no more of one table than this.
_ROWS_PER_S: Final = 200_000
_BYTES_PER_S: Final = 20_000_000
_MOST_ROWS: Final = 5_000_000
#: A copy with this share of the rows is whole: how many there are is an estimate.
WHOLE: Final = 0.9
_UNWANTED: Final = ("plpgsql", "hypopg", "pg_stat_statements")
_INDEXES: Final = """
SELECT pg_get_indexdef(i.indexrelid), c.relname, k.conname, k.contype, pg_get_constraintdef(k.oid)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
WHERE i.indrelid = to_regclass(%s) AND i.indisvalid ORDER BY c.relname
"""
_COLLATIONS: Final = """
SELECT a.attname, quote_ident(n.nspname) || '.' || quote_ident(l.collname)
FROM pg_attribute a JOIN pg_collation l ON l.oid = a.attcollation
JOIN pg_namespace n ON n.oid = l.collnamespace
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped AND l.collname <> 'default'
"""
_ENUMS: Final = """
SELECT DISTINCT t.typname, ARRAY(SELECT quote_literal(e.enumlabel) FROM pg_enum e WHERE e.enumtypid = t.oid
                                 ORDER BY e.enumsortorder)
FROM pg_attribute a JOIN pg_type c ON c.oid = a.atttypid
JOIN pg_type t ON t.oid = CASE WHEN c.typelem <> 0 THEN c.typelem WHEN c.typbasetype <> 0 THEN c.typbasetype
                          ELSE c.oid END
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped AND t.typtype = 'e'
"""
_DOMAINS: Final = """
SELECT DISTINCT t.typname, format_type(t.typbasetype, t.typtypmod)
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped AND t.typtype = 'd'
"""
_COMPOSITES: Final = """
SELECT DISTINCT t.typname, (
  SELECT string_agg(quote_ident(f.attname) || ' ' || format_type(f.atttypid, f.atttypmod), ', '
                    ORDER BY f.attnum)
  FROM pg_attribute f WHERE f.attrelid = t.typrelid AND f.attnum > 0 AND NOT f.attisdropped)
FROM pg_attribute a JOIN pg_type c ON c.oid = a.atttypid
JOIN pg_type t ON t.oid = CASE WHEN c.typelem <> 0 THEN c.typelem ELSE c.oid END
JOIN pg_class r ON r.oid = t.typrelid AND r.relkind = 'c'
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
"""
_VISIBLE: Final = """
SELECT coalesce(max(least(1.0, relallvisible::float8 / relpages)), 1.0) FROM pg_class
WHERE oid = to_regclass(%s) AND relpages > 0
"""
#: Words that may follow a table's name without being its alias.
_NO_ALIAS: Final = frozenset(
    (
        *("where", "join", "left", "right", "inner", "cross", "full", "natural", "on", "using", "lateral"),
        *("group", "order", "having", "limit", "offset", "fetch", "for", "window", "tablesample"),
        *("union", "except", "intersect", "set", "returning", "values", "select", "with", "when", "default"),
    )
)


class Copies:
    """Makes copies when a statement needs them.

    Args:
        psycopg: The driver.
        source: Opens a connection to the application's database; only read.
        schema: Its tables.
    """

    def __init__(
        self, psycopg: Any, source: Callable[[], AbstractContextManager[Any]], schema: Schema
    ) -> None:
        self._psycopg, self._source, self._schema = psycopg, source, schema
        self.notes: list[str] = []
        self._wanted: dict[str, set[str]] = {}
        self._computed: dict[str, set[str]] = {}
        self.copied: dict[str, str] = {}
        self.rows: dict[str, int] = {}
        self._made: dict[str, frozenset[str]] = {}
        self._views: set[str] = set()
        self._extended = False
        times = Counter(t.bare for t in schema.tables.values())
        self._places = {n: _place(t, times[t.bare]) for n, t in schema.tables.items()}
        self._restored: set[str] = set()

    def expect(self, queries: Iterable[Query]) -> None:
        """Note what statements will ask for, so that each table is copied once."""
        for query in queries:
            for table, columns in columns_of(query, self._schema).items():
                self._wanted.setdefault(table, set()).update(columns)
            for use in query.analysis.uses:
                computed = {p.expression for p in use.predicates if p.inner == "range" and p.expression}
                self._computed.setdefault(use.table, set()).update(computed)

    def place(self, table: str) -> str:
        """Return the name of a table's copy."""
        return table if table in self._restored else self._places[table]

    def is_restored(self, table: str) -> bool:
        """Tell whether the owner of ``what_if`` put a table there, so that no copy was made."""
        return table in self._restored

    def forget(self) -> None:
        """Note that all copies are gone with their session."""
        self._made.clear()
        self._views.clear()
        self._extended = False

    def lacks(self, query: Query) -> bool:
        """Tell whether something that a statement needs is not copied yet."""
        needs = columns_of(query, self._schema)
        if any(
            not columns <= self._made.get(t, frozenset()) or t not in self._made
            for t, columns in needs.items()
        ):
            return True
        return any(v not in self._views for v in query.analysis.views)

    def make(self, db: Any, query: Query) -> set[str]:
        """Copy what a statement needs; return the tables that were made anew."""
        self.expect((query,))
        fresh: set[str] = set()
        with self._source() as source:
            self._extend(db, source)
            for name in sorted(columns_of(query, self._schema)):
                columns = frozenset(self._wanted[name])
                if name in self._made and columns <= self._made[name]:
                    continue
                self._one(db, source, self._schema.tables[name], columns)
                self._made[name] = columns
                fresh.add(name)
        for view in reversed(query.analysis.views):
            self._view(db, view)
        return fresh

    def fill(self, db: Any, end: float) -> None:
        """Copy all rows of what is a sample, the smallest tables first, as long as there is time.

        Args:
            db: The session of the copies, in auto-commit.
            end: Monotonic time to end at.
        """
        made = [self._schema.tables[n] for n in self._made if n not in self._restored]
        sampled = [t for t in made if self.rows.get(t.name, 0) < WHOLE * t.rows]
        for table in sorted(sampled, key=lambda t: t.rows):
            takes_s = max(table.rows / _ROWS_PER_S, table.size_bytes / _BYTES_PER_S)
            left_s = end - time.monotonic()
            if table.rows > _MOST_ROWS or takes_s > left_s:
                continue
            columns = self._made.pop(table.name)  # what fails is made again, when it is asked for
            db.execute(f"DROP TABLE IF EXISTS pg_temp.{quote(self._places[table.name], 'postgres')} CASCADE")
            with suppress(self._psycopg.Error), self._source() as source:
                source.execute(f"SET LOCAL statement_timeout = {max(1, int(left_s * 1000))}")
                self._fill(db, source, table, columns, is_whole=True)
                self._made[table.name] = columns

    # --- making --------------------------------------------------------------------------------

    def _extend(self, db: Any, source: Any) -> None:
        """Have the extensions whose types and operators the tables may use, where they can be had."""
        if self._extended:
            return
        self._extended = True
        here = {r[0] for r in db.execute("SELECT extname FROM pg_extension").fetchall()}
        for (name,) in source.execute("SELECT extname FROM pg_extension").fetchall():
            if name not in here and name not in _UNWANTED:
                with suppress(self._psycopg.Error):
                    db.execute(f"CREATE EXTENSION IF NOT EXISTS {quote(name, 'postgres')}")

    def _one(self, db: Any, source: Any, table: Table, columns: frozenset[str]) -> None:
        real = quote_table(table.name, "postgres")
        if table.name not in self._made:
            if db.execute("SELECT to_regclass(%s)", (real,)).fetchone()[0] is not None:
                self._restored.add(table.name)  # the user restored a copy here: better than a sample
                return
        elif table.name in self._restored:
            return
        try:
            db.execute(f"DROP TABLE IF EXISTS pg_temp.{quote(self._places[table.name], 'postgres')} CASCADE")
            self._types(db, source, real)
            is_small = table.rows <= _SMALL_ROWS and table.size_bytes <= _SMALL_BYTES
            self._fill(db, source, table, columns, is_whole=is_small)
        except self._psycopg.Error as error:
            if not source.closed:
                source.rollback()
            said = str(error).splitlines()[0]
            note = f"{table.name} could not be copied to what_if: {said}"
            if note not in self.notes:
                self.notes.append(note)

    def _types(self, db: Any, source: Any, real: str) -> None:
        """Make the application's enums, domains and composites: statements cast to them by name."""
        for name, labels in source.execute(_ENUMS, (real,)).fetchall():
            with suppress(self._psycopg.Error):  # it is there
                db.execute(f"CREATE TYPE pg_temp.{quote(name, 'postgres')} AS ENUM ({', '.join(labels)})")
        for name, base in source.execute(_DOMAINS, (real,)).fetchall():
            with suppress(self._psycopg.Error):
                db.execute(f"CREATE DOMAIN pg_temp.{quote(name, 'postgres')} AS {base}")
        for name, parts in source.execute(_COMPOSITES, (real,)).fetchall():
            with suppress(self._psycopg.Error):
                db.execute(f"CREATE TYPE pg_temp.{quote(name, 'postgres')} AS ({parts})")

    def _fill(
        self, db: Any, source: Any, table: Table, columns: frozenset[str], *, is_whole: bool = False
    ) -> None:
        real, short = quote_table(table.name, "postgres"), quote(self._places[table.name], "postgres")
        copied = [c for c in table.columns if c in columns]
        rows = [] if is_whole else self._read(source, table, copied)
        collations = dict(source.execute(_COLLATIONS, (real,)).fetchall())
        parts = []
        for column in table.columns.values():
            kind = self._type(db, column.type)
            if column.name in collations and kind == column.type:
                kind += f" COLLATE {collations[column.name]}"
            must = " NOT NULL" if column.name in columns and not column.nullable else ""
            parts.append(f"{quote(column.name, 'postgres')} {kind}{must}")
        # A sample on thin pages: fewer rows, but not as few pages, for the price of a scan is in pages.
        thin = " WITH (fillfactor = 10)" if not is_whole and len(rows) < WHOLE * table.rows else ""
        db.execute(f"CREATE TEMPORARY TABLE {short} ({', '.join(parts)}){thin}")
        count, names = len(rows), ", ".join(quote(c, "postgres") for c in copied)
        if is_whole and copied:
            into = f"COPY {short} ({names}) FROM STDIN"
            count = pour(source, f"COPY (SELECT {names} FROM {real}) TO STDOUT", db, into)
        elif copied:
            with db.cursor() as cursor, cursor.copy(f"COPY {short} ({names}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        self.rows[table.name] = count
        self.copied[table.name] = f"{len(copied)} of {len(table.columns)} columns of {count:,} rows"
        self._distinct(db, table, short)
        self._statistics(db, table, short)
        self._indexes(db, source, real, short)
        db.execute(f"VACUUM ANALYZE {short}")  # else no index alone would ever answer a query
        ((visible,),) = source.execute(_VISIBLE, (real,)).fetchall()
        with suppress(self._psycopg.Error):  # superusers only; else ratios of the sample have to do
            db.execute(
                "UPDATE pg_class SET reltuples = %s, relpages = greatest(1, pg_relation_size(oid) / 8192), "
                "relallvisible = floor(%s * greatest(1, pg_relation_size(oid) / 8192)) "
                "WHERE oid = to_regclass(%s)",
                (float(table.rows), float(visible), f"pg_temp.{short}"),
            )

    def _type(self, db: Any, type_: str) -> str:
        """Return a column's type, or text where ``what_if`` does not know it."""
        known = db.execute("SELECT to_regtype(%s)", (type_.partition("(")[0],)).fetchone()[0]
        return type_ if known is not None else "text"

    def _read(self, source: Any, table: Table, columns: Sequence[str]) -> list[Any]:
        name = quote_table(table.name, "postgres")
        share = max(_SHARE, _WHOLE / max(1, table.rows))
        pick = "" if share >= 1 or table.is_partitioned else f" TABLESAMPLE SYSTEM ({100 * share:.4f})"
        limit = f" LIMIT {_WHOLE}" if table.is_partitioned else ""
        # As text, which COPY reads back for every type: drivers know neither 'infinity' nor all types.
        wanted = ", ".join(f"{quote(c, 'postgres')}::text" for c in columns) or "NULL"
        source.execute(f"SET LOCAL statement_timeout = {_READ_MS}")
        found: list[Any] = source.execute(f"SELECT {wanted} FROM {name}{pick}{limit}").fetchall()
        if len(found) < min(table.rows, 1_000):  # few, full pages: a sample of rows instead
            found = source.execute(f"SELECT {wanted} FROM {name} LIMIT {min(table.rows, _WHOLE)}").fetchall()
        return found

    def _distinct(self, db: Any, table: Table, short: str) -> None:
        for column in table.columns.values():
            if table.rows and column.stats.distinct > 100:
                share = -min(1.0, column.stats.distinct / table.rows)
                with suppress(self._psycopg.Error):
                    db.execute(
                        f"ALTER TABLE {short} ALTER COLUMN {quote(column.name, 'postgres')} "
                        f"SET (n_distinct = {share:.8f})"
                    )

    def _statistics(self, db: Any, table: Table, short: str) -> None:
        """Have the values of expressions counted, as they would be once an index on one is built."""
        for number, text in enumerate(sorted(self._computed.get(table.name, ()))):
            if is_immutable(text, table, "postgres"):
                name = quote(f"ep_{self._places[table.name][:40]}_{number}", "postgres")
                with suppress(self._psycopg.Error):  # before PostgreSQL 14
                    db.execute(f"CREATE STATISTICS pg_temp.{name} ON ({text}) FROM {short}")

    def _indexes(self, db: Any, source: Any, real: str, short: str) -> None:
        """Make the indexes and the keys: which columns a GROUP BY may leave out rests on these."""
        for text, name, constraint, kind, definition in source.execute(_INDEXES, (real,)).fetchall():
            head, _, rest = text.partition(" ON ")
            with suppress(self._psycopg.Error):  # of a type or function that is not here
                if kind == "x":
                    db.execute(
                        f"ALTER TABLE {short} ADD CONSTRAINT {quote(constraint, 'postgres')} {definition}"
                    )
                    continue
                db.execute(f"{head} ON {short}{rest[rest.index(' USING ') :]}")
                if kind in ("p", "u"):
                    word = "PRIMARY KEY" if kind == "p" else "UNIQUE"
                    index, named = quote(name, "postgres"), quote(constraint, "postgres")
                    db.execute(f"ALTER TABLE {short} ADD CONSTRAINT {named} {word} USING INDEX {index}")

    def _view(self, db: Any, view: str) -> None:
        """Make a view over the copies, unless ``what_if`` has one."""
        if view in self._views:
            return
        self._views.add(view)
        if db.execute("SELECT to_regclass(%s)", (quote_table(view, "postgres"),)).fetchone()[0] is not None:
            return
        name = quote(_flat(view), "postgres")
        text = self.local(self._schema.views[view].rstrip().rstrip(";"))
        try:
            db.execute(f"CREATE TEMPORARY VIEW {name} AS {text}")
        except self._psycopg.Error as error:
            self.notes.append(f"view {view} could not be made in what_if: {str(error).splitlines()[0]}")

    # --- names ---------------------------------------------------------------------------------

    def local(self, sql: str) -> str:
        """Return a statement with tables of other schemas named as their copies are."""
        places = {
            (t.namespace.lower(), t.bare.lower()): self._places[n]
            for n, t in self._schema.tables.items()
            if t.namespace and n not in self._restored
        }
        places |= {
            (v.partition(".")[0].lower(), v.partition(".")[2].lower()): _flat(v)
            for v in self._views
            if "." in v
        }
        parts = tokens(sql, "postgres")
        words = [i for i, t in enumerate(parts) if t.kind not in ("space", "comment")]
        out = [t.text for t in parts]
        seen: dict[str, set[str]] = {}
        for i, dot, j in zip(words, words[1:], words[2:], strict=False):
            place = places.get((_unquoted(parts[i].text), _unquoted(parts[j].text)))
            if parts[dot].text == "." and place is not None:
                seen.setdefault(_unquoted(parts[j].text), set()).add(place)
        twice = {name for name, found in seen.items() if len(found) > 1}
        for at in range(len(words) - 2):
            i, dot, j = words[at : at + 3]
            if parts[dot].text != "." or parts[i].kind not in ("word", "ident"):
                continue
            place = places.get((_unquoted(parts[i].text), _unquoted(parts[j].text)))
            if place is None or (at and parts[words[at - 1]].text == "."):
                continue
            after = parts[words[at + 3]] if at + 3 < len(words) else None
            out[i] = out[dot] = ""
            if _unquoted(parts[j].text) in twice:
                out[j] = quote(place, "postgres")  # two of one name: told apart by their places
                continue
            if after is not None and after.text == ".":
                continue  # schema.table.column: the table's name is its alias
            out[j] = quote(place, "postgres")
            if place.lower() != _unquoted(parts[j].text) and not _is_alias(after):
                out[j] += f" AS {parts[j].text}"
        return "".join(out)


def _place(table: Table, times: int) -> str:
    """Return the name of a copy: the table's own, unless another schema's table has it."""
    bare = table.bare
    return bare if times == 1 or table.is_visible else _flat(table.name)


def _flat(name: str) -> str:
    return name.rpartition(".")[2] if "." not in name else f"ep_{name.replace('.', '_')}"[:63]


def _unquoted(text: str) -> str:
    return text[1:-1].replace('""', '"').lower() if text.startswith('"') else text.lower()


def _is_alias(token: Any) -> bool:
    if token is None or token.kind not in ("word", "ident"):
        return False
    return token.kind == "ident" or token.text.lower() not in _NO_ALIAS
