"""Migrations that Django's and Alembic's own tools run, and see no drift after."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import create_engine

from dbopt_plans import plain_index
from eventperf.dbopt import Advice, DatabaseOptimizer
from eventperf.dbopt.schema.model import IndexSpec, Key

pytestmark = pytest.mark.integration
ENGINES = ["sqlite", "postgres", "mariadb"]
TABLE = "shop_ticket"


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'app.db'}"
    return str(request.getfixturevalue(f"{request.param}_url"))


def specs(dialect: str) -> list[IndexSpec]:
    """One of every kind that the engine has."""
    out = [
        IndexSpec(TABLE, (Key("event_id"), Key("sold_at", descending=True))),
        IndexSpec(TABLE, (Key("status"), Key("order"))),
    ]
    if dialect == "mysql":
        return [*out, IndexSpec(TABLE, (Key("note", prefix=20), Key("sold_at")))]
    out += [
        IndexSpec(TABLE, (Key("LOWER(code)", is_expression=True),)),
        IndexSpec(TABLE, (Key("sold_at"),), where="status = 'open' AND event_id > 3 AND NOT code IS NULL"),
        IndexSpec(TABLE, (Key("code"),), where="status IN ('open', 'it''s') AND order_id IS NULL"),
    ]
    if dialect == "postgres":
        out += [
            IndexSpec(TABLE, (Key("event_id"),), include=("status", "code")),
            IndexSpec(TABLE, (Key("code", opclass="text_pattern_ops"),)),
            IndexSpec(TABLE, (Key("UPPER(code)", is_expression=True, opclass="text_pattern_ops"),)),
        ]
    return [
        s if s.where is None else IndexSpec(s.table, s.keys, where=s.where.replace("order_id", '"order"'))
        for s in out
    ]


def advice_for(url: str) -> Advice:
    with DatabaseOptimizer(url) as optimizer:
        dialect = optimizer.dialect
        advice = Advice(dialect=dialect.name)
        advice.indexes = [plain_index(dialect, spec) for spec in specs(dialect.name)]
    return advice


MODELS = """
from django.db import models
{imports}

class Event(models.Model):
    title = models.CharField(max_length=40)

class Ticket(models.Model):
    event = models.ForeignKey(Event, on_delete=models.CASCADE, db_index=False)
    status = models.CharField(max_length=10)
    place = models.IntegerField(null=True, db_column="order")
    code = models.CharField(max_length=20, null=True)
    note = models.TextField()
    sold_at = models.IntegerField()

    class Meta:
        indexes = [{indexes}]
"""
RUN = """
import json, sys
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["shop", *(["django.contrib.postgres"] if "postgres" in sys.argv[1] else [])],
    USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    DATABASES={"default": json.loads(sys.argv[1])},
)
if "mysql" in sys.argv[1]:
    import pymysql
    pymysql.version_info = (2, 2, 1, "final", 0)
    pymysql.install_as_MySQLdb()
django.setup()
from django.core.management import call_command
from django.db import connection
def names():
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, "shop_ticket")
    return sorted(n for n, c in found.items() if n.startswith("ix_ep"))
for action in sys.argv[2:]:
    if action == "make":
        call_command("makemigrations", "shop", verbosity=0)
    elif action == "options":
        from eventperf.contrib.django import migration_options
        print(json.dumps(migration_options("shop")))
    elif action == "check":
        call_command("makemigrations", check=True, dry_run=True)
    else:
        call_command("migrate", *([] if action == "migrate" else ["shop", action]), verbosity=0)
        print(json.dumps(names()))
connection.close()
"""


def django_database(url: str) -> str:
    made = sa.engine.make_url(url)
    engine = {"sqlite": "sqlite3", "postgresql": "postgresql", "mysql": "mysql"}[made.get_backend_name()]
    return json.dumps(
        {
            "ENGINE": f"django.db.backends.{engine}",
            "NAME": made.database,
            "USER": made.username or "",
            "PASSWORD": made.password or "",
            "HOST": made.host or "",
            "PORT": str(made.port or ""),
            **({"OPTIONS": dict(made.query)} if made.query and engine != "sqlite3" else {}),
        }
    )


def test_django_migrates_there_and_back_and_sees_no_drift(url: str, tmp_path: Path) -> None:
    pytest.importorskip("django")
    app = tmp_path / "shop"
    (app / "migrations").mkdir(parents=True)
    (app / "__init__.py").touch()
    (app / "migrations" / "__init__.py").touch()
    (tmp_path / "run.py").write_text(RUN)

    def models(imports: str = "", indexes: str = "") -> None:
        (app / "models.py").write_text(MODELS.format(imports=imports, indexes=indexes))

    def run(*actions: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "run.py", django_database(url), *actions],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()

    models()
    empty, line = run("make", "migrate", "options")
    assert empty == "[]"
    options = json.loads(line)
    assert options["dependency"] == "0001_initial"
    assert options["models"][TABLE] == "Ticket"
    assert options["fields"][TABLE]["order"] == "place"
    advice = advice_for(url)
    text = advice.to_migration("django", **options)
    (app / "migrations" / "0002_indexes.py").write_text(text)
    lines = re.findall(r"^# Meta\.indexes of Ticket: (.*)$", text, re.MULTILINE)
    imports = re.findall(r"^from .*$", text, re.MULTILINE)
    models(
        "\n".join(i for i in imports if "migrations" not in i and "operations" not in i), ",\n".join(lines)
    )
    there, *output, back, again = run("migrate", "check", "0001", "migrate")
    assert len(json.loads(there)) == len(advice.indexes), text
    assert any("No changes detected" in said for said in output), output
    assert json.loads(back) == []
    assert json.loads(again) == json.loads(there)


ENV = """
from alembic import context
from models import metadata
connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
"""
TABLES = """
import sqlalchemy as sa
metadata = sa.MetaData()
sa.Table("shop_ticket", metadata, sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("event_id", sa.Integer, nullable=False), sa.Column("status", sa.String(10), nullable=False),
    sa.Column("order", sa.Integer), sa.Column("code", sa.String(20)),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("sold_at", sa.Integer, nullable=False),
    {indexes})
"""


@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection")
@pytest.mark.filterwarnings("ignore:autogenerate skipping")
def test_alembic_upgrades_checks_and_downgrades(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("alembic")
    from alembic import command
    from alembic.config import Config

    scope: dict[str, object] = {}
    exec(TABLES.format(indexes=""), scope)
    engine = create_engine(url)
    try:
        scope["metadata"].create_all(engine)  # type: ignore[attr-defined]
        advice = advice_for(url)
        text = advice.to_migration("alembic", revision="a1")
        versions = tmp_path / "scripts" / "versions"
        versions.mkdir(parents=True)
        (versions / "a1_indexes.py").write_text(text)
        (tmp_path / "scripts" / "env.py").write_text(ENV)
        (tmp_path / "scripts" / "script.py.mako").touch()
        lines = re.findall(r"^#   shop_ticket: (.*)$", text, re.MULTILINE)
        assert len(lines) == len(advice.indexes)
        (tmp_path / "models.py").write_text(TABLES.format(indexes=",\n    ".join(lines)))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "models", raising=False)
        config = Config()
        config.set_main_option("script_location", str(tmp_path / "scripts"))
        with engine.connect() as db:
            config.attributes["connection"] = db
            command.upgrade(config, "head")
            db.commit()
            command.check(config)  # raises when autogenerate would write anything
            db.rollback()
            with DatabaseOptimizer(url) as optimizer:
                there = {i.name for i in optimizer.dialect.indexes(TABLE) if not i.primary}
            assert there == {i.name for i in advice.indexes}
            command.downgrade(config, "base")
            db.commit()
        with DatabaseOptimizer(url) as optimizer:
            assert [i.name for i in optimizer.dialect.indexes(TABLE) if not i.primary] == []
    finally:
        engine.dispose()
        sys.modules.pop("models", None)
