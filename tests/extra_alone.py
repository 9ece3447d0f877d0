"""Run in an environment with one extra (or none): that it brings what its feature needs, and no more.

    python tests/extra_alone.py cache

``nox -s extras`` makes such an environment for each extra.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pages

README = Path(__file__).parent.parent / "README.md"
BRINGS = {
    "": "",
    "cache": "cachetools hiredis msgspec redis",
    "dbopt": "sqlalchemy sqlglot",
    "postgres": "psycopg",
    "mysql": "pymysql",
    "scaling": "",
    "kubernetes": "kubernetes",
    "queues": "hiredis msgspec redis",
    "arq": "arq redis hiredis",
    "cli": "rich",
    "testing": "hypothesis pytest",
    "django": "django",
    "flask": "flask",
    "fastapi": "fastapi",
    "prometheus": "prometheus_client",
    "opentelemetry": "opentelemetry",
    "console": "",
    "cachelib": "cachelib cachetools hiredis msgspec redis",
    "flask-caching": "cachelib cachetools flask_caching flask hiredis msgspec redis",
    "dogpile": "cachetools dogpile hiredis msgspec redis",
}
COMES_ALONG = {"fastapi": {"opentelemetry"}}  # newer FastAPIs ask for its API
NOT_IN_ALL = {"arq", "prometheus", "opentelemetry", "dogpile", "cachelib", "flask-caching"}
WORK = {
    "": "import eventperf.cache, eventperf.dbopt, eventperf.queues, eventperf.scaling",
    "cache": 'from eventperf import CacheManager; CacheManager("redis://127.0.0.1:1/0").close()',
    "dbopt": """
from eventperf.dbopt import DatabaseOptimizer, QueryRecorder
from sqlalchemy import create_engine

engine = create_engine("sqlite://")
DatabaseOptimizer(engine, source=QueryRecorder(engine)).advise()
""",
    "postgres": "import eventperf.dbopt",
    "mysql": "import eventperf.dbopt",
    "scaling": "from eventperf.scaling import KubernetesTarget",
    "kubernetes": """
from eventperf.scaling import KubernetesTarget
from eventperf.scaling.backends.kubernetes import KubernetesApi
""",
    "queues": 'from eventperf import QueueManager; QueueManager("redis://127.0.0.1:1/0").close()',
    "arq": "from eventperf.queues import QueueManager; QueueManager('arq+redis://localhost:1')",
    "cli": 'from eventperf.cli.main import main; assert main(["cache", "--help"]) == 0',
    "testing": "import eventperf.testing",
    "django": "import eventperf.contrib.django.cache",
    "flask": "import eventperf.contrib.flask",
    "fastapi": "import eventperf.contrib.fastapi",
    "prometheus": "import eventperf.contrib.prometheus",
    "opentelemetry": "import eventperf.contrib.opentelemetry",
    "console": "from eventperf.contrib.console import Console, read_only; Console(may=read_only)",
    "cachelib": "import eventperf.contrib.cachelib",
    "flask-caching": "import eventperf.contrib.flask_caching",
    "dogpile": "import eventperf.contrib.dogpile",
}


def first_block(page: Path) -> str:
    """Return the page's first Python block: the example that needs nothing."""
    return next(step.text for step in pages.steps(page.read_text("utf-8")) if step.kind == "python")


def main(extra: str) -> None:
    """Fail unless ``extra`` brings exactly its packages and its feature works."""
    everything = {name for names in BRINGS.values() for name in names.split()}
    parts = [name for name in BRINGS if name not in NOT_IN_ALL] if extra == "all" else [extra]
    expected = {name for part in parts for name in BRINGS[part].split()}
    installed = {name for name in everything if importlib.util.find_spec(name)}
    more = {name for part in parts for name in COMES_ALONG.get(part, ())}
    assert installed - more == expected - more, (
        f"[{extra}] brings {sorted(installed)}, not {sorted(expected)}"
    )
    exec(compile(first_block(README), str(README), "exec"), {"__name__": "readme"})
    for part in parts:
        exec(compile(WORK[part], f"[{part}]", "exec"), {})
    print(f"[{extra}] works alone")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
