"""Where statements come from: a source yields rows, the workload collects them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What a source knows of one text.

    Attributes:
        sql: The text, with parameters of any driver's style; several statements are taken apart.
        calls: Executions.
        total_s: Seconds in all, ``None`` where the source does not time.
        max_s: The slowest execution.
        lock_s: Seconds waited for locks.
        rows_sent: Rows returned in all.
        rows_examined: Rows read in all.
        samples: Parameter values (sequences or mappings), one entry per execution that was sampled.
        callers: Where the application sent it from, with counts.
    """

    sql: str
    calls: int = 1
    total_s: float | None = None
    max_s: float | None = None
    lock_s: float | None = None
    rows_sent: int | None = None
    rows_examined: int | None = None
    samples: Sequence[Any] = ()
    callers: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Recording:
    """One reading of a source.

    Attributes:
        covers: What period the figures cover, in words.
        rows: The texts, in any order; read once.
        notes: What could not be read; complete when ``rows`` is at its end.
    """

    covers: str
    rows: Iterable[Recorded]
    notes: list[str] = field(default_factory=list)


@runtime_checkable
class StatementSource(Protocol):
    """A record of statements: a log, a statistics view, a tracing system.

    ``dialect`` is ``"sqlite"``, ``"postgres"`` or ``"mysql"``: how its texts are read. Conformance:
    ``eventperf.testing.dbopt.StatementSourceSuite``.
    """

    dialect: str

    def read(self, since_s: float | None, /) -> Recording:
        """Read what was recorded in the last ``since_s`` seconds, or all of it.

        A cumulative source cannot be narrowed; its ``covers`` says what the figures span.

        Raises:
            SourceUnavailable: The record is not there, or not readable; the error names the cure.
        """
        ...
