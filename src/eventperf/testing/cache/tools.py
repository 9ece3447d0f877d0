"""What the parts of the suite share."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from eventperf.cache import (
    CacheManager,
)


def has(cache: CacheManager, ability: type) -> bool:
    """Tell whether the store of ``cache`` has an ability; process memory has them all."""
    return cache.store is None or isinstance(cache.store, ability)


class StoreTests:
    """The fixtures of every part."""

    @pytest.fixture
    def store(self) -> Any:
        """Return the store under test, empty or not."""
        raise NotImplementedError("define the fixture 'store'")

    @pytest.fixture
    def cache(self, store: Any) -> Iterator[CacheManager]:
        """A manager over the store, in a namespace of its own."""
        namespace = f"suite-{uuid.uuid4().hex[:12]}"
        is_first_tier = hasattr(store, "drop_tags")
        url, l1 = (None, store) if is_first_tier else (store, None)
        made = CacheManager(url, l1=l1, namespace=namespace)
        yield made
        made.clear()
        made.close()
