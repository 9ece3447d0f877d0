"""A backend of ``django.tasks`` (Django 6 and later): tasks run as jobs of a ``QueueManager``.

.. code-block:: python

    EVENTPERF_QUEUES = "shop.jobs:queues"
    TASKS = {"default": {"BACKEND": "eventperf.contrib.django.tasks.EventPerfTasks"}}

``manage.py eventperf_worker`` runs them beside the other jobs of that manager: only tasks that this process
has made by ``@task``, in the manager's module, a ``tasks.py`` of an installed app or ``OPTIONS["modules"]``.
"""

from __future__ import annotations

import builtins
import importlib
import sys
import traceback
from datetime import datetime, timezone
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.tasks import task_backends
from django.tasks.base import TaskContext, TaskError, TaskResult, TaskResultStatus
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
from django.tasks.signals import task_enqueued, task_finished, task_started
from django.utils.json import normalize_json
from django.utils.module_loading import autodiscover_modules

from eventperf._core.errors import ConfigurationError
from eventperf.contrib._jobs import load
from eventperf.queues import JobNotFound, JobState, NonRetryable, QueueError, Retry
from eventperf.queues.options import MAX_PRIORITY

if TYPE_CHECKING:  # Django ships no types
    from eventperf.queues import JobInfo, QueueManager

    class BaseTaskBackend:
        alias: str
        queues: set[str]
        options: dict[str, Any]

        def __init__(self, alias: str, params: dict[str, Any]) -> None: ...
        def validate_task(self, task: Any) -> None: ...

else:
    from django.tasks.backends.base import BaseTaskBackend

__all__ = ["EventPerfTasks"]

_TYPES = {False: "django_task", True: "django_async_task"}
_OPTIONS = {"queues", "attempts", "timeout", "using", "modules"}
_TRACE_CHARS = 1400  # of a job's error text, which has room for 2,000
_DEFAULT_QUEUE = "default"
_USUAL_PRIORITY = 3
_STATUS = {
    JobState.WAITING: TaskResultStatus.READY,
    JobState.DELAYED: TaskResultStatus.READY,
    JobState.ACTIVE: TaskResultStatus.RUNNING,
    JobState.COMPLETED: TaskResultStatus.SUCCESSFUL,
    JobState.FAILED: TaskResultStatus.FAILED,
    JobState.CANCELLED: TaskResultStatus.FAILED,
}
_UNREADABLE = (
    QueueError, InvalidTask, ImproperlyConfigured, TypeError, ValueError, LookupError, AttributeError
)  # fmt: skip
"""What a record ends in that somebody else wrote, or whose task or backend is not here."""


class EventPerfTasks(BaseTaskBackend):
    """Enqueue Django's tasks as jobs: at least once, with leases, priorities, dates and results.

    ``OPTIONS``:

    * ``queues``: dotted path of the manager; ``EVENTPERF_QUEUES`` when not given.
    * ``attempts``: how often a task that raises is run, once by default. A task whose worker died runs again
      in any case, so let a second run do no harm.
    * ``timeout``: of one run, five minutes by default.
    * ``using``: the alias of a database with an outbox, to leave with that transaction's commit.
    * ``modules``: modules with tasks, beside the manager's own and the ``tasks.py`` of installed apps.

    The task queue ``default`` is the manager's own default queue; others have the names of its queues. A
    task's priority 0 is a job's usual priority; larger ones are kept apart, those below share three steps.
    Results last as long as the manager keeps them (``result_ttl``).
    """

    supports_defer: bool = True
    supports_async_task: bool = True
    supports_get_result: bool = True
    supports_priority: bool = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        if unknown := set(self.options) - _OPTIONS:
            raise ConfigurationError(f"TASKS[{alias!r}]['OPTIONS']", sorted(unknown)[0], sorted(_OPTIONS))
        self._found: QueueManager | None = None

    def validate_task(self, task: Any) -> None:
        """Check a task, as Django does for each that is made, and know it from now on."""
        super().validate_task(task)
        _tasks.setdefault(task.module_path, task)

    @property
    def manager(self) -> QueueManager:
        """The manager, looked up at first use: its module may define tasks of its own."""
        if self._found is None:
            path = self.options.get("queues") or getattr(settings, "EVENTPERF_QUEUES", None) or ""
            found: QueueManager = load(path, argument=f"queues of TASKS[{self.alias!r}]")
            if _TYPES[False] not in found.types:
                found.job(_TYPES[False])(run)
                found.job(_TYPES[True])(arun)
            self._found = found
        return self._found

    def enqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Enqueue a task; returns Django's ``TaskResult``.

        Raises:
            InvalidTask: A task that Django or this backend refuses.
            TypeError: Arguments that are not JSON.
            StoreUnavailable: The store of the jobs cannot be reached.
        """
        type_, data, options = self._job(task, args, kwargs)
        job = self.manager.enqueue(type_, data, **options)
        return self._enqueued(task, data, job.id)

    async def aenqueue(self, task: Any, args: Any, kwargs: Any) -> Any:
        """Asynchronous twin of :meth:`enqueue`."""
        type_, data, options = self._job(task, args, kwargs)
        job = await self.manager.aenqueue(type_, data, **options)
        return self._enqueued(task, data, job.id)

    def _job(self, task: Any, args: Any, kwargs: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
        self.validate_task(task)
        data = {
            "task": task.module_path, "backend": self.alias, "queue": task.queue_name,
            "priority": task.priority, "args": normalize_json(args), "kwargs": normalize_json(kwargs),
        }  # fmt: skip
        options: dict[str, Any] = {
            "queue": None if task.queue_name == _DEFAULT_QUEUE else task.queue_name,
            "priority": _priority(task.priority),
            "attempts": self.options.get("attempts", 1),
            "timeout": self.options.get("timeout", "5m"),
        }
        if task.run_after is not None:
            options["at"] = task.run_after.timestamp()
        if self.options.get("using") is not None:
            options["using"] = self.options["using"]
        return _TYPES[iscoroutinefunction(task.func)], data, options

    def _enqueued(self, task: Any, data: dict[str, Any], job_id: str) -> Any:
        result = _result(task, data, job_id, TaskResultStatus.READY, enqueued_at=_when(_now()))
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> Any:
        """Return the ``TaskResult`` of this id.

        Raises:
            TaskResultDoesNotExist: No such task, or its result is no longer kept.
        """
        try:
            info = self.manager.job_info(result_id)
        except JobNotFound as error:
            raise TaskResultDoesNotExist(result_id) from error
        return self._of(info)

    async def aget_result(self, result_id: str) -> Any:
        """Asynchronous twin of :meth:`get_result`."""
        try:
            info = await self.manager.ajob_info(result_id)
        except JobNotFound as error:
            raise TaskResultDoesNotExist(result_id) from error
        return self._of(info)

    def _of(self, info: JobInfo) -> Any:
        if info.type not in _TYPES.values():
            raise TaskResultDoesNotExist(info.id)
        try:
            return self._shown(info)
        except _UNREADABLE as error:
            raise TaskResultDoesNotExist(f"{info.id}: {type(error).__name__}: {error}") from error

    def _shown(self, info: JobInfo) -> Any:
        decode = self.manager.codec.decode
        data = decode(info.payload or b"")
        task = _task(data["task"])
        result = _result(
            task.using(priority=data["priority"], queue_name=data["queue"], backend=data["backend"]),
            data, info.id, _STATUS[info.state], enqueued_at=_when(info.created_at),
            started_at=_when(info.started_at), finished_at=_when(info.finished_at),
            runs=info.attempt, worker=info.worker,
        )  # fmt: skip
        if result.status == TaskResultStatus.FAILED:
            result.errors.append(_error(info.error or "cancelled"))
        elif info.result is not None:
            object.__setattr__(result, "_return_value", decode(info.result))
        return result

    def check(self, **kwargs: Any) -> list[Any]:
        """Tell, in ``manage.py check``, of a manager or a queue that is not there."""
        try:
            names = {_DEFAULT_QUEUE, *self.manager.queues}
        except ConfigurationError as error:
            return [checks.Error(str(error), id="eventperf.E001")]
        unknown = sorted(set(self.queues) - names)
        hint = f"The queues of the manager are {', '.join(sorted(names))}."
        return [checks.Error(f"TASKS names no queue {q!r}.", hint=hint, id="eventperf.E002") for q in unknown]


_tasks: dict[str, Any] = {}
"""The tasks that this process has made, by their path: no others are looked up or run."""


def register() -> None:
    """Declare the handlers of every backend of this kind, for a worker, and import its tasks."""
    autodiscover_modules("tasks")
    for alias in task_backends:
        backend = task_backends[alias]
        if isinstance(backend, EventPerfTasks):
            assert backend.manager
            for module in backend.options.get("modules", ()):
                importlib.import_module(module)


def _task(path: str) -> Any:
    """Return a task by its path; what a job's data names is not imported because it is named there."""
    if path not in _tasks:
        register()
    try:
        return _tasks[path]
    except KeyError:
        text = (
            f"{path!r} is no task that this process knows: make it by @task in the tasks.py of an app, "
            "in the manager's module or in one of OPTIONS['modules']"
        )
        raise NonRetryable(text) from None


def run(ctx: Any, data: dict[str, Any]) -> Any:
    """Run a task that is a plain function; in a thread of the worker."""
    task, result = _started(ctx, data)
    try:
        value = normalize_json(task.call(*_context(task, result), *data["args"], **data["kwargs"]))
    except Exception as error:
        _finished(task, result, error)
        raise _told(error) from error
    _finished(task, result, None, value)
    return value


async def arun(ctx: Any, data: dict[str, Any]) -> Any:
    """Run a task that is a coroutine function."""
    task, result = _started(ctx, data)
    try:
        value = normalize_json(await task.acall(*_context(task, result), *data["args"], **data["kwargs"]))
    except Exception as error:
        await _tell(_finished, task, result, error)
        raise _told(error) from error
    await _tell(_finished, task, result, None, value)
    return value


class TaskFailed(Exception):
    """A task raised; the text is the error and where it happened."""


def _told(error: Exception) -> Exception:
    """Return what the job fails with: what it means stays, and its text says where it happened."""
    if isinstance(error, (Retry, NonRetryable)):
        return error
    first = f"{_path(type(error))}: {error}".partition("\n")[0][:400]
    lines = "".join(traceback.format_exception(error))
    if len(lines) > _TRACE_CHARS:
        lines = "..." + lines[-_TRACE_CHARS:].partition("\n")[2]
    return TaskFailed(f"{first}\n{lines}")


def _path(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


async def _tell(fn: Any, *args: Any) -> None:
    from asgiref.sync import sync_to_async

    await sync_to_async(fn)(*args)  # receivers may use the database


def _context(task: Any, result: Any) -> list[Any]:
    return [TaskContext(task_result=result)] if task.takes_context else []


def _started(ctx: Any, data: dict[str, Any]) -> tuple[Any, Any]:
    task = _task(data["task"]).using(
        priority=data["priority"], queue_name=data["queue"], backend=data["backend"]
    )
    now = _when(_now())
    result = _result(
        task, data, ctx.job_id, TaskResultStatus.RUNNING, started_at=now, runs=ctx.attempt, worker=ctx.worker
    )
    task_started.send(type(task.get_backend()), task_result=result)
    return task, result


def _finished(task: Any, result: Any, error: Exception | None, value: Any = None) -> None:
    failed = error is not None
    status = TaskResultStatus.FAILED if failed else TaskResultStatus.SUCCESSFUL
    object.__setattr__(result, "status", status)
    object.__setattr__(result, "finished_at", _when(_now()))
    if error is None:
        object.__setattr__(result, "_return_value", value)
    else:
        text = "".join(traceback.format_exception(error))
        kind = type(error)
        path = f"{kind.__module__}.{kind.__qualname__}"
        result.errors.append(TaskError(exception_class_path=path, traceback=text))
    task_finished.send(type(task.get_backend()), task_result=result)


def _result(
    task: Any, data: dict[str, Any], job_id: str, status: Any, *, runs: int = 0, worker: str | None = None,
    enqueued_at: Any = None, started_at: Any = None, finished_at: Any = None,
) -> Any:  # fmt: skip
    return TaskResult(
        task=task, id=job_id, status=status, enqueued_at=enqueued_at, started_at=started_at,
        finished_at=finished_at, last_attempted_at=started_at, args=data["args"], kwargs=data["kwargs"],
        backend=data["backend"], errors=[], worker_ids=[worker or ""] * runs,
    )  # fmt: skip


def _error(text: str) -> Any:
    """Return what Django is told of an error that was read back; no module is imported for its class."""
    text = text.removeprefix(f"{TaskFailed.__name__}: ")
    module, _, name = text.partition(":")[0].rpartition(".")
    found = getattr(sys.modules.get(module) if module else builtins, name, None)
    kind = found if isinstance(found, type) and issubclass(found, BaseException) else Exception
    return TaskError(exception_class_path=f"{kind.__module__}.{kind.__qualname__}", traceback=text)


def _priority(of_task: int) -> int:
    """Return a job's priority: 0 is the usual one; below it there is room for three.

    >>> [_priority(p) for p in (-100, -50, -1, 0, 1, 100)]
    [0, 1, 2, 3, 4, 103]
    """
    if of_task >= 0:
        return min(MAX_PRIORITY, _USUAL_PRIORITY + of_task)
    return _USUAL_PRIORITY - 1 - (-of_task - 1) * _USUAL_PRIORITY // 100


def _now() -> float:
    return datetime.now(timezone.utc).timestamp()


def _when(at: float | None) -> datetime | None:
    if at is None:
        return None
    return datetime.fromtimestamp(at, timezone.utc) if settings.USE_TZ else datetime.fromtimestamp(at)
