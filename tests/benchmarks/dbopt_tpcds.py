"""TPC-DS by duckdb's own generator, for SQLite and PostgreSQL; primary keys only."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlglot
from sqlglot import exp

#: Keys of more than one column; the others have their first one.
_KEYS = {
    "store_sales": "ss_item_sk, ss_ticket_number",
    "store_returns": "sr_item_sk, sr_ticket_number",
    "catalog_sales": "cs_item_sk, cs_order_number",
    "catalog_returns": "cr_item_sk, cr_order_number",
    "web_sales": "ws_item_sk, ws_order_number",
    "web_returns": "wr_item_sk, wr_order_number",
    "inventory": "inv_date_sk, inv_item_sk, inv_warehouse_sk",
}
_TARGETS = {"sqlite": "sqlite", "postgres": "postgres"}


class Generator:
    """duckdb with its ``tpcds`` extension, or an ``ImportError`` that says what to install."""

    def __init__(self, scale: float) -> None:
        try:
            import duckdb

            spec = importlib.util.find_spec("duckdb_extension_tpcds")
            place = Path(spec.origin).parent if spec and spec.origin else None
        except ImportError:
            place = None
        files = sorted(place.rglob("tpcds.duckdb_extension")) if place else []
        if not files:
            raise ImportError("TPC-DS needs duckdb and duckdb-extension-tpcds of one version")
        self.db: Any = duckdb.connect()
        self.db.execute(f"LOAD '{files[-1]}'")
        self.db.execute(f"CALL dsdgen(sf = {scale})")

    def tables(self) -> dict[str, str]:
        """Return the definitions of all tables."""
        found: dict[str, list[tuple[str, str]]] = {}
        for table, name, type_ in self.db.execute(
            "SELECT table_name, column_name, data_type FROM information_schema.columns "
            "ORDER BY table_name, ordinal_position"
        ).fetchall():
            found.setdefault(table, []).append((name, type_))
        out = {}
        for table, columns in found.items():
            key = _KEYS.get(table, columns[0][0])
            must = key.split(", ")
            parts = [f"{n} {t}{' NOT NULL' * (n in must)}" for n, t in columns]
            out[table] = ", ".join([*parts, f"PRIMARY KEY ({key})"])
        return out

    def foreign_keys(self) -> list[str]:
        """Return one index for each column that points to another table."""
        return [
            f"{table} ({column})"
            for table, text in self.tables().items()
            for column in (part.split()[0] for part in text.partition(", PRIMARY KEY")[0].split(", "))
            if column.endswith("_sk") and not text.endswith(f"PRIMARY KEY ({column})")
        ]

    def rows(self, table: str, kind: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of one table, in types that the engine's driver takes."""
        columns = []
        for name, type_ in self.db.execute(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = ? "
            "ORDER BY ordinal_position",
            [table],
        ).fetchall():
            if type_ == "DATE":
                name = f"CAST({name} AS VARCHAR)"
            elif type_.startswith("DECIMAL") and kind == "sqlite":
                name = f"CAST({name} AS DOUBLE)"
            columns.append(name)
        found = self.db.execute(f"SELECT {', '.join(columns)} FROM {table}")
        while block := found.fetchmany(20_000):
            yield from block

    def queries(self, kind: str) -> dict[str, str]:
        """Return the 99 queries in the engine's own SQL, as far as they can be written in it."""
        found = self.db.execute("SELECT query_nr, query FROM tpcds_queries() ORDER BY 1").fetchall()
        out = {}
        for number, sql in found:
            try:
                out[f"Q{number:02d}"] = translated(sql, _TARGETS[kind])
            except sqlglot.errors.SqlglotError:
                continue
        return out

    def close(self) -> None:
        self.db.close()


def translated(sql: str, target: str) -> str:
    """Write a query of the benchmark in another dialect."""
    tree: Any = sqlglot.parse_one(sql.strip().rstrip(";"), read="duckdb")
    if target == "sqlite":  # dates are text there, and casting one to DATE would leave its year

        def plain(node: Any) -> Any:
            if isinstance(node, exp.Cast) and node.to.is_type("date"):
                return node.this
            if isinstance(node, (exp.Add, exp.Sub)) and isinstance(node.expression, exp.Interval):
                sign = "+" if isinstance(node, exp.Add) else "-"
                span = f"{sign}{node.expression.this.name} {node.expression.unit or 'day'}s"
                return exp.func("date", node.this, exp.Literal.string(span))
            return node

        tree = tree.transform(plain)
    return str(tree.sql(dialect=target))
