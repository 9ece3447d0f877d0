"""The comparison with other caches that follow the database, small: it measures what it says it does."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.long]  # each cache starts a Django of its own
SIZES = {"reads": 200, "peer_reads": 100, "per_write": 10, "requests": 40, "queries": 5, "rounds": 1}


def compared(monkeypatch: pytest.MonkeyPatch, request: Any, names: list[str], sizes: dict[str, int]) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    bench = importlib.import_module("bench_follow")
    servers = [request.getfixturevalue(f"{kind}_server") for kind in ("postgres", "redis")]
    found = bench.measure_on(*servers, names, sizes)
    assert found["none"]["stale"] + found["none"]["undone"] + found["none"]["site_stale"] == 0, "the control"
    for name, told in found.items():
        assert told["kills"] >= 2
        assert (told["hits"] > 0) == (told["site_hits"] > 0) == (name != "none"), f"{name} caches nothing"
        assert name in bench.report(found)
    return found


def test_with_the_journal_nothing_is_stale_beside_writers_rollbacks_and_kills(monkeypatch, request):
    found = compared(monkeypatch, request, ["none", "eventperf + journal"], SIZES)
    ours = found["eventperf + journal"]
    assert (ours["stale"], ours["undone"], ours["site_stale"]) == (0, 0, 0)
    assert ours["lags"]


def test_every_cache_is_measured_as_it_is_configured(monkeypatch, request):
    for peer in ("cacheops", "cachalot"):
        assert importlib.util.find_spec(peer), f"{peer} is in the group of the tests"
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    names = list(importlib.import_module("follow_caches").NAMES)
    found = compared(
        monkeypatch, request, names, SIZES | {"reads": 4_000, "peer_reads": 4_000, "per_write": 40}
    )
    ours = found["eventperf + journal"]
    assert (ours["stale"], ours["undone"], ours["site_stale"]) == (0, 0, 0)
