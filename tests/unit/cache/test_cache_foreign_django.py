"""Django that is imported and not configured (by some other library) is nobody's database."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("django")

CODE = """
import time

import django.db
from eventperf.cache import CacheManager, CacheOptions
from eventperf.cache.transactions import inside, watch
from eventperf.testing import FakeClock
watch()
clock = FakeClock()
cache = CacheManager(clock=clock, options=CacheOptions(ttl=10, stale_while_revalidate=60))
cache.get_or_load("k", lambda: "old")
clock.advance(11)
assert cache.get_or_load("k", lambda: time.sleep(0.3) or "new") == "old"
for _ in range(200):
    if cache.get("k") == "new":
        break
    time.sleep(0.05)
print(cache.get("k"), inside())
"""


def test_a_background_refresh_goes_on_beside_it() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.stdout == "new False\n", done.stderr[-2000:]
