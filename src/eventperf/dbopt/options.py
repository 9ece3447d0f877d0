"""Options of the database room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of what is advised and applied.

    Attributes:
        max_applied: Indexes that one ``apply`` may create.
        max_index_bytes: Bytes of all new indexes together; ``None`` is no bound.
        max_write_cost_ratio: An index may cost writers at most this share of what it gains readers.
        min_gain_ratio: Least share of the workload's remaining time an index must save beside the others;
            what no index can help counts for little.
        max_key_columns: Most columns that order an index.
        advise_budget: Time for the search, after which the best so far is returned.
        measure_budget: Time of that for running statements on a copy, before and after; 0 runs none.
        verify_budget: Time for all measurements of ``apply``, before and after together.
        statement_timeout: Longest single measurement; a slower query counts as this long.
        lock_timeout: How long DDL may wait for its lock before it gives way and tries again.
        lock_attempts: How often it tries.
        partition_rows: Tables with fewer rows are not considered for partitioning.
        min_speedup: An index is kept when the queries that use it got this much faster.
        max_regression: An index is reverted when a query whose plan changed got this much slower.
        include: Tables that advice may be about, all when empty; ``*`` and ``?`` stand for any letters.
        exclude: Tables that it may not be about.
    """

    max_applied: int = 10
    max_index_bytes: int | None = None
    max_write_cost_ratio: float = 0.5
    min_gain_ratio: float = 0.002
    max_key_columns: int = 4
    advise_budget: Duration = 30.0
    measure_budget: Duration = 10.0
    verify_budget: Duration = 10.0
    statement_timeout: Duration = 2.0
    lock_timeout: Duration = 2.0
    lock_attempts: int = 3
    partition_rows: int = 1_000_000
    min_speedup: float = 1.1
    max_regression: float = 1.2
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    def allows(self, table: str) -> bool:
        """Tell whether advice may be about a table; patterns match its name, with or without its schema.

        >>> limits = Limits(include=["shop_*"], exclude=["shop_audit"])
        >>> [limits.allows(t) for t in ("shop_orders", "tenant.shop_orders", "shop_audit", "users")]
        [True, True, False, False]
        """
        names = (table, table.rpartition(".")[2])
        if any(fnmatchcase(n, p) for n in names for p in self.exclude):
            return False
        return not self.include or any(fnmatchcase(n, p) for n in names for p in self.include)

    @property
    def measure_budget_s(self) -> float:
        """:attr:`measure_budget` in seconds."""
        return seconds(self.measure_budget, name="measure_budget", zero=True)

    @property
    def verify_budget_s(self) -> float:
        """:attr:`verify_budget` in seconds."""
        return seconds(self.verify_budget, name="verify_budget")

    @property
    def statement_timeout_s(self) -> float:
        """:attr:`statement_timeout` in seconds."""
        return seconds(self.statement_timeout, name="statement_timeout")

    @property
    def lock_timeout_s(self) -> float:
        """:attr:`lock_timeout` in seconds."""
        return seconds(self.lock_timeout, name="lock_timeout")

    def __post_init__(self) -> None:
        for name in ("advise_budget", "measure_budget", "verify_budget", "statement_timeout", "lock_timeout"):
            is_off = name == "measure_budget"
            object.__setattr__(self, name, seconds(getattr(self, name), name=name, zero=is_off))
        for name in ("max_applied", "max_key_columns", "lock_attempts", "partition_rows"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(name, value, "a whole number of at least 1")
        if self.max_index_bytes is not None and self.max_index_bytes <= 0:
            raise ConfigurationError("max_index_bytes", self.max_index_bytes, "a positive number or None")
        for name in ("include", "exclude"):
            given = getattr(self, name)
            if isinstance(given, str) or not all(isinstance(p, str) and p for p in given):
                raise ConfigurationError(name, given, "a list of names of tables")
            object.__setattr__(self, name, tuple(given))
        for name in ("max_write_cost_ratio", "min_gain_ratio"):
            if not getattr(self, name) >= 0:
                raise ConfigurationError(name, getattr(self, name), "zero or a positive number")
        for name in ("min_speedup", "max_regression"):
            if not getattr(self, name) >= 1:
                raise ConfigurationError(name, getattr(self, name), "a ratio of at least 1")
