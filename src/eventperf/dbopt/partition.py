"""Tables worth partitioning."""

from __future__ import annotations

from collections.abc import Sequence

from .advice import PartitionAdvice
from .model import Schema
from .protocols import Query


def partitions(queries: Sequence[Query], schema: Schema) -> list[PartitionAdvice]:
    """Return partitioning advice."""
    return []
