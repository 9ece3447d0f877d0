"""Rows that are made to prove two statements different.

Drawn from the statement's own constants and their neighbours, with NULLs wherever the schema allows them,
duplicates wherever no key forbids them, texts that some collation takes for one another, and what SQLite
lets stand in a column of numbers.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import random
import re
from collections.abc import Sequence
from typing import Any

from sqlglot import exp

from eventperf.dbopt.schema.model import Column, Schema, Table
from eventperf.dbopt.schema.types import category

from .tree import Node
from .trust import is_whole


def domains(tree: Node, table: Table, schema: Schema) -> dict[str, tuple[list[Any], list[Any]]]:
    """Return the values each column may take: constants it is compared with, their neighbours, and a few."""
    found: dict[str, list[Any]] = {c.lower(): [] for c in table.columns}
    for node in tree.find_all(exp.Predicate):
        if node.find(exp.Select) is not None and not isinstance(node, exp.In):
            continue
        literals = [n for n in node.find_all(exp.Literal) if n.find_ancestor(exp.Predicate) is node]
        for column in node.find_all(exp.Column):
            if column.name.lower() in found:
                found[column.name.lower()] += [n.name for n in literals]
    out = {}
    for column in table.columns.values():
        hits, others = _values(column.type, found[column.name.lower()])
        is_loose = schema.dialect == "sqlite" and not is_whole(column, table, "sqlite")
        if is_loose and category(column.type) == "int":
            others = [*others, "n/a", 1.5]  # which SQLite keeps as they are
        out[column.name] = hits, others
    return out


def _values(type_: str, literals: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Return values that constants of the statement suggest, and a few others."""
    family = category(type_)
    hits: list[Any] = []
    if family in ("int", "num"):
        for text in literals:
            with contextlib.suppress(ValueError):
                number = float(text)
                hits += (
                    [number - 1, number, number + 1] if family == "num" else [int(number), int(number) + 1]
                )
        return hits, [1, 2, 3, 50] if family == "int" else [1.0, 2.0, 5.0]
    if family in ("date", "time", "zoned"):
        for text in literals:
            with contextlib.suppress(ValueError):
                day = dt.date.fromisoformat(text[:10])
                hits += [day, day + dt.timedelta(days=1), day - dt.timedelta(days=1)]
        each = ([d.isoformat() for d in days] for days in (hits, [dt.date(1995, 1, 15), dt.date(2026, 5, 1)]))
        return tuple(  # type: ignore[return-value]
            t if family == "date" else [f"{d} {h}" for d in t for h in ("00:00:00", "13:14:15")] for t in each
        )
    if family == "bool":
        return [True, False], []
    if family == "text":
        if type_.lower().startswith("enum"):
            return re.findall(r"'([^']*)'", type_), []
        length = re.search(r"\((\d+)\)", type_)
        cut = int(length[1]) if length else 1_000
        for text in literals:
            bare = text.replace("%", "").replace("_", "x")
            hits += [bare[:cut], text.replace("%", "q").replace("_", "x")[:cut]]
        return hits, ["a", "b", "A", "", "a ", *(h.upper() for h in hits)]
    if not type_:
        return [], [1, 2, "a"]
    raise ValueError(f"no rows can be made for type {type_}")


def draw_rows(
    table: Table,
    domains: dict[str, tuple[list[Any], list[Any]]],
    draw: random.Random,
    few: int,
    hit: bool,
    dialect: str,
) -> list[tuple[Any, ...]]:
    """Draw few rows from few values: conditions and joins must hit, keys must repeat where they may."""
    keys = [k for k in (table.primary_key, *table.unique_sets) if k]
    chosen: dict[str, list[Any]] = {}
    for column in table.columns.values():
        hits, others = domains[column.name]
        pool = hits if hits and hit else [*hits, *others]
        if hits:
            pool = draw.sample(pool, min(len(pool), draw.choice([1, 2, 3])))
        elif not any(column.name in k for k in keys):
            pool = pool[:few]  # the same few values in every table, so that joins find partners
        chosen[column.name] = pool
        if column.nullable and draw.random() < 0.6:
            chosen[column.name] = [*pool, None]
    out: list[tuple[Any, ...]] = []
    seen: dict[tuple[str, ...], set[Any]] = {k: set() for k in keys}
    names = list(table.columns)
    for _ in range(draw.choice([0, 1, 4, 8, 12, 12])):
        row = {name: draw.choice(chosen[name]) for name in names}
        marks = {k: tuple(_mark(row[c], table.column(c), dialect) for c in k if c in row) for k in keys}
        clash = any(marks[k] in seen[k] for k in keys if all(row.get(c) is not None for c in k))
        if clash or any(row.get(c) is None for c in table.primary_key):
            continue
        for key, mark in marks.items():
            seen[key].add(mark)
        out.append(tuple(row[name] for name in names))
    return out


def _mark(value: Any, column: Column | None, dialect: str) -> str:
    """Return a value as a key sees it: texts that its collation takes for one are one."""
    collation = (column.collation if column is not None else None) or ""
    text = str(value)
    if dialect == "mysql":
        return text.rstrip(" ") if collation.endswith("_bin") else text.casefold().rstrip(" ")
    return {"NOCASE": text.lower(), "RTRIM": text.rstrip(" ")}.get(collation.upper(), text)
