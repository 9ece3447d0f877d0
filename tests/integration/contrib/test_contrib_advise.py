"""``manage.py eventperf_advise`` and ``flask eventperf advise`` on the project's own database."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

DJANGO = """
import os, sys
import django
from django.conf import settings
from sqlalchemy.engine import make_url

url = make_url(os.environ["DATABASE"])
settings.configure(
    INSTALLED_APPS=["eventperf.contrib.django"],
    DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql", "NAME": url.database, "USER": url.username,
        "HOST": url.host, "PORT": url.port, "OPTIONS": {"application_name": "the-project"},
    }},
    USE_TZ=True,
)
django.setup()
from django.db import connection, models
from django.core.management import call_command
from eventperf.contrib.django import DjangoRecorder, database_engine

class Visit(models.Model):
    page = models.IntegerField()
    at = models.IntegerField()
    data = models.JSONField(default=dict)
    class Meta:
        app_label = "site"

with connection.schema_editor() as editor:
    editor.create_model(Visit)
Visit.objects.bulk_create([Visit(page=n % 300, at=n) for n in range(9_000)])
with connection.cursor() as cursor:
    cursor.execute("ANALYZE")
with DjangoRecorder() as recorder:
    for n in range(6):
        list(Visit.objects.filter(page=n, data__kind="x").order_by("-at")[:5])
        list(Visit.objects.filter(page=n).values("page").annotate(n=models.Count("id")))
recorder.workload().save("w.json", values=True)
engine = database_engine()
with engine.connect() as db:
    print(db.exec_driver_sql("SELECT current_setting('application_name')").scalar())
engine.dispose()
call_command("eventperf_advise", workload="w.json", json=True, **json_options())
"""

FLASK = """
import json, os, sys
from flask import Flask
from sqlalchemy import create_engine, text
from eventperf.contrib.flask import EventPerf
from eventperf.dbopt import QueryRecorder

app = Flask("site")
app.config["SQLALCHEMY_DATABASE_URI"] = "sqlite:///site.db"
EventPerf(app)
engine = create_engine("sqlite:///site.db")
with engine.begin() as db:
    db.execute(text("CREATE TABLE visits (id INTEGER PRIMARY KEY, page INT, at INT)"))
    rows = [{"p": n % 300, "a": n} for n in range(9000)]
    db.execute(text("INSERT INTO visits (page, at) VALUES (:p, :a)"), rows)
with QueryRecorder(engine) as recorder, engine.connect() as db:
    for n in range(6):
        db.execute(text("SELECT at FROM visits WHERE page = :p ORDER BY at"), {"p": n}).all()
recorder.workload().save("w.json", values=True)
arguments = ["eventperf", "advise", "--workload", "w.json", *sys.argv[1:]]
result = app.test_cli_runner().invoke(args=arguments)
print(result.output)
sys.exit(result.exit_code)
"""


def run(tmp_path: Path, program: str, *arguments: str, **env: str) -> Any:
    (tmp_path / "program.py").write_text(textwrap.dedent(program))
    command = [sys.executable, "program.py", *arguments]
    return subprocess.run(
        command,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_manage_py_advises_on_the_projects_own_connection(tmp_path: Path, postgres_url: str) -> None:
    pytest.importorskip("django")
    program = DJANGO.replace("**json_options()", 'unproved=True, exclude=["nosuch"]')
    done = run(tmp_path, program, DATABASE=postgres_url)
    assert done.returncode == 0, done.stderr
    first, _, rest = done.stdout.partition("\n")
    assert first == "the-project"
    advice = json.loads(rest)
    assert [i for i in advice["indexes"] if i["spec"]["table"] == "site_visit"], advice
    assert not [w for w in advice["warnings"] if "was not analysed" in w], advice["warnings"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [([], "visits (page, at)"), (["--migration"], "op.create_index("), (["--exclude", "visits"], "No index")],
)
def test_flask_advises_on_the_applications_own_database(
    tmp_path: Path, arguments: list[str], expected: str
) -> None:
    pytest.importorskip("flask")
    done = run(tmp_path, FLASK, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert expected in done.stdout
    assert expected == "No index" or "visits" in done.stdout


def test_flask_tells_what_it_cannot_do(tmp_path: Path) -> None:
    pytest.importorskip("flask")
    done = run(tmp_path, FLASK, "--what-if", "mysql+pymysql://nowhere/x")
    assert done.returncode == 1
    assert "what_if" in done.stdout
    assert "Traceback" not in done.stdout
