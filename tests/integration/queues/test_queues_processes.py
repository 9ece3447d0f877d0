"""``cpu=True`` handlers: other processes, killed when they must stop."""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

import queues_cpu_jobs
from eventperf.errors import ConfigurationError
from eventperf.queues import JobFailed, JobState, QueueManager
from eventperf.testing.queues.tools import run_until
from faults import Worker, is_gone, read_pid, wait_until
from queues_cpu_jobs import die, queues, spin, square


def test_cpu_jobs_run_elsewhere_and_can_be_killed() -> None:
    jobs = [square.enqueue(n) for n in range(4)]
    endless, dying = spin.enqueue(None), die.enqueue(None)
    queues.worker(concurrency=3).run(burst=True)
    results = [job.result(0) for job in jobs]
    assert [r[0] for r in results] == [0, 1, 4, 9]
    assert os.getpid() not in {r[1] for r in results}
    with pytest.raises(JobFailed, match="timed out"):
        endless.result(0)
    with pytest.raises(JobFailed, match="code 7"):
        dying.result(0)


def test_cpu_handlers_must_be_importable_plain_functions() -> None:
    manager = QueueManager("memory://")
    with pytest.raises(ConfigurationError, match="top level"):
        manager.job("local", cpu=True)(lambda ctx, data: None)
    with pytest.raises(ConfigurationError, match="coroutines"):

        @manager.job("coroutine", cpu=True)
        async def coroutine(ctx: object, data: None) -> None: ...

    for made in (functools.partial(_handle, data=None), _Handler().handle, _Handler()):
        with pytest.raises(ConfigurationError):
            manager.job("made", cpu=True)(made)


def _handle(ctx: object, more: object, data: None) -> None: ...


class _Handler:
    def handle(self, ctx: object, data: None) -> None: ...

    __call__ = handle


WORKER = """
import sys
import queues_cpu_jobs
from eventperf.queues import QueueManager
shared = QueueManager(sys.argv[1], namespace=sys.argv[2])
shared.types.update(queues_cpu_jobs.queues.types)
@shared.job("stuck", attempts=1)
def stuck(ctx, data):
    import time
    print("stuck", flush=True)
    time.sleep(3600)
shared.worker(concurrency=2, lease=2.0, grace=float(sys.argv[3])).run()
print("stopped", flush=True)
"""


@pytest.fixture
def shared(redis_url: str) -> Iterator[QueueManager]:
    with QueueManager(redis_url, namespace=uuid4().hex) as manager:
        yield manager


def _child_of(worker: Worker) -> int:
    wait_until(lambda: "child" in worker.output, 30, what=worker.output)
    return int(next(line.split()[1] for line in worker.lines if line.startswith("child")))


def test_retry_means_the_same_out_of_a_process() -> None:
    job = queues_cpu_jobs.queues.enqueue("later")
    run_until(queues_cpu_jobs.queues, lambda: job.info().state is JobState.DELAYED)
    due = job.info().due_at
    assert due is not None
    assert 3500 < due - time.time() < 3700
    assert job.cancel()


@pytest.mark.parametrize(
    ("error", "said", "attempts"),
    [
        ("own", "Declined: 7: no money", 1),
        ("rule", "ApiError: status 404", 1),
        ("local", "NonRetryable: Local: here", 1),
        ("awkward", "Awkward: x", 2),
        pytest.param(
            "group", "ExceptionGroup: some (2 sub-exceptions)", 1,
            marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="no groups before Python 3.11"),
        ),
    ],
)  # fmt: skip
def test_an_error_means_the_same_out_of_a_process_however_it_is_made(
    error: str, said: str, attempts: int
) -> None:
    job = queues.enqueue("raises", error)
    queues.worker(concurrency=1).run(burst=True)
    run_until(queues, lambda: job.info().is_finished)
    assert (job.info().error, job.info().attempt) == (said, attempts)


def test_a_result_that_cannot_leave_a_process_is_as_one_that_cannot_be_stored() -> None:
    lost, generator, dropped, unrun = (
        queues.enqueue(type_, kind)
        for type_, kind in (
            ("kept", "lambda"), ("kept", "generator"), ("dropped", "lambda"), ("dropped", "generator")
        )
    )  # fmt: skip
    queues.worker(concurrency=2).run(burst=True)
    assert dropped.info().state is JobState.COMPLETED
    assert [job.info().attempt for job in (lost, generator, unrun)] == [1, 1, 1]
    with pytest.raises(JobFailed, match="keep_result=False"):
        lost.result(0)
    for job in (generator, unrun):
        with pytest.raises(JobFailed, match="nothing of it has run"):
            job.result(0)


def test_a_process_runs_the_handler_that_was_declared_or_none() -> None:
    job = queues.enqueue("hidden")
    queues.worker(concurrency=1).run(burst=True)
    with pytest.raises(JobFailed, match=r"queues_cpu_jobs\.hidden"):
        job.result(0)


def test_process_may_have_processes_and_has_no_state() -> None:
    own, state = queues_cpu_jobs.queues.enqueue("pool", 10), queues_cpu_jobs.queues.enqueue("needs_state")
    run_until(queues_cpu_jobs.queues, lambda: own.info().is_finished and state.info().is_finished)
    assert own.result(0) == 45
    with pytest.raises(JobFailed, match="another process"):
        state.result(0)


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.1])
def test_cancel_takes_effect_while_the_process_starts(after_s: float) -> None:
    manager = queues_cpu_jobs.queues
    job = manager.enqueue("slow", 30.0)

    def cancelled() -> bool:
        if job.info().state is JobState.ACTIVE:
            time.sleep(after_s)
            manager.cancel(job.id)
        return job.info().is_finished

    began = time.monotonic()
    run_until(manager, cancelled)
    assert job.info().state is JobState.CANCELLED
    assert time.monotonic() - began < 20, "not after its 30 s"


def test_stop_of_the_whole_group_is_no_failure_of_a_process_job(shared: QueueManager, redis_url: str) -> None:
    with Worker(WORKER, redis_url, shared.namespace, 10) as worker:
        job = shared.enqueue("slow", 1.5)
        child = _child_of(worker)
        for pid in (child, worker.pid):  # what a service manager does
            os.kill(pid, signal.SIGTERM)
        worker.wait_for("stopped", 20)
    assert (job.info().state, job.info().attempt) == (JobState.COMPLETED, 1)


def test_process_of_a_killed_worker_ends_with_it(shared: QueueManager, redis_url: str) -> None:
    with Worker(WORKER, redis_url, shared.namespace, 10) as worker:
        shared.enqueue("slow", 60.0)
        child = _child_of(worker)
        worker.kill9()
        wait_until(lambda: not os.path.exists(f"/proc/{child}"), 5, what="the child to end")


@pytest.mark.parametrize("how", ["worker killed", "cancelled"])
def test_what_a_process_job_starts_ends_with_it(
    shared: QueueManager, redis_url: str, tmp_path: Path, how: str
) -> None:
    with Worker(WORKER, redis_url, shared.namespace, 10) as worker:
        job = shared.enqueue("starts", str(tmp_path / "pid"))
        program = wait_until(lambda: read_pid(tmp_path / "pid"), 40, what="the program to start")
        if how == "cancelled":
            job.cancel()
        else:
            worker.kill9()
        wait_until(lambda: is_gone(program), 30, what="the program to end")


def test_killed_process_costs_its_job_alone(shared: QueueManager, redis_url: str) -> None:
    with Worker(WORKER, redis_url, shared.namespace, 10) as worker:
        job = shared.enqueue("slow", 60.0, attempts=1)
        os.kill(_child_of(worker), signal.SIGKILL)
        wait_until(lambda: job.info().is_finished, 10)
        assert "ended with code -9" in (job.info().error or "")
        assert shared.enqueue("square", 3).result(30)[0] == 9, "the next job gets a new process"


def test_hung_thread_does_not_keep_a_stopped_process(shared: QueueManager, redis_url: str) -> None:
    with Worker(WORKER, redis_url, shared.namespace, 0.5) as worker:
        job = shared.enqueue("stuck")
        worker.wait_for("stuck", 20)
        worker.terminate()
        assert worker.wait() == 0
    back = JobState.DELAYED, JobState.WAITING  # a second later: the process has gone then
    assert job.info().state in back, "handed back when its thread could not go on any more"
    assert job.info().crashes == 0
