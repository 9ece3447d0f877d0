"""Every argument of every public call is refused where it is wrong: by its name, with nothing done."""

from __future__ import annotations

import pytest

from eventperf.cache import CacheManager, RedisStore
from eventperf.errors import ConfigurationError


@pytest.mark.parametrize("wrong", [0, -1, 10**30, "5", float("nan"), 1.5, True, None, []])
def test_a_number_of_connections_that_nobody_could_wait_for_is_refused(wrong):
    with pytest.raises(ConfigurationError) as caught:
        RedisStore("redis://localhost", max_connections=wrong)
    assert caught.value.argument == "max_connections"
    if wrong == "5":
        return  # in a URL it is a number
    with pytest.raises(ConfigurationError) as caught:
        CacheManager(f"redis://localhost?max_connections={wrong}")
    assert caught.value.argument == "max_connections in the URL"
