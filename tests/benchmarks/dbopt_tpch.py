"""TPC-H by duckdb's own generator, for SQLite, PostgreSQL and MariaDB; primary keys only."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlglot
from sqlglot import exp

TABLES = {
    "region": "r_regionkey INT PRIMARY KEY, r_name VARCHAR(25) NOT NULL, r_comment VARCHAR(152) NOT NULL",
    "nation": "n_nationkey INT PRIMARY KEY, n_name VARCHAR(25) NOT NULL, n_regionkey INT NOT NULL, "
    "n_comment VARCHAR(152) NOT NULL",
    "customer": "c_custkey INT PRIMARY KEY, c_name VARCHAR(25) NOT NULL, c_address VARCHAR(40) NOT NULL, "
    "c_nationkey INT NOT NULL, c_phone VARCHAR(15) NOT NULL, c_acctbal DECIMAL(15,2) NOT NULL, "
    "c_mktsegment VARCHAR(10) NOT NULL, c_comment VARCHAR(117) NOT NULL",
    "supplier": "s_suppkey INT PRIMARY KEY, s_name VARCHAR(25) NOT NULL, s_address VARCHAR(40) NOT NULL, "
    "s_nationkey INT NOT NULL, s_phone VARCHAR(15) NOT NULL, s_acctbal DECIMAL(15,2) NOT NULL, "
    "s_comment VARCHAR(101) NOT NULL",
    "part": "p_partkey INT PRIMARY KEY, p_name VARCHAR(55) NOT NULL, p_mfgr VARCHAR(25) NOT NULL, "
    "p_brand VARCHAR(10) NOT NULL, p_type VARCHAR(25) NOT NULL, p_size INT NOT NULL, "
    "p_container VARCHAR(10) NOT NULL, p_retailprice DECIMAL(15,2) NOT NULL, p_comment VARCHAR(23) NOT NULL",
    "partsupp": "ps_partkey INT NOT NULL, ps_suppkey INT NOT NULL, ps_availqty INT NOT NULL, "
    "ps_supplycost DECIMAL(15,2) NOT NULL, ps_comment VARCHAR(199) NOT NULL, "
    "PRIMARY KEY (ps_partkey, ps_suppkey)",
    "orders": "o_orderkey INT PRIMARY KEY, o_custkey INT NOT NULL, o_orderstatus VARCHAR(1) NOT NULL, "
    "o_totalprice DECIMAL(15,2) NOT NULL, o_orderdate DATE NOT NULL, o_orderpriority VARCHAR(15) NOT NULL, "
    "o_clerk VARCHAR(15) NOT NULL, o_shippriority INT NOT NULL, o_comment VARCHAR(79) NOT NULL",
    "lineitem": "l_orderkey INT NOT NULL, l_partkey INT NOT NULL, l_suppkey INT NOT NULL, "
    "l_linenumber INT NOT NULL, l_quantity DECIMAL(15,2) NOT NULL, l_extendedprice DECIMAL(15,2) NOT NULL, "
    "l_discount DECIMAL(15,2) NOT NULL, l_tax DECIMAL(15,2) NOT NULL, l_returnflag VARCHAR(1) NOT NULL, "
    "l_linestatus VARCHAR(1) NOT NULL, l_shipdate DATE NOT NULL, l_commitdate DATE NOT NULL, "
    "l_receiptdate DATE NOT NULL, l_shipinstruct VARCHAR(25) NOT NULL, l_shipmode VARCHAR(10) NOT NULL, "
    "l_comment VARCHAR(44) NOT NULL, PRIMARY KEY (l_orderkey, l_linenumber)",
}


class Generator:
    """duckdb with its ``tpch`` extension, or an ``ImportError`` that says what to install."""

    def __init__(self, scale: float) -> None:
        try:
            import duckdb

            spec = importlib.util.find_spec("duckdb_extension_tpch")
            place = Path(spec.origin).parent if spec and spec.origin else None  # type: ignore[union-attr]
        except ImportError:
            place = None
        files = sorted(place.rglob("tpch.duckdb_extension")) if place else []
        if not files:
            raise ImportError("TPC-H needs duckdb and duckdb-extension-tpch of one version")
        self.db: Any = duckdb.connect()
        self.db.execute(f"LOAD '{files[-1]}'")
        self.db.execute(f"CALL dbgen(sf = {scale})")

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
        """Return Q01 to Q22 in the engine's own SQL."""
        target = {"sqlite": "sqlite", "postgres": "postgres", "mariadb": "mysql"}[kind]
        found = self.db.execute("SELECT query_nr, query FROM tpch_queries() ORDER BY 1").fetchall()
        return {f"Q{number:02d}": translated(sql, target) for number, sql in found}

    def answer(self, name: str) -> list[Any]:
        """Return duckdb's own result of one query."""
        sql = self.db.execute(
            "SELECT query FROM tpch_queries() WHERE query_nr = ?", [int(name[1:])]
        ).fetchone()
        return list(self.db.execute(sql[0]).fetchall())

    def close(self) -> None:
        self.db.close()


def translated(sql: str, target: str) -> str:
    """Write a query of the benchmark in another dialect."""
    tree: Any = sqlglot.parse_one(sql.strip().rstrip(";"), read=target)
    for subquery in tree.find_all(exp.Subquery):  # (...) AS t (a, b): only PostgreSQL can
        alias = subquery.args.get("alias")
        names = alias.args.get("columns") if alias is not None else None
        if names and target != "postgres":
            inner = subquery.this.expressions
            subquery.this.set(
                "expressions", [exp.alias_(e.unalias(), n) for e, n in zip(inner, names, strict=True)]
            )
            alias.set("columns", None)
    if target == "sqlite":  # dates are text there, and casting one to DATE would leave its year

        def plain(node: Any) -> Any:
            if isinstance(node, exp.Cast) and node.to.is_type("date"):
                return node.this
            if isinstance(node, exp.Extract):
                return sqlglot.parse_one(
                    f"CAST(strftime('%Y', {node.expression.sql()}) AS INT)", read="sqlite"
                )
            return node

        tree = tree.transform(plain)
    return str(tree.sql(dialect=target))
