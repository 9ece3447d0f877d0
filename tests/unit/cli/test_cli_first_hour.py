"""``eventperf init`` and ``eventperf doctor``: the first hour in a project that is there already."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from eventperf.cli.main import main


def blocks(text: str) -> dict[str, str]:
    """Return the printed lines by the file they are for."""
    parts = text.split("# --- ")[1:]
    return {p.partition("\n")[0].removesuffix(" (new)"): p.partition("\n")[2] for p in parts}


def in_python(code: str, folder: Path) -> str:
    env = {k: v for k, v in os.environ.items() if k != "REDIS_URL"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_lines_for_django_run_in_the_project_they_were_made_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("django")
    command = [sys.executable, "-m", "django", "startproject", "shop", str(tmp_path)]
    subprocess.run(command, check=True)
    (tmp_path / "requirements.txt").write_text("Django>=5\ncelery[redis]==5.4  # tasks\npsycopg2-binary\n")
    assert main(["init", "django", "--project", str(tmp_path), "--write"]) == 0
    said = capsys.readouterr().out
    assert "queues: celery" in said
    assert "database: sqlite3, psycopg2-binary" in said
    assert f"]=={version('eventperf')}" in said, "pinned, as its requirements are"
    assert "psycopg 3" in said
    assert "# Worker: python manage.py eventperf_worker" in said
    lines = blocks(said)
    assert (tmp_path / "shop" / "eventperf_app.py").read_text() in said
    for name in ("settings.py", "urls.py"):
        path = tmp_path / "shop" / name
        text = lines.get(f"shop/{name}") or lines[name]
        path.write_text(path.read_text() + "\n" + text.partition("# Then:")[0])
    code = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
import django
from django.conf import settings
settings.ALLOWED_HOSTS = ["*"]
django.setup()
from django.core.cache import cache
from django.core.management import call_command
from django.test import Client
call_command("migrate", verbosity=0)
call_command("check")
from django.contrib.auth.models import User
User.objects.create_superuser("ada", password="x")
client = Client()
print(client.get("/ops/").status_code)
client.login(username="ada", password="x")
print(client.get("/ops/queues").status_code, cache.get_or_set("a", lambda: 1))
"""
    assert in_python(code, tmp_path).splitlines()[-2:] == ["403", "200 1"]


def test_settings_are_those_that_manage_py_names_and_imports_begin_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As large projects lay it out: all below src, settings that import others and assign after them."""
    shop = tmp_path / "src" / "shop"
    shop.mkdir(parents=True)
    for name, text in {
        "../manage.py": "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')\n",
        "__init__.py": "",
        "_base.py": "INSTALLED_APPS = []\n",
        "settings.py": "from ._base import *\nCACHES = {'default': {}, 'other': {'BACKEND': 'its.own'}}\n",
    }.items():
        (shop / name).write_text(text)
    assert main(["init", "django", "--project", str(tmp_path), "--write"]) == 0
    said = capsys.readouterr().out
    assert "# Found a django project: src/shop/settings.py" in said
    assert "manage.py eventperf_advise" in said
    lines = blocks(said)
    assert "from shop.eventperf_app import cache, queues" in lines["urls.py"]
    settings = shop / "settings.py"
    settings.write_text(settings.read_text() + lines["src/shop/settings.py"])
    code = "from shop.settings import *; print(EVENTPERF_QUEUES, *CACHES, CACHES['default']['BACKEND'])"
    told = in_python(code, tmp_path / "src").split()
    backend = "eventperf.contrib.django.cache.EventPerfCache"
    assert told == ["shop.eventperf_app:queues", "default", "other", backend]


def test_a_package_without_a_manage_py_has_the_settings_it_starts_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an installed application has it: the folder is the package, and its start names the settings."""
    shop = tmp_path / "shop"
    for name, text in {
        "__init__.py": "",
        "__main__.py": "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')\n",
        "_base.py": "INSTALLED_APPS = []\nCACHES = {'default': {'BACKEND': 'base.Cache'}}\n",
        "settings.py": "from ._base import *\nINSTALLED_APPS += ['shop']\nROOT_URLCONF = 'shop.sites.main'\n"
        "if True:\n    CACHES['other'] = {'BACKEND': 'its.own'}\n"
        "kind = 'postgresql'\nDATABASES = {'default': {'ENGINE': 'django.db.backends.' + kind}}\n",
        "sites/__init__.py": "",
        "sites/main.py": "urlpatterns = []\n",
        "tests/settings.py": "INSTALLED_APPS = []\n",
    }.items():
        (shop / name).parent.mkdir(exist_ok=True)
        (shop / name).write_text(text)
    assert main(["init", "django", "--project", str(shop)]) == 0
    said = capsys.readouterr().out
    assert "# Found a django project: settings.py" in said
    assert "cache: base.Cache, its.own" in said
    assert "database: \n" not in said, "an engine that is put together has no name, not an empty one"
    assert "python -m shop eventperf_worker" in said
    lines = blocks(said)
    assert 'CACHES["default"] = {' in lines["settings.py"], "the others are not lost"
    assert 'EVENTPERF_QUEUES = "shop.eventperf_app:queues"' in lines["settings.py"]
    assert "from shop.eventperf_app import" in lines["sites/main.py"]
    for name in ("_base.py", "__main__.py"):
        (shop / name).unlink()  # and where nobody names them: those that have the URLs
    (shop / "a_part.py").write_text("INSTALLED_APPS = ['part']\n")
    assert main(["init", "django", "--project", str(shop)]) == 0
    assert "# Found a django project: settings.py" in capsys.readouterr().out


def test_an_application_that_a_function_makes_is_found_whatever_its_class_is_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in {
        "__init__.py": "",
        "cli.py": "def create_app():\n    from shop.web.app import make\n    return make()\n",
        "web/app.py": "from .kinds import Shop\ndef make():\n    site = Shop('shop')\n    return site\n",
        "web/kinds.py": "import flask\nclass Plain(flask.Flask): ...\nclass Shop(Mixin, Plain): ...\n",
        "web/api.py": "from fastapi import FastAPI\ndef api():\n    return FastAPI()\n",
    }.items():
        path = tmp_path / "shop" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    assert main(["init", "flask", "--project", str(tmp_path / "shop")]) == 0
    said = capsys.readouterr().out
    assert "# Found a flask project: web/app.py\n" in said
    lines = blocks(said)["web/app.py"]
    assert "# in make(), below the line that makes site:\nEventPerf(site, " in lines
    assert "from shop.eventperf_app import" in lines
    assert main(["init", "fastapi", "--project", str(tmp_path / "shop")]) == 0
    said = capsys.readouterr().out
    assert 'app.mount("/ops"' in blocks(said)["web/api.py"], "each framework has its own application"


@pytest.mark.parametrize("framework", ["flask", "fastapi"])
def test_modules_below_src_are_imported_without_it(
    framework: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(framework)
    (tmp_path / "src").mkdir()
    name = {"flask": "Flask", "fastapi": "FastAPI"}[framework]
    (tmp_path / "src" / "main.py").write_text(f"from {framework} import {name}\napp = {name}('x')\n")
    assert main(["init", framework, "--project", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "# --- src/eventperf_app.py (new)" in said
    assert "from eventperf_app import cache, queues" in said


@pytest.mark.parametrize("framework", ["flask", "fastapi"])
def test_the_lines_for_the_others_run_too(
    framework: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(framework)
    name = {"flask": "Flask", "fastapi": "FastAPI"}[framework]
    made = f"from {framework} import {name}\n\nsite = {name}(__name__)\n".replace(
        "FastAPI(__name__)", "FastAPI()"
    )
    (tmp_path / "main.py").write_text(made)
    assert main(["init", framework, "--project", str(tmp_path), "--write"]) == 0
    said = capsys.readouterr().out
    assert "==" not in said, "nothing is pinned here"
    worker = {"flask": "flask eventperf worker", "fastapi": "eventperf queue worker eventperf_app:queues"}
    assert f"# Worker: {worker[framework]}" in said
    lines = blocks(said)["main.py"].partition("# Then:")[0]
    (tmp_path / "main.py").write_text(made + lines)
    asks = {
        "flask": "print(main.site.test_client().get('/ops/').status_code)",
        "fastapi": "print([r.path for r in main.site.routes if r.path == '/ops'])",
    }
    told = in_python(f"import main; {asks[framework]}", tmp_path)
    assert told in ("200\n", "['/ops']\n")


def test_cache_and_jobs_may_have_a_redis_each(tmp_path: Path) -> None:
    from eventperf.cli.init import _MANAGERS

    (tmp_path / "made.py").write_text(_MANAGERS)
    code = """
import os
os.environ |= {"REDIS_URL": "redis://one:1/0", "QUEUE_REDIS_URL": "sqlite:///jobs.db"}
from made import cache, queues
print(queues.backend.name)
"""
    assert in_python(code, tmp_path) == "SQLite\n"


def test_nothing_of_a_project_is_run_and_nothing_of_it_is_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "main.py").write_text("from flask import Flask\nopen('ran', 'w')\napp = Flask('x')\n")
    (tmp_path / "broken.py").write_text("def (:\n")
    (tmp_path / "eventperf_app.py").write_text("mine = 1\n")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert main(["init", "flask", "--project", str(tmp_path)]) == 0
    assert main(["init", "flask", "--project", str(tmp_path), "--write"]) == 2
    assert "a file that is not there yet" in capsys.readouterr().err
    assert (tmp_path / "eventperf_app.py").read_text() == "mine = 1\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken.py", "eventperf_app.py", "loop", "main.py"]


@pytest.mark.parametrize("framework", ["django", "flask", "fastapi"])
def test_a_folder_without_a_project_is_one_sentence(
    framework: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", framework, "--project", str(tmp_path)]) == 2
    assert "--project" in capsys.readouterr().err


# --- doctor ---------------------------------------------------------------------------------------


def diagnosed(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[tuple[str, str], Any]]:
    code = main(["doctor", "--json", *options])
    found = json.loads(capsys.readouterr().out)
    return code, {(f["part"], f["about"]): f for f in found}


def test_a_sound_redis_has_nothing_bad(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = diagnosed(capsys, "--cache", redis_url, "--queues", redis_url)
    assert code == 0
    assert found["queues", "eviction"]["state"] == "ok"
    assert "no maxmemory" in found["cache", "eviction"]["said"]
    assert found["cache", "clock"]["state"] == "ok"
    assert found["queues", "workers"]["cure"]


def test_a_server_that_may_lose_jobs_is_bad_and_the_cure_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    from servers import RedisServer, ServerMissing

    try:
        server = RedisServer(maxmemory="50mb", maxmemory_policy="allkeys-lru")
    except ServerMissing as reason:
        pytest.skip(str(reason))
    with server:
        code, found = diagnosed(capsys, "--queues", server.url)
    assert code == 1
    assert found["queues", "eviction"]["state"] == "bad"
    assert "noeviction" in found["queues", "eviction"]["cure"]
    assert found["queues", "persistence"]["state"] == "warn"


@pytest.mark.parametrize(("policy", "state"), [("noeviction", "warn"), ("allkeys-lfu", "ok")])
def test_a_cache_wants_a_server_that_evicts(
    policy: str, state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from servers import RedisServer, ServerMissing

    try:
        server = RedisServer(maxmemory="50mb", maxmemory_policy=policy)
    except ServerMissing as reason:
        pytest.skip(str(reason))
    with server:
        _, found = diagnosed(capsys, "--cache", server.url)
    assert found["cache", "eviction"]["state"] == state
    assert ("allkeys-lfu" in found["cache", "eviction"]["cure"]) == (state == "warn")


def test_what_does_not_answer_is_a_finding_and_the_rest_is_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import sqlite3

    path = tmp_path / "app.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    code, found = diagnosed(
        capsys, "--cache", "redis://:secret@127.0.0.1:1/0", "--database", f"sqlite:///{path}"
    )
    assert code == 1
    (dead,) = (f for (part, _), f in found.items() if part == "cache")
    assert dead["state"] == "bad"
    assert "secret" not in json.dumps(dead)
    assert found["database", "schema"]["said"] == "sqlite, 1 tables can be read"
    assert "QueryRecorder" in found["database", "statements"]["said"]


def test_nothing_to_look_at_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 2
    assert "--cache" in capsys.readouterr().err
