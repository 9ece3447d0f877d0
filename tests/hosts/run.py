"""Run eventperf inside real applications: ``python tests/hosts/run.py [pretalx ...]``, or ``nox -s hosts``.

pretalx and pretix are made with Django, zou with Flask-SQLAlchemy, Superset with Flask-AppBuilder and
SQLAlchemy 1.4, fractal-server with FastAPI and async SQLModel.

Each application gets an environment of its own at pinned versions, a private PostgreSQL and a private Redis.
``--if-possible`` says loudly that they are skipped, and why, where one cannot be had from PyPI or a server is
missing; ours beside it must install all the same.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))

from servers import PostgresServer, RedisServer, ServerMissing  # noqa: E402

HOSTS = {
    # Its driver is psycopg2 alone: no other may be needed.
    "pretalx": ("pretalx==2025.2.2", "psycopg2-binary==2.9.13", "redis>=5.0.1,<9", "sqlalchemy>=2.0"),
    "pretix": ("pretix==2026.8.0", "psycopg2-binary==2.9.13"),
    "zou": ("zou==1.0.97",),
    # Flask-Caching 2.5 hands an argument to backends that Superset's does not know; its commands need rich.
    "superset": ("apache-superset==6.1.0", "flask-caching==2.3.1", "psycopg2-binary==2.9.13", "rich"),
    "fractal": ("fractal-server==2.18.5",),  # the newest for Python 3.11
}


class NotToBeHad(Exception):
    """PyPI does not answer, or has no such version for this Python."""


def environment(name: str, folder: Path) -> Path:
    """Install a host, then this tree beside it; an environment that is there is brought up to date."""
    home = folder / name
    python = home / "bin" / "python"
    uv = shutil.which("uv")
    if not python.exists():
        make = [uv, "venv", "-q", "--python", sys.executable] if uv else [sys.executable, "-m", "venv"]
        subprocess.run([*make, str(home)], check=True)
    install = (
        [uv, "pip", "install", "-q", "--python", str(python)]
        if uv
        else [str(python), "-m", "pip", "install", "-q"]
    )
    alone = subprocess.run([*install, *HOSTS[name]], stderr=subprocess.PIPE, text=True, check=False)
    if alone.returncode:
        raise NotToBeHad(alone.stderr.strip() or f"{install[0]} exited with {alone.returncode}")
    subprocess.run([*install, *HOSTS[name], "-e", f"{ROOT}[cache,dbopt,queues,prometheus]"], check=True)
    return python


def lives(name: str, folder: Path, postgres: PostgresServer, redis: RedisServer) -> bool:
    """Run the scenario inside one host."""
    began = time.monotonic()
    python = environment(name, folder)
    redis.flush()  # counts of the host before are not this one's
    with postgres.fresh_database() as database, postgres.fresh_database() as what_if:
        plain = name in ("pretalx", "pretix", "superset")  # psycopg2 alone
        env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("DJANGO_", "PYTHONPATH"))},
            "HOST_DATABASE": database.replace("+psycopg", "") if plain else database,
            "HOST_WHAT_IF": what_if.replace("+psycopg", "") if plain else what_if,
            "HOST_REDIS": redis.url,
            "HOST_FOLDER": tempfile.mkdtemp(prefix=f"{name}-", dir=folder),
            "PYTHONWARNINGS": "ignore",
        }
        done = subprocess.run([str(python), f"{name}_host.py"], cwd=HERE, env=env, check=False)
    print(f"{name}: exit {done.returncode} after {time.monotonic() - began:.0f} s", flush=True)
    return not done.returncode


def main(arguments: list[str]) -> int:
    names = [argument for argument in arguments if argument != "--if-possible"] or list(HOSTS)
    unknown = sorted(set(names) - HOSTS.keys())
    if unknown:
        print(f"{', '.join(unknown)}: no such host; allowed: {', '.join(HOSTS)}", file=sys.stderr)
        return 2
    folder = Path(os.environ.get("HOSTS_FOLDER") or tempfile.mkdtemp(prefix="hosts-")).resolve()
    failed: list[str] = []
    try:
        with PostgresServer() as postgres, RedisServer() as redis:
            failed += [name for name in names if not lives(name, folder, postgres, redis)]
    except (NotToBeHad, ServerMissing) as reason:
        if "--if-possible" not in arguments:
            raise
        print(f"SKIPPED: the hosts {', '.join(names)} were NOT run: {reason}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
