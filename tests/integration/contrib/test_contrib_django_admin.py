"""The queues in Django's admin site, in a Django of its own process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

pytest.importorskip("django")

SETTINGS = """
SECRET_KEY = "x"
ROOT_URLCONF = "urls"
INSTALLED_APPS = [
    "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
    "django.contrib.messages", "eventperf.contrib.django", "shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True, "OPTIONS": {
    "context_processors": ["django.template.context_processors.request",
    "django.contrib.auth.context_processors.auth", "django.contrib.messages.context_processors.messages"]}}]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "site.db"}}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
EVENTPERF_QUEUES = "shop.jobs:queues"
ALLOWED_HOSTS = ["*"]
STATIC_URL = "/static/"
USE_TZ = True
"""
URLS = """
from django.contrib import admin
from django.urls import path
urlpatterns = [path("admin/", admin.site.urls)]
"""
JOBS = """
import os
from eventperf.queues import QueueConfig, QueueManager

kept = [QueueConfig(name="high"), QueueConfig(name="low", keep_failed=None)]
queues = QueueManager(os.environ["JOBS"], queues=kept, namespace=os.environ["NAMESPACE"])

@queues.job("mail", attempts=1, queue="low")
def mail(ctx, data: int) -> int:
    if ctx.headers.get("fine") != "yes" and not os.environ.get("FIXED"):
        raise ValueError(f"<b>no luck</b> with {data}")
    return data
"""
RUN = """
import os, sys
import django
django.setup()
from django.core.management import call_command
call_command("check", fail_level="WARNING")
call_command("migrate", verbosity=0)
call_command("makemigrations", "--check", "--dry-run", verbosity=0)
from django.contrib.auth.models import Permission, User
from django.test import Client
from shop.jobs import mail, queues

def client(*permissions, superuser=False):
    name = "-".join(permissions) or f"user{superuser}"
    user = User.objects.create_user(name, password="x", is_staff=True, is_superuser=superuser)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    made = Client(enforce_csrf_checks=False)
    made.force_login(user)
    return made

PAGE = "/admin/eventperf/queue/"
boss, guest, viewer = client(superuser=True), client(), client("view_queue")
assert "Queues" in boss.get("/admin/").content.decode()
assert guest.get(PAGE).status_code == 403

for n in range(60):
    mail.enqueue(n)
queues.worker().run(burst=True)
if "dead_letter" not in queues.backend.capabilities:
    text = boss.get(PAGE).content.decode()
    assert "Pause" not in text and "<td>60</td>" in text
    refused = boss.post(PAGE, {"queue": "low", "action": "pause"}, follow=True).content.decode()
    assert "does not support pause" in refused
    print("all of it")
    sys.exit()

seen = viewer.get(PAGE, {"queue": "low"}).content.decode()
if "Dead jobs of low" not in seen: print(seen)
assert "<td>60</td>" in seen and "Dead jobs of low" in seen
assert "&lt;b&gt;no luck&lt;/b&gt; with" in seen and "<b>no luck" not in seen
assert "Run all again" not in seen and "Older" in seen and seen.count("ValueError") == 50
for odd in ("²", "9" * 5000, "-1", "x"):
    assert viewer.get(PAGE, {"queue": "low", "page": odd}).status_code == 200
assert viewer.get(PAGE, {"queue": "low", "page": "1"}).content.decode().count("ValueError") == 10
assert viewer.post(PAGE, {"queue": "low", "action": "replay all"}).status_code == 403
assert Client(enforce_csrf_checks=True).post(PAGE, {}).status_code in (302, 403)
strict = Client(enforce_csrf_checks=True)
strict.force_login(User.objects.get(is_superuser=True))
assert strict.post(PAGE, {"queue": "low", "action": "replay all"}).status_code == 403
assert queues.status()[1].waiting == 0

def post(**data):
    answer = boss.post(PAGE, data, follow=True)
    assert answer.status_code == 200
    return answer.content.decode()

two = [job.id for job in queues.dead("low", limit=2)]
os.environ["FIXED"] = "1"
assert "2 of 2 chosen jobs run again" in post(queue="low", action="replay", job=two)
assert "Queue low is paused" in post(queue="low", action="pause")
assert queues.status()[1].paused and "(paused)" in boss.get(PAGE).content.decode()
assert "Queue low runs again" in post(queue="low", action="resume")
queues.worker().run(burst=True)
assert [queues.job_info(i).state.value for i in two] == ["completed", "completed"]
assert "dead jobs of low are forgotten" in post(queue="low", action="forget all")
assert queues.dead("low") == [] and "None." in boss.get(PAGE, {"queue": "low"}).content.decode()
assert "which is not one of this page" in post(queue="low", action="drop")
assert "nowhere" in post(queue="nowhere", action="pause")
assert "nowhere" in boss.get(PAGE, {"queue": "nowhere"}).content.decode()

from django.test import override_settings
with override_settings(EVENTPERF_QUEUES=""):
    assert "EVENTPERF_QUEUES" in boss.get(PAGE).content.decode()
print("all of it")
"""


@pytest.mark.parametrize("kind", ["memory", "redis", "arq"])
def test_operators_look_and_act(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    url = "memory://"
    if kind == "arq":
        pytest.importorskip("arq", reason="the arq extra is not installed")
    if kind != "memory":
        redis = request.getfixturevalue("redis_url")
        url = redis if kind == "redis" else f"arq+{redis}"
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "jobs.py").write_text(JOBS)
    for name, text in (("settings", SETTINGS), ("urls", URLS), ("run", RUN)):
        (tmp_path / f"{name}.py").write_text(text)
    env = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "settings",
        "JOBS": url,
        "NAMESPACE": f"admin-{uuid4().hex[:6]}",
    }
    done = subprocess.run(
        [sys.executable, "run.py"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip().endswith("all of it"), done.stdout + done.stderr
