"""What of a manager its workers are handed: facts and rules, none of its verbs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from eventperf._core.clock import Clock
from eventperf._core.events import Hooks

from .codec import Codec
from .job import NewJob
from .jobtype import JobType, Middleware, WorkerHook
from .options import EngineOptions
from .schedules import Schedule

Around = Callable[[], AbstractContextManager[object]]
"""What each job of a process runs inside."""

Setup = Callable[[], Around]
"""Called once in a new process, before anything of the application is imported; must be picklable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One manager, as its running workers see it.

    Attributes:
        types: Job types by name; handlers may be declared while a worker runs, so this is a live view.
        upcasters: By job type, the step to each version of its payload.
        process_setup: What the processes of ``cpu=True`` jobs do first.
        follow: Builds the job that a handler asks for by ``ctx.then``, from its type, data,
            options and the id of the handler's own job.
        startups: Called before a worker's first claim; ``shutdowns``: after its last job, the last one first.
        state: What these share with the handlers of one run of a worker.
    """

    types: Mapping[str, JobType]
    codec: Codec
    hooks: Hooks
    clock: Clock
    random: Random
    options: EngineOptions
    middlewares: Sequence[Middleware]
    upcasters: Mapping[str, Mapping[int, Callable[[Any], Any]]]
    schedules: Mapping[str, Schedule]
    follow: Callable[[str, Any, Mapping[str, Any], str], NewJob]
    process_setup: Setup | None = None
    startups: Sequence[WorkerHook] = ()
    shutdowns: Sequence[WorkerHook] = ()
    state: dict[str, Any] = field(default_factory=dict)
