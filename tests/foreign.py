"""Random schemas that nobody here made, hostile rows, and statements on them: the same for each seed.

made = Foreign(7, "postgres")
made.ddl, made.inserts, made.statements
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

DIALECTS = ("sqlite", "postgres", "mysql")

_INTS = {"sqlite": ("INTEGER", "INT", "BIGINT"), "postgres": ("integer", "bigint", "smallint"),
         "mysql": ("INT", "BIGINT", "SMALLINT UNSIGNED", "INT UNSIGNED")}  # fmt: skip
_TEXTS = {
    "sqlite": ("TEXT", "TEXT COLLATE NOCASE", "VARCHAR(20)", "TEXT COLLATE RTRIM"),
    "postgres": ("text", "varchar(20)", "char(5)", 'text COLLATE "C"', "mood"),
    "mysql": ("VARCHAR(20)", "CHAR(5)", "VARCHAR(20) COLLATE utf8mb4_bin", "ENUM('a','A','b','ab')", "TEXT"),
}
_DATES = {"sqlite": ("DATE", "TIMESTAMP"), "postgres": ("date", "timestamp", "timestamptz"),
          "mysql": ("DATE", "DATETIME", "TIMESTAMP NULL")}  # fmt: skip
_NUMBERS = {"sqlite": ("REAL", "NUMERIC"), "postgres": ("numeric(8,2)", "double precision"),
            "mysql": ("DECIMAL(8,2)", "DOUBLE", "FLOAT")}  # fmt: skip
_OTHERS = {"sqlite": ("BLOB", "JSON", ""), "postgres": ("jsonb", "int[]", "uuid", "boolean", "inet"),
           "mysql": ("JSON", "TINYINT(1)", "YEAR", "BIT(3)")}  # fmt: skip
_NAMES = (
    "order",
    "Group",
    "user data",
    "select",
    "k",
    "Status",
    "a b",
    "ünï",
    "at",
    "value",
    "x1",
    "NAME",
    "ref",
)
_WORDS = ("a", "A", "b", "ab", "a ", "", "ä", "%", "x_y", "B")
_CODES = {"sqlite": ("TEXT", "TEXT COLLATE NOCASE"), "postgres": ("text", "char(5)"),
          "mysql": ("VARCHAR(9)", "CHAR(5) COLLATE utf8mb4_bin")}  # fmt: skip
_VALUES = {
    "int": ("0", "1", "2", "3", "7", "NULL"),
    "text": (*(f"'{w}'" for w in _WORDS), "NULL"),
    "date": ("'2024-01-01'", "'2024-01-31'", "'2023-12-31'", "'2024-02-29'", "NULL"),
    "number": ("0", "1.5", "-2", "2.25", "3", "NULL"),
}
_LOOSE = ("'n/a'", "'1'", "1.5", "''")  # SQLite keeps them in a column of numbers
_ZERO = ("'0000-00-00'", "'2024-01-00'", "'2024-02-00'", "'2024-03-00'")  # MariaDB where no mode forbids them
_OTHER_VALUES = {
    "BLOB": "x'00ff'", "JSON": "'{\"a\": 1}'", "": "'1'", "jsonb": "'{\"a\": [1]}'", "int[]": "'{1,2}'",
    "uuid": "'00000000-0000-0000-0000-000000000001'", "boolean": "true", "inet": "'10.0.0.1'",
    "int4range": "'[1,5)'", "TINYINT(1)": "1", "YEAR": "2024", "BIT(3)": "b'101'",
}  # fmt: skip


@dataclass
class Column:
    """One column: its name as written, what family it is of, and its type."""

    name: str
    family: str
    type: str
    nullable: bool = True


@dataclass
class Table:
    """One table as it is written in statements."""

    name: str
    columns: list[Column]
    is_view: bool = False

    def some(self, draw: Random, *families: str) -> Column:
        return draw.choice([c for c in self.columns if c.family in families] or self.columns[:1])


class Foreign:
    """A schema of a seed for one engine.

    Attributes:
        ddl: Statements that make it.
        inserts: Statements that fill it.
        changes: Statements that make its rows more hostile; some may be refused.
        statements: What an application might ask; the engine may refuse some.
    """

    def __init__(self, seed: int, dialect: str, *, rows: int = 120, statements: int = 50) -> None:
        self._draw, self.dialect = Random(f"{seed} {dialect}"), dialect
        self.tables: list[Table] = []
        self._keyed = self._full = False
        self.ddl: list[str] = []
        self.inserts: list[str] = []
        self.changes: list[str] = []
        if dialect == "postgres":
            self.ddl += [
                "CREATE TYPE mood AS ENUM ('a', 'A', 'b', 'ab')",
                "CREATE SCHEMA IF NOT EXISTS other",
            ]
        for number in range(self._draw.randint(2, 5)):
            self._table(number, rows)
        if self._draw.random() < 0.6:
            self._view()
        self.statements = list(dict.fromkeys(self._statement() for _ in range(statements)))

    def quote(self, name: str) -> str:
        mark = "`" if self.dialect == "mysql" else '"'
        return f"{mark}{name}{mark}"

    # --- tables ------------------------------------------------------------------------------------

    def _table(self, number: int, rows: int) -> None:
        draw, q = self._draw, self.quote
        name = q(draw.choice((f"t{number}", f"T{number} x", f"order{number}", f"My{number}")))
        if self.dialect == "postgres" and draw.random() < 0.3:
            name = f"other.{name}"
        columns = [Column(q("id"), "int", _INTS[self.dialect][0], nullable=False)]
        kinds = [draw.choice(("int", "int", "text", "text", "date", "number", "other")) for _ in range(6)]
        for column, family in zip(draw.sample(_NAMES, 6), kinds, strict=True):
            types = {"int": _INTS, "text": _TEXTS, "date": _DATES, "number": _NUMBERS, "other": _OTHERS}[
                family
            ]
            columns.append(Column(q(column), family, draw.choice(types[self.dialect]), draw.random() < 0.7))
        if draw.random() < 0.6:  # what is unique, but for NULLs, letters and blanks
            columns.append(Column(q("uq"), "int", _INTS[self.dialect][0], draw.random() < 0.6))
            columns.append(Column(q("code"), "text", draw.choice(_CODES[self.dialect])))
        table = Table(name, columns)
        parts = [f"{c.name} {c.type}{'' if c.nullable else ' NOT NULL'}" for c in columns]
        has_key = draw.random() < 0.85
        if has_key:
            parts.append(f"PRIMARY KEY ({q('id')})")
        if columns[-1].name == q("code"):
            parts += [f"UNIQUE ({q('uq')})", f"UNIQUE ({q('code')})"]
        if self.tables and draw.random() < 0.5 and not self.tables[0].is_view and self._keyed:
            target = self.tables[0].name
            column = next((c for c in columns[1:7] if c.family == "int" and c.type == columns[0].type), None)
            if column is not None and self._full:
                parts.append(f"FOREIGN KEY ({column.name}) REFERENCES {target} ({q('id')})")
        if not self.tables:
            self._keyed = has_key
        tail = " WITHOUT ROWID" if self.dialect == "sqlite" and has_key and draw.random() < 0.2 else ""
        self.ddl.append(f"CREATE TABLE {name} ({', '.join(parts)}){tail}")
        self._indexes(number, table)
        self._rows(table, rows)
        self.tables.append(table)

    def _indexes(self, number: int, table: Table) -> None:
        draw = self._draw
        for place in range(draw.randint(0, 2)):
            chosen = draw.sample([c for c in table.columns if c.family in ("int", "date", "number")], 1)
            text = table.some(draw, "text")
            if self.dialect != "mysql" and draw.random() < 0.4:
                chosen.append(text)
            where = (
                f" WHERE {chosen[0].name} IS NOT NULL"
                if self.dialect != "mysql" and draw.random() < 0.3
                else ""
            )
            keys = ", ".join(dict.fromkeys(c.name for c in chosen))
            self.ddl.append(f"CREATE INDEX i{number}_{place} ON {table.name} ({keys}){where}")

    def _value(self, column: Column) -> str:
        draw = self._draw
        if column.family == "other":
            found = _OTHER_VALUES[column.type]
            return "NULL" if column.nullable and draw.random() < 0.3 else found
        values = _VALUES[column.family]
        if column.type in ("mood", "ENUM('a','A','b','ab')"):
            values = ("'a'", "'A'", "'b'", "'ab'", "NULL")
        if self.dialect == "sqlite" and column.family in ("int", "number") and draw.random() < 0.05:
            return draw.choice(_LOOSE)
        if self.dialect == "mysql" and column.type in ("DATE", "DATETIME") and draw.random() < 0.05:
            return draw.choice(_ZERO)
        if column.type.endswith("UNSIGNED") or column.type == "TIMESTAMP NULL":
            values = tuple(v for v in values if not v.startswith("-"))
        return draw.choice(values if column.nullable else values[:-1])

    def _rows(self, table: Table, rows: int) -> None:
        draw = self._draw
        rows = draw.choice((0, 1, rows, rows, rows))
        self._full = (not self.tables and rows > 9) or (bool(self.tables) and self._full)
        lines = []
        for n in range(rows):
            values = [str(n), *(self._value(c) for c in table.columns[1:])]
            if table.columns[-1].name == self.quote("code"):
                values[-2] = "NULL" if table.columns[-2].nullable and draw.random() < 0.3 else str(n)
                values[-1] = draw.choice(("NULL", f"'c{n}'", f"'c{n}'"))
            lines.append(f"({', '.join(values)})")
        for start in range(0, rows, 60):
            self.inserts.append(f"INSERT INTO {table.name} VALUES {', '.join(lines[start : start + 60])}")
        for column in draw.sample(table.columns[1:], 2):
            kept = draw.choice(("id % 3 = 0", "id < 9", "id > 2")).replace("id", self.quote("id"))
            self.changes.append(f"UPDATE {table.name} SET {column.name} = {self._value(column)} WHERE {kept}")
        self.changes.append(f"DELETE FROM {table.name} WHERE {self.quote('id')} > {draw.randint(0, 40)}")

    def _view(self) -> None:
        base = self._draw.choice(self.tables)
        names = ", ".join(c.name for c in base.columns)
        column = base.some(self._draw, "int", "number")
        self.ddl.append(f"CREATE VIEW v0 AS SELECT {names} FROM {base.name} WHERE {column.name} IS NOT NULL")
        self.tables.append(Table("v0", base.columns, is_view=True))

    # --- statements --------------------------------------------------------------------------------

    def _statement(self) -> str:
        draw = self._draw
        makers = (
            self._plain, self._plain, self._join, self._join, self._grouped, self._within, self._within,
            self._exists, self._scalar, self._union, self._cte, self._distinct, self._window, self._change,
            self._derived, self._either,
        )  # fmt: skip
        return draw.choice(makers)()

    def _term(self, table: Table, alias: str = "", depth: int = 0) -> str:
        draw = self._draw
        column = table.some(draw, draw.choice(("int", "text", "date", "number")))
        name = f"{alias}.{column.name}" if alias else column.name
        if column.family == "other":
            return f"{name} IS NOT NULL"
        value = draw.choice([v for v in _VALUES[column.family] if v != "NULL"])
        other = draw.choice([v for v in _VALUES[column.family] if v != "NULL"])
        forms = [
            f"{name} = {value}", f"{name} = {value}", f"{name} <> {value}", f"{name} > {value}",
            f"{name} <= {value}", f"{name} IS NULL", f"{name} IS NOT NULL", f"{name} IN ({value}, {other})",
            f"{name} NOT IN ({value}, {other})", f"{name} BETWEEN {value} AND {other}",
            f"coalesce({name}, {value}) = {other}", f"NOT ({name} = {value})",
            f"CASE WHEN {name} = {value} THEN 1 ELSE 0 END = 1",
        ]  # fmt: skip
        if column.family == "text":
            forms += [f"{name} LIKE '{draw.choice(('a%', '%b', 'a_', 'A%', ''))}'", f"lower({name}) = 'a'",
                      f"{name} || 'x' = 'ax'" if self.dialect != "mysql" else f"concat({name}, 'x') = 'ax'",
                      f"substr({name}, 1, 1) = 'a'", f"upper({name}) LIKE 'A%'"]  # fmt: skip
        if column.family == "int":
            forms += [f"{name} + 1 = 3", f"{name} - 2 > 0", f"{name} * 2 < 6", f"-{name} > -3",
                      f"abs({name}) = 2", f"{name} % 2 = 0", f"3 < {name}", f"{name} / 2 = 1"]  # fmt: skip
        if column.family == "date":
            days = [f"date({name}) = {value}", f"CAST({name} AS DATE) = {value}"]
            forms += days + {
                "sqlite": [f"strftime('%Y', {name}) = '2024'", f"CAST({name} AS DATE) = 2024"],
                "postgres": [f"extract(year from {name}) = 2024",
                             f"date_trunc('month', {name}) = '2024-01-01'"],
                "mysql": [f"DATE({name}) = '2024-02-29'", f"YEAR({name}) = 2024", f"MONTH({name}) = 1"],
            }[self.dialect]  # fmt: skip
        if draw.random() < 0.2:
            return draw.choice(self._retold(column, name))
        if depth < 1 and draw.random() < 0.25:
            word = draw.choice(("OR", "OR", "AND"))
            return f"({self._term(table, alias, 1)} {word} {self._term(table, alias, 1)})"
        return draw.choice(forms)

    def _retold(self, column: Column, name: str) -> list[str]:
        """Return terms that a parser may take for others, or write in other words."""
        if self.dialect == "sqlite":
            more = [f"CAST({name} AS NUMERIC) = 1", f"CAST({name} AS STRING) = 0", f"CAST({name} AS INT) = 1",
                    f"'{{\"a.b\": 1}}' ->> 'a.b' = {name}", f"{name} == 1"]  # fmt: skip
        elif self.dialect == "mysql":
            more = [f"{name} || 'x' = 'ax'", f"{name} = \"a\"", f"{name} IS NOT NULL /*! AND {name} > 0 */",
                    f"CAST({name} AS CHAR) LIKE '1\\%'", f"NOT {name} = 1"]  # fmt: skip
        else:
            more = [f"{name}::varchar(1) = '1'", f"CAST({name} AS text) = '1'", f"{name}::text LIKE '2024%'"]
            more += [f"{name}::numeric(9, 1) = 1.0"] if column.family in ("int", "number") else []
        return self._draw.sample(more, 2)

    def _where(self, table: Table, alias: str = "", least: int = 0) -> str:
        terms = [self._term(table, alias) for _ in range(self._draw.randint(least, 3))]
        return f" WHERE {' AND '.join(terms)}" if terms else ""

    def _columns(self, table: Table, alias: str = "") -> str:
        draw = self._draw
        if draw.random() < 0.15:
            return f"{alias}.*" if alias else "*"
        chosen = draw.sample(table.columns, draw.randint(1, 3))
        names = [f"{alias}.{c.name}" if alias else c.name for c in chosen]
        if draw.random() < 0.2:
            names[0] += f" AS {self.quote('out')}"
        return ", ".join(names)

    def _tail(self, table: Table, alias: str = "") -> str:
        draw = self._draw
        column = table.some(draw, "int", "date", "number", "text")
        name = f"{alias}.{column.name}" if alias else column.name
        key = f"{alias}.{self.quote('id')}" if alias else self.quote("id")
        return draw.choice(
            ("", "", f" ORDER BY {name}", f" ORDER BY {name} DESC, {key}", f" ORDER BY {key} LIMIT 5",
             f" ORDER BY {name}, {key} LIMIT 10 OFFSET 3", " LIMIT 7")
        )  # fmt: skip

    def _plain(self) -> str:
        table = self._draw.choice(self.tables)
        return (
            f"SELECT {self._columns(table)} FROM {table.name}{self._where(table, least=1)}{self._tail(table)}"
        )

    def _pair(self) -> tuple[Table, Table, str]:
        """Return two tables and an equality of theirs, of one family."""
        draw = self._draw
        one, two = draw.choice(self.tables), draw.choice(self.tables)
        family = draw.choice(("int", "int", "int", "text", "number"))
        mine, theirs = one.some(draw, family), two.some(draw, family)
        if self.dialect == "postgres" and mine.family == theirs.family == "text" and mine.type != theirs.type:
            return one, two, f"x.{mine.name}::text = y.{theirs.name}::text"
        return one, two, f"x.{mine.name} = y.{theirs.name}"

    def _join(self) -> str:
        one, two, on = self._pair()
        kind = self._draw.choice(("JOIN", "LEFT JOIN", "JOIN", ","))
        source = f"{one.name} x {kind} {two.name} y" + ("" if kind == "," else f" ON {on}")
        where = self._where(one, "x", least=1) + (
            "" if self._draw.random() < 0.5 else f" AND {self._term(two, 'y')}"
        )
        if kind == ",":
            where += f" AND {on}"
        columns = ", ".join((self._columns(one, "x"), f"y.{self.quote('id')}"))
        if self._draw.random() < 0.2:
            columns = "DISTINCT " + columns
        return f"SELECT {columns} FROM {source}{where}{self._tail(one, 'x')}"

    def _grouped(self) -> str:
        draw = self._draw
        table = draw.choice(self.tables)
        by, of = table.some(draw, "int", "text"), table.some(draw, "number", "int")
        made = draw.choice(
            (f"count({of.name})", "count(*)", f"sum({of.name})", f"min({of.name})", f"max({of.name})")
        )
        having = draw.choice(("", f" HAVING {made} > 1", f" HAVING {made} IS NOT NULL"))
        order = draw.choice(("", f" ORDER BY {by.name}", " ORDER BY 2, 1"))
        source = f"{table.name}{self._where(table)}"
        return f"SELECT {by.name}, {made} FROM {source} GROUP BY {by.name}{having}{order}"

    def _within(self) -> str:
        one, two, on = self._pair()
        left, right = on.split(" = ")
        word = self._draw.choice(("IN", "NOT IN"))
        inner = f"SELECT {right} FROM {two.name} y{self._where(two, 'y')}"
        if self._draw.random() < 0.2:
            inner = inner.replace("SELECT", "SELECT DISTINCT", 1)
        more = f" AND {self._term(one, 'x')}" if self._draw.random() < 0.5 else ""
        return f"SELECT {self._columns(one, 'x')} FROM {one.name} x WHERE {left} {word} ({inner}){more}"

    def _exists(self) -> str:
        one, two, on = self._pair()
        word = self._draw.choice(("EXISTS", "NOT EXISTS"))
        more = f" AND {self._term(two, 'y')}" if self._draw.random() < 0.6 else ""
        inner = f"SELECT {self._draw.choice(('1', '*'))} FROM {two.name} y WHERE {on}{more}"
        return (
            f"SELECT {self._columns(one, 'x')} FROM {one.name} x WHERE {word} ({inner}){self._tail(one, 'x')}"
        )

    def _scalar(self) -> str:
        draw = self._draw
        one, two, on = self._pair()
        of, mine = two.some(draw, "int", "number"), one.some(draw, "int", "number")
        made = draw.choice(
            ("count(*)", f"max(y.{of.name})", f"avg(y.{of.name})", f"sum(y.{of.name})", f"count(y.{of.name})")
        )
        inner = f"(SELECT {made} FROM {two.name} y WHERE {on})"
        compared = draw.choice(
            (f"{inner} > 0", f"{inner} = 0", f"x.{mine.name} < {inner}", f"x.{mine.name} = {inner}")
        )
        if draw.random() < 0.3:
            return f"SELECT x.{self.quote('id')}, {inner} FROM {one.name} x{self._where(one, 'x')}"
        return f"SELECT {self._columns(one, 'x')} FROM {one.name} x WHERE {compared}"

    def _union(self) -> str:
        table = self._draw.choice(self.tables)
        column = table.some(self._draw, "int", "text")
        word = self._draw.choice(("UNION", "UNION ALL"))
        parts = [f"SELECT {column.name} FROM {table.name}{self._where(table, least=1)}" for _ in range(2)]
        return f" {word} ".join(parts)

    def _cte(self) -> str:
        one, two, on = self._pair()
        inner = f"SELECT * FROM {two.name}{self._where(two)}"
        source = f"{one.name} x JOIN w y ON {on}{self._where(one, 'x')}"
        return f"WITH w AS ({inner}) SELECT x.{self.quote('id')} FROM {source}"

    def _derived(self) -> str:
        one, two, on = self._pair()
        inner = f"SELECT * FROM {two.name} z{self._where(two, 'z')}"
        source = f"{one.name} x LEFT JOIN ({inner}) y ON {on}{self._where(one, 'x')}"
        return f"SELECT {self._columns(one, 'x')} FROM {source}"

    def _distinct(self) -> str:
        table = self._draw.choice(self.tables)
        chosen = [c.name for c in self._draw.sample(table.columns, 2) if c.type not in ("json",)]
        if self.dialect == "sqlite" and self._draw.random() < 0.5:
            chosen = [
                self.quote("id"),
                f"CAST({chosen[-1]} AS {self._draw.choice(('NUMERIC', 'DATE', 'STRING'))})",
            ]
        names = ", ".join(chosen)
        return f"SELECT DISTINCT {names} FROM {table.name}{self._where(table)}"

    def _window(self) -> str:
        table = self._draw.choice(self.tables)
        by, of = table.some(self._draw, "int", "text"), self.quote("id")
        return (
            f"SELECT {of}, row_number() OVER (PARTITION BY {by.name} ORDER BY {of}) FROM {table.name}"
            f"{self._where(table, least=1)}"
        )

    def _either(self) -> str:
        table = self._draw.choice(self.tables)
        terms = [self._term(table, depth=1) for _ in range(self._draw.randint(2, 4))]
        columns, tail = self._columns(table), self._tail(table)
        if self._draw.random() < 0.4:  # in the order of what is selected: a UNION may have another
            text = table.some(self._draw, "text", "number").name
            columns, tail = f"{self.quote('id')}, {text}", f" ORDER BY {text}"
        return f"SELECT {columns} FROM {table.name} WHERE {' OR '.join(terms)}{tail}"

    def _change(self) -> str:
        draw = self._draw
        table = draw.choice([t for t in self.tables if not t.is_view])
        column = draw.choice(table.columns[1:])
        where = self._where(table, least=1)
        if draw.random() < 0.3:
            return f"DELETE FROM {table.name}{where}"
        return f"UPDATE {table.name} SET {column.name} = {self._value(column)}{where}"


def seeds(first: int, count: int) -> Iterator[tuple[int, str]]:
    """Yield seeds with each engine in turn."""
    for seed in range(first, first + count):
        for dialect in DIALECTS:
            yield seed, dialect
