"""Django's own ``BaseCacheTests``, out of its source distribution, against our backend.

The distribution of the installed version is fetched through pip once and kept in pytest's cache; where it
cannot be had the tests are skipped with the reason.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

django = pytest.importorskip("django")
pytestmark = pytest.mark.long

MODULE = """
from django.test import TestCase, override_settings
from cache.tests import BaseCacheTests, caches_setting_for_tests
import os

BASE = {"BACKEND": "eventperf.contrib.django.cache.EventPerfCache", "LOCATION": os.environ["CACHE_LOCATION"]}
# Django leaves the culled aliases out for servers that bound themselves; their three tests then skip.
EXCLUDE = {"cull", "zero_cull"} if BASE["LOCATION"] else set()


@override_settings(CACHES=caches_setting_for_tests(base=BASE, exclude=EXCLUDE))
class EventPerfCacheTests(BaseCacheTests, TestCase):
    pass
"""


def pips() -> Iterator[list[str]]:
    yield [sys.executable, "-m", "pip"]
    yield [str(Path(sys.base_prefix, "bin", "python3")), "-m", "pip"]
    for name in ("pip", "pip3"):
        if found := shutil.which(name):
            yield [found]


@pytest.fixture(scope="module")
def source(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Django's source tree with our binding of its tests inside."""
    version = django.__version__
    kept = Path(pytestconfig.cache.mkdir("django-sdist"))  # type: ignore[union-attr]
    archive = kept / f"django-{version}.tar.gz"
    reasons = []
    for pip in pips():
        if archive.exists():
            break
        command = [
            *pip,
            "download",
            "-q",
            "--no-deps",
            "--no-binary",
            "django",
            "-d",
            str(kept),
            f"django=={version}",
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            reasons.append(str(error))
            continue
        reasons.append(done.stderr.strip()[-200:])
    if not archive.exists():
        pytest.skip(f"DJANGO'S OWN CACHE TESTS DID NOT RUN: no source distribution of {version}: {reasons}")
    target = tmp_path_factory.mktemp("django")
    with tarfile.open(archive) as tar:
        if sys.version_info >= (3, 12):
            tar.extractall(target, filter="data")
        else:
            tar.extractall(target)
    tree = target / f"django-{version}"
    (tree / "tests" / "eventperf_cache").mkdir()
    (tree / "tests" / "eventperf_cache" / "__init__.py").touch()
    (tree / "tests" / "eventperf_cache" / "tests.py").write_text(MODULE)
    return tree


Suites = dict[str, "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def suites(source: Path, redis_url: str, redis_cluster_url: str) -> Iterator[Suites]:
    """The suite on each kind of store, all at once: it sleeps most of its time."""
    # The second label brings the model that the tests use; its own five tests run as well.
    command = [sys.executable, "runtests.py", "eventperf_cache", "cache.tests.CacheHandlerTest",
               "--settings=test_sqlite", "--parallel=1"]  # fmt: skip
    started: Suites = {}
    for kind, location in {"memory": "", "redis": redis_url, "cluster": redis_cluster_url}.items():
        env = {**os.environ, "CACHE_LOCATION": location, "PYTHONPATH": str(source)}
        started[kind] = subprocess.Popen(
            command,
            cwd=source / "tests",
            env=env,
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    yield started
    for suite in started.values():
        suite.kill()
        suite.wait()


@pytest.mark.parametrize(("kind", "culls"), [("memory", 0), ("redis", 3), ("cluster", 3)])
def test_all_but_culling_pass(suites: Suites, kind: str, culls: int) -> None:
    _, said = suites[kind].communicate(timeout=110)
    assert suites[kind].returncode == 0, said[-6000:]
    ran = re.search(r"^Ran (\d+) tests", said, re.MULTILINE)
    skipped = re.search(r"^OK(?: \(skipped=(\d+)\))?$", said, re.MULTILINE)
    assert ran, said
    assert skipped, said
    assert int(ran[1]) >= 54 + 5
    assert int(skipped[1] or 0) == culls
