"""What every target and metric of a plan says right now: read once, changed nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from eventperf.scaling.sources import read_source

if TYPE_CHECKING:
    from eventperf.scaling import AutoScaler, Sample, TargetState

_AT_ONCE = 8
_OLDEST_S = 120.0

LIMIT_S = 60.0
"""For all readings together; what is not read by then is said not to be."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One target: its state, or why it has none; its samples by metric."""

    target: str
    state: TargetState | None
    error: str = ""
    samples: Mapping[str, Sample] = field(default_factory=dict)
    is_read: bool = True

    def metrics(self) -> Iterator[tuple[str, str, bool]]:
        """Yield each metric with what it said, and whether that is a value."""
        for name, sample in self.samples.items():
            fault = sample.fault(_OLDEST_S)
            yield name, fault or f"{sample.value:.4g}", not fault


def readings(scalers: tuple[AutoScaler, ...], *, limit_s: float = LIMIT_S) -> Iterator[Reading]:
    """Yield one reading of each, in order; eight are read at once, and none is begun after ``limit_s``."""
    pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="eventperf-check")
    end = time.monotonic() + limit_s
    try:
        reads = [(scaler, pool.submit(_read, scaler)) for scaler in scalers]
        for scaler, read in reads:
            wait([read], max(0.0, end - time.monotonic()))
            if read.done():
                yield read.result()
            else:
                read.cancel()
                yield Reading(scaler.target.name, None, f"not read within {limit_s:g} s", is_read=False)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _read(scaler: AutoScaler) -> Reading:
    state, error = None, ""
    try:
        state = scaler.target.read()
    except Exception as failure:  # whatever a client raises is the finding
        error = f"{type(failure).__name__}: {failure}"
    names = tuple(getattr(scaler.metrics, "names", ("metrics",)))
    return Reading(scaler.target.name, state, error, read_source(scaler.metrics, names))
