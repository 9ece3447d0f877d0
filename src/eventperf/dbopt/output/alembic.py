"""Write advice as a migration that Django's or Alembic's own tools run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from eventperf._core.errors import ConfigurationError
from eventperf.dbopt.schema.model import IndexSpec

if TYPE_CHECKING:
    from eventperf.dbopt.advice import Advice


def migration(advice: Advice, kind: Literal["django", "alembic"], **options: Any) -> str:
    """Return the text of a migration file; see :meth:`Advice.to_migration`."""
    if kind == "django":
        from .django import django

        return django(advice, **options)
    if kind == "alembic":
        return _alembic(advice, **options)
    raise ConfigurationError("kind", kind, "django or alembic")


def _alembic(advice: Advice, *, revision: str = "eventperf_indexes", down_revision: str | None = None) -> str:
    up, down, notes = [], [], []
    postgres = advice.dialect == "postgres"
    for index in advice.indexes:
        schema, table = _split(index.spec, advice.dialect)
        where = [f"schema={schema!r}"] if schema else []
        parts = _keys(index.spec, advice.dialect)
        options = _options(index.spec, advice.dialect)
        online = ["postgresql_concurrently=True"] if postgres else []
        arguments = [repr(index.name), repr(table), f"[{', '.join(parts)}]", *where, *online, *options]
        up.append(f"op.create_index({', '.join(arguments)})")
        down.append(
            f"op.drop_index({', '.join([repr(index.name), f'table_name={table!r}', *where, *online])})"
        )
        notes.append(f"#   {table}: sa.Index({', '.join([repr(index.name), *parts, *options])})")
    block = "    with op.get_context().autocommit_block():\n" if postgres else ""
    indent = " " * (8 if postgres else 4)
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
    schema, _, table = spec.table.rpartition(".") if dialect == "postgres" else ("", "", spec.table)
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
            inner = f"({key.name})" if dialect == "postgres" else key.name
            out.append(f"sa.text({(inner + (' DESC' if key.descending else ''))!r})")
        else:
            # column(...).desc() is compared by its name; as text it would be drift on SQLite and MySQL.
            out.append(f"sa.column({key.name!r}).desc()" if key.descending else repr(key.name))
    return out


def _options(spec: IndexSpec, dialect: str) -> list[str]:
    out = []
    if dialect == "mysql":
        lengths = {k.name: k.prefix for k in spec.keys if k.prefix}
        return [f"mysql_length={lengths!r}"] if lengths else []
    if spec.where:
        prefix = "postgresql" if dialect == "postgres" else "sqlite"
        out.append(f"{prefix}_where=sa.text({spec.where!r})")
    if dialect == "postgres":
        if spec.include:
            out.append(f"postgresql_include={list(spec.include)!r}")
        if spec.method != "btree":
            out.append(f"postgresql_using={spec.method!r}")
        classes = {
            f"e{n}" if k.is_expression else k.name: k.opclass
            for n, k in enumerate(spec.keys)
            if k.opclass and not k.descending
        }
        if classes:
            out.append(f"postgresql_ops={classes!r}")
    return out
