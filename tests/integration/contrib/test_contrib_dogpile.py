"""dogpile.cache's own backend suites against the plug-in, in process memory, on Redis and on a Cluster."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

pytest.importorskip("dogpile.cache")
from dogpile.cache import make_region
from dogpile.testing.fixtures import (
    _GenericBackendFixture,
    _GenericBackendTestSuite,
    _GenericMutexTestSuite,
    _GenericSerializerTestSuite,
)

import eventperf.contrib.dogpile  # noqa: F401
from eventperf.errors import ConfigurationError

LOCK = {"distributed_lock": True, "lock_timeout": 5}


class _OnUrl:
    """Fill in the URL of the test run's server before each test."""

    fixture = ""
    extra: ClassVar[dict[str, Any]] = {}

    @pytest.fixture(autouse=True)
    def _url(self, request: pytest.FixtureRequest) -> None:
        url = request.getfixturevalue(self.fixture)
        self.config_args = {"arguments": {"url": url, **self.extra}}


class TestMemoryBackend(_GenericBackendTestSuite):
    backend = "eventperf"
    config_args: ClassVar[dict[str, Any]] = {"arguments": {"namespace": "dogpile"}}


class TestMemorySerializer(_GenericSerializerTestSuite, _GenericBackendFixture):
    backend = "eventperf"
    config_args: ClassVar[dict[str, Any]] = {"arguments": {"namespace": "dogpile"}}


class TestRedisBackend(_OnUrl, _GenericBackendTestSuite):
    backend = "eventperf"
    fixture = "redis_url"


class TestRedisSerializer(_OnUrl, _GenericSerializerTestSuite, _GenericBackendFixture):
    backend = "eventperf"
    fixture = "redis_url"


class TestRedisMutex(_OnUrl, _GenericMutexTestSuite):
    backend = "eventperf"
    fixture = "redis_url"
    extra = LOCK


class TestClusterBackend(_OnUrl, _GenericBackendTestSuite):
    backend = "eventperf"
    fixture = "redis_cluster_url"


class TestClusterMutex(_OnUrl, _GenericMutexTestSuite):
    backend = "eventperf"
    fixture = "redis_cluster_url"
    extra = LOCK


def test_a_lock_among_processes_needs_a_server() -> None:
    with pytest.raises(ConfigurationError, match="url"):
        make_region().configure("eventperf", arguments={"distributed_lock": True})
