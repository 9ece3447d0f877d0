"""Write advice as an Alembic migration."""

from __future__ import annotations

from eventperf._core.texts import one_line
from eventperf.dbopt.findings import Findings
from eventperf.dbopt.schema.ddl import quote
from eventperf.dbopt.schema.engines import ENGINES
from eventperf.dbopt.schema.model import IndexSpec


def alembic(
    advice: Findings, *, revision: str = "eventperf_indexes", down_revision: str | None = None
) -> str:
    """Return a migration of one revision."""
    up, down, notes = [], [], []
    engine = ENGINES[advice.dialect]
    online = [f"{engine.options}_concurrently=True"] if engine.concurrently else []
    for index in advice.indexes:
        schema, table = _split(index.spec, advice.dialect)
        where = [f"schema={schema!r}"] if schema else []
        parts = _keys(index.spec, advice.dialect)
        options = _options(index.spec, advice.dialect)
        arguments = [repr(index.name), repr(table), f"[{', '.join(parts)}]", *where, *online, *options]
        up.append(f"op.create_index({', '.join(arguments)})")
        down.append(
            f"op.drop_index({', '.join([repr(index.name), f'table_name={table!r}', *where, *online])})"
        )
        notes.append(f"#   {one_line(table)}: sa.Index({', '.join([repr(index.name), *parts, *options])})")
    block = "    with op.get_context().autocommit_block():\n" if online else ""
    indent = " " * (8 if online else 4)
    return (
        '"""Add the advised indexes."""\n\nimport sqlalchemy as sa  # noqa: F401\nfrom alembic import op\n\n'
        f"revision = {revision!r}\ndown_revision = {down_revision!r}\n"
        "branch_labels = None\ndepends_on = None\n\n"
        + (
            "# The same indexes in the models' __table_args__, so that autogenerate sees no drift:\n"
            if notes
            else ""
        )
        + "".join(f"{note}\n" for note in notes)
        + "\n\ndef upgrade():\n"
        + _body(up, block, indent)
        + "\n\ndef downgrade():\n"
        + _body(down[::-1], block, indent)
    )


def _split(spec: IndexSpec, dialect: str) -> tuple[str, str]:
    schema, _, table = spec.table.rpartition(".") if ENGINES[dialect].has_schemas else ("", "", spec.table)
    return schema, table


def _body(lines: list[str], block: str, indent: str) -> str:
    return "    pass\n" if not lines else block + "".join(f"{indent}{line}\n" for line in lines)


def _keys(spec: IndexSpec, dialect: str) -> list[str]:
    out = []
    for number, key in enumerate(spec.keys):
        if key.is_expression and key.opclass:
            # A label carries the operator class: inside the text, autogenerate could not compare it.
            label = f".label('e{number}')" if not key.descending else ".desc()"
            out.append(f"sa.literal_column({f'({key.name})'!r}){label}")
        elif key.is_expression:
            inner = ENGINES[dialect].expression.format(key.name)
            out.append(f"sa.text({(inner + (' DESC' if key.descending else ''))!r})")
        elif key.opclass and key.opclass.isupper():  # a collation of SQLite
            text = f"{quote(key.name, dialect)} COLLATE {key.opclass}{key.order}"
            out.append(f"sa.text({text!r})")
        elif key.nulls_first is not None:
            place = "first" if key.nulls_first else "last"
            out.append(f"sa.column({key.name!r}){'.desc()' if key.descending else ''}.nulls_{place}()")
        else:
            # column(...).desc() is compared by its name; as text it would be drift on SQLite and MySQL.
            out.append(f"sa.column({key.name!r}).desc()" if key.descending else repr(key.name))
    return out


def _options(spec: IndexSpec, dialect: str) -> list[str]:
    """Return SQLAlchemy's options of the index; a spec has only what its engine knows."""
    prefix = ENGINES[dialect].options
    lengths = {k.name: k.prefix for k in spec.keys if k.prefix}
    classes = {
        f"e{n}" if k.is_expression else k.name: k.opclass
        for n, k in enumerate(spec.keys)
        if k.opclass and not k.opclass.isupper() and not k.descending
    }
    out = []
    if lengths:
        out.append(f"{prefix}_length={lengths!r}")
    if spec.where:
        out.append(f"{prefix}_where=sa.text({spec.where!r})")
    if spec.include:
        out.append(f"{prefix}_include={list(spec.include)!r}")
    if spec.method != "btree":
        out.append(f"{prefix}_using={spec.method!r}")
    if classes:
        out.append(f"{prefix}_ops={classes!r}")
    return out
