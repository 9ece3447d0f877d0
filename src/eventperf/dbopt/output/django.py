"""Write advice as a Django migration, with the lines that belong into the models."""

from __future__ import annotations

from collections.abc import Mapping
from keyword import iskeyword
from typing import Any, Final

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from eventperf._core.texts import one_line
from eventperf.dbopt.findings import Findings, IndexAdvice
from eventperf.dbopt.schema.ddl import quote, quote_table
from eventperf.dbopt.schema.engines import ENGINES
from eventperf.dbopt.schema.model import NAME_LIMIT, IndexSpec, Key, index_name

_FUNCTIONS: Final = {exp.Lower: "Lower", exp.Upper: "Upper"}
_LOOKUPS: Final = {exp.EQ: "", exp.GT: "__gt", exp.GTE: "__gte", exp.LT: "__lt", exp.LTE: "__lte"}


class _Unwritable(Exception):
    """Django's index classes cannot say this."""


def django(
    advice: Findings,
    *,
    app_label: str = "app",
    dependency: str = "0001_initial",
    models: Mapping[str, str] | None = None,
    fields: Mapping[str, Mapping[str, str]] | None = None,
    others: Mapping[str, tuple[str, str]] | None = None,
) -> str:
    """Return a migration of one app.

    Args:
        advice: What to write.
        app_label: The app the migration is for.
        dependency: Its last migration.
        models: Model names by table. When given, indexes of other tables are left to other apps.
        fields: Field names by table and column, where they differ.
        others: Tables of other apps, such as installed packages, with their last migration: their indexes are
            written in SQL, as their models are not ours to change.
    """
    is_online = bool(ENGINES[advice.dialect].concurrently)
    operations, notes = [], []
    imports: set[str] = set()
    dependencies = [(app_label, dependency)]
    for index in advice.indexes:
        spec = index.spec
        bare = spec.table.rpartition(".")[2]
        is_others = models is not None and spec.table not in models and bare not in models
        if is_others and bare in (others or {}):
            theirs = (others or {})[bare][0], (others or {})[bare][1]  # from JSON it is a list
            dependencies += [theirs] if theirs not in dependencies else []
            notes.append(one_line(f"# {spec.label()} is written in SQL: its model is of the app {theirs[0]}"))
            operations.append(_by_hand(index, advice.dialect))
            continue
        if is_others:
            notes.append(f"# {one_line(spec.label())} belongs to another app")
            continue
        known = models or {}
        model = known.get(spec.table) or known.get(bare) or _model_name(spec.table, app_label)
        try:
            writer = _Writer(advice.dialect, (fields or {}).get(spec.table, (fields or {}).get(bare, {})))
            text = writer.index(spec, index.name)
        except _Unwritable as reason:
            notes.append(one_line(f"# {spec.label()} is written in SQL: {reason}"))
            operations.append(_by_hand(index, advice.dialect))
            continue
        imports |= writer.imports
        if is_online:
            imports.add("from django.contrib.postgres.operations import AddIndexConcurrently")
        operation = "AddIndexConcurrently" if is_online else "migrations.AddIndex"
        operations.append(f"        {operation}(model_name={model.lower()!r}, index={text}),")
        notes.append(f"# Meta.indexes of {one_line(model)}: {text}")
    head = sorted({*imports, "from django.db import migrations, models"})
    atomic = "    atomic = False\n" if is_online else ""
    return (
        '"""Add the advised indexes; the same lines belong into the models, so that no drift is seen."""\n\n'
        + "\n".join(head)
        + "\n\n"
        + "\n".join(notes)
        + f"\n\n\nclass Migration(migrations.Migration):\n{atomic}"
        f"    dependencies = {dependencies!r}\n    operations = [\n" + "\n".join(operations) + "\n    ]\n"
    )


def _by_hand(index: IndexAdvice, dialect: str) -> str:
    engine = ENGINES[dialect]
    schema = index.spec.table.rpartition(".")[0] if engine.has_schemas else ""
    name = f"{quote(schema, dialect)}.{quote(index.name, dialect)}" if schema else quote(index.name, dialect)
    back = engine.drop_index.format(index=name, table=quote_table(index.spec.table, dialect))
    return f"        migrations.RunSQL({index.sql!r}, {back!r}),"


def _model_name(table: str, app_label: str) -> str:
    name = table.rpartition(".")[2]
    return name.removeprefix(f"{app_label}_").replace("_", "")


class _Writer:
    """Writes one index as Django's classes; collects what has to be imported."""

    def __init__(self, dialect: str, fields: Mapping[str, str]) -> None:
        self.imports: set[str] = set()
        self._dialect, self._fields = dialect, fields

    def index(self, spec: IndexSpec, name: str) -> str:
        if any(k.prefix for k in spec.keys):
            raise _Unwritable("Django's indexes know no prefix lengths")
        if any(k.opclass and k.opclass.isupper() for k in spec.keys):
            raise _Unwritable("Django's indexes know no collations")
        parts = [f"name={(name if len(name) <= NAME_LIMIT else index_name(spec, limit=NAME_LIMIT))!r}"]
        cls = "models.Index"
        if spec.method in ("gin", "gist"):
            cls = {"gin": "GinIndex", "gist": "GistIndex"}[spec.method]
            self.imports.add(f"from django.contrib.postgres.indexes import {cls}")
        elif spec.method != "btree":
            raise _Unwritable(f"its access method is {spec.method}")
        if any(k.is_expression or k.nulls_first is not None for k in spec.keys):
            parts = [*(self._expression(k) for k in spec.keys), *parts]
        else:
            names = [f"{'-' if k.descending else ''}{self._field(k.name)}" for k in spec.keys]
            parts = [f"fields={names!r}", *parts]
            if any(k.opclass for k in spec.keys):
                parts.append(f"opclasses={[k.opclass or '' for k in spec.keys]!r}")
        if spec.include:
            parts.append(f"include={[self._field(c) for c in spec.include]!r}")
        if spec.where:
            parts.append(f"condition={self._condition(spec.where)}")
        return f"{cls}({', '.join(parts)})"

    def _field(self, column: str) -> str:
        return self._fields.get(column, column)

    def _expression(self, key: Key) -> str:
        if not key.is_expression:
            text = f"models.F({self._field(key.name)!r})"
        else:
            tree = self._parse(key.name)
            function = _FUNCTIONS.get(type(tree))
            if function is None or not isinstance(tree.this, exp.Column):
                raise _Unwritable(f"its expression {key.name} has no counterpart")
            self.imports.add(f"from django.db.models.functions import {function}")
            text = f"{function}({self._field(tree.this.name)!r})"
        if key.opclass:
            self.imports.add("from django.contrib.postgres.indexes import OpClass")
            text = f"OpClass({text}, name={key.opclass!r})"
        nulls = {None: "", True: "nulls_first=True", False: "nulls_last=True"}[key.nulls_first]
        if key.descending:
            return f"{text}.desc({nulls})"
        return f"{text}.asc({nulls})" if nulls else text

    def _condition(self, where: str) -> str:
        parts = [self._term(term) for term in _conjuncts(self._parse(where))]
        return " & ".join(parts)

    def _term(self, term: Any) -> str:
        negated = isinstance(term, exp.Not)
        inner = _bare(term.this) if negated else term
        if isinstance(inner, exp.Is) and isinstance(inner.expression, exp.Null):
            return self._q(inner.this, "__isnull", repr(not negated))
        if isinstance(inner, exp.In) and inner.expressions and not inner.args.get("query"):
            values = [_literal(v) for v in inner.expressions]
            return ("~" if negated else "") + self._q(inner.this, "__in", repr(values))
        lookup = _LOOKUPS.get(type(inner))
        if lookup is not None and not negated:
            return self._q(inner.this, lookup, repr(_literal(inner.expression)))
        raise _Unwritable(f"its condition {term.sql(dialect=self._dialect)} has no counterpart")

    def _q(self, node: Any, lookup: str, value: str) -> str:
        name = f"{self._name(node)}{lookup}"
        if name.isidentifier() and not iskeyword(name):
            return f"models.Q({name}={value})"
        return f"models.Q(({name!r}, {value}))"

    def _name(self, node: Any) -> str:
        if not isinstance(node, exp.Column):
            raise _Unwritable("its condition is on more than a column")
        return self._field(node.name)

    def _parse(self, text: str) -> Any:
        try:
            return _bare(sqlglot.parse_one(text, read=self._dialect))
        except SqlglotError as error:
            raise _Unwritable(f"{text} cannot be read") from error


def _bare(node: Any) -> Any:
    while isinstance(node, exp.Paren):
        node = node.this
    return node


def _conjuncts(tree: Any) -> list[Any]:
    tree = _bare(tree)
    if isinstance(tree, exp.And):
        return [*_conjuncts(tree.left), *_conjuncts(tree.right)]
    return [tree]


def _literal(node: Any) -> Any:
    node = _bare(node)
    if isinstance(node, exp.Cast):
        node = _bare(node.this)
    if isinstance(node, exp.Boolean):
        return bool(node.this)
    if isinstance(node, exp.Literal):
        if node.is_string:
            return node.name
        return float(node.name) if "." in node.name else int(node.name)
    raise _Unwritable("its condition compares with more than a literal")
