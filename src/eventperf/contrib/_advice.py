"""What every command that advises has in common, whichever framework gave it a database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from eventperf._core.errors import ConfigurationError
from eventperf._core.files import write as write_file

if TYPE_CHECKING:
    from eventperf.dbopt import Advice, DatabaseOptimizer, Workload


def workload_of(optimizer: DatabaseOptimizer, file: str | None, since: str) -> Workload:
    """Read a file by its ending: a saved workload, a slow log, SQL; without one the server's own record."""
    from eventperf.dbopt import Workload

    if file is None:
        return optimizer.workload(since)
    path = Path(file)
    if path.suffix == ".json":
        return Workload.load(path)
    if path.suffix == ".log":
        return Workload.from_slow_log(path, since)
    return Workload.from_sql_file(path, optimizer.dialect.name)


def advise(
    optimizer: DatabaseOptimizer,
    workload: Workload,
    *,
    budget: str,
    unproved: bool,
    progress: Callable[[str], None] | None = None,
) -> Advice:
    """Advise; what no planner has proved is not shown unless asked for."""
    advice = optimizer.advise(workload, budget=budget, progress=progress)
    if advice.level == "estimated" and advice.indexes and not unproved:
        advice.warnings.append(
            f"{len(advice.indexes)} indexes rest on statistics alone and are not shown: --what-if URL proves "
            "them on a copy, --unproved shows them as they are"
        )
        advice.indexes.clear()
    return advice


def write(file: str, text: str) -> None:
    """Write a file that an option names."""
    try:
        write_file(file, text)
    except OSError as error:
        raise ConfigurationError("FILE", file, f"a path that can be written ({error.strerror})") from error
