"""Write advice as a migration that Django's or Alembic's own tools run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from eventperf._core.errors import ConfigurationError

from .model import IndexSpec, index_name

if TYPE_CHECKING:
    from .advice import Advice

_DJANGO_NAME = 30  # Django refuses longer names of indexes on every engine


def migration(advice: Advice, kind: Literal["django", "alembic"], **options: Any) -> str:
    """Return the text of a migration file; see :meth:`Advice.to_migration`."""
    if kind == "django":
        return _django(advice, **options)
    if kind == "alembic":
        return _alembic(advice, **options)
    raise ConfigurationError("kind", kind, "django or alembic")


def _alembic(advice: Advice, *, revision: str = "eventperf_indexes", down_revision: str | None = None) -> str:
    up, down = [], []
    postgres = advice.dialect == "postgres"
    for index in advice.indexes:
        spec = index.spec
        schema, _, table = spec.table.rpartition(".") if postgres else ("", "", spec.table)
        arguments = [repr(index.name), repr(table), f"[{', '.join(_alembic_keys(spec))}]"]
        where = [f"schema={schema!r}"] if schema else []
        extra = list(where)
        if postgres:
            extra += _postgres_options(spec)
        elif advice.dialect == "mysql":
            lengths = {k.name: k.prefix for k in spec.keys if k.prefix}
            extra += [f"mysql_length={lengths!r}"] if lengths else []
        elif spec.where:
            extra.append(f"sqlite_where=sa.text({spec.where!r})")
        up.append(f"op.create_index({', '.join(arguments + extra)})")
        gone = [repr(index.name), f"table_name={table!r}", *where]
        down.append(
            f"op.drop_index({', '.join(gone + (['postgresql_concurrently=True'] if postgres else []))})"
        )
    block = "    with op.get_context().autocommit_block():\n" if postgres else ""
    indent = " " * (8 if postgres else 4)
    return (
        '"""Add the advised indexes."""\n\nimport sqlalchemy as sa  # noqa: F401\nfrom alembic import op\n\n'
        f"revision = {revision!r}\ndown_revision = {down_revision!r}\n"
        "branch_labels = None\ndepends_on = None\n\n\n"
        "def upgrade():\n"
        + _body(up, block, indent)
        + "\n\ndef downgrade():\n"
        + _body(down[::-1], block, indent)
    )


def _body(lines: list[str], block: str, indent: str) -> str:
    return "    pass\n" if not lines else block + "".join(f"{indent}{line}\n" for line in lines)


def _alembic_keys(spec: IndexSpec) -> list[str]:
    out = []
    for key in spec.keys:
        direction = " DESC" if key.descending else ""
        if key.is_expression:
            out.append(f"sa.text({f'({key.name}){direction}'!r})")
        else:
            out.append(f"sa.text({f'{key.name}{direction}'!r})" if key.descending else repr(key.name))
    return out


def _postgres_options(spec: IndexSpec) -> list[str]:
    out = ["postgresql_concurrently=True"]
    if spec.include:
        out.append(f"postgresql_include={list(spec.include)!r}")
    if spec.where:
        out.append(f"postgresql_where=sa.text({spec.where!r})")
    if spec.method != "btree":
        out.append(f"postgresql_using={spec.method!r}")
    classes = {k.name: k.opclass for k in spec.keys if k.opclass and not k.is_expression}
    if classes:
        out.append(f"postgresql_ops={classes!r}")
    return out


def _django(
    advice: Advice,
    *,
    app_label: str = "app",
    dependency: str = "0001_initial",
    models: Mapping[str, str] | None = None,
) -> str:
    postgres = advice.dialect == "postgres"
    operation = "AddIndexConcurrently" if postgres else "migrations.AddIndex"
    operations, notes = [], []
    for index in advice.indexes:
        model = (models or {}).get(index.spec.table) or _model_name(index.spec.table, app_label)
        text = _django_index(index.spec)
        if text is None:
            notes.append(f"# {index.spec.label()} cannot be written as a Django index: {index.sql}")
            continue
        operations.append(f"        {operation}(model_name={model.lower()!r}, index={text}),")
        notes.append(f"# Meta.indexes of {model}: {text}")
    imports = "from django.db import migrations, models\n"
    if postgres:
        imports = "from django.contrib.postgres.operations import AddIndexConcurrently\n" + imports
    atomic = "    atomic = False\n" if postgres else ""
    return (
        '"""Add the advised indexes; the same lines belong into the models, so that no drift is seen."""\n\n'
        + f"{imports}\n"
        + "\n".join(notes)
        + f"\n\n\nclass Migration(migrations.Migration):\n{atomic}"
        f"    dependencies = [({app_label!r}, {dependency!r})]\n    operations = [\n"
        + "\n".join(operations)
        + "\n    ]\n"
    )


def _model_name(table: str, app_label: str) -> str:
    name = table.rpartition(".")[2]
    return name.removeprefix(f"{app_label}_").replace("_", "")


def _django_index(spec: IndexSpec) -> str | None:
    if spec.where or any(k.is_expression or k.prefix for k in spec.keys) or spec.method != "btree":
        return None
    fields = [f"{'-' if k.descending else ''}{k.name}" for k in spec.keys]
    name = index_name(spec, limit=_DJANGO_NAME)
    parts = [f"fields={fields!r}", f"name={name!r}"]
    if spec.include:
        parts.append(f"include={list(spec.include)!r}")
    if any(k.opclass for k in spec.keys):
        parts.append(f"opclasses={[k.opclass or '' for k in spec.keys]!r}")
    return f"models.Index({', '.join(parts)})"
