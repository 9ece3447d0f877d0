"""What a producer gets wrong is refused where it was made, and a value without a repr is still named."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import pytest

from eventperf.errors import ConfigurationError
from eventperf.queues import JobState, PayloadError, QueueManager
from eventperf.queues.codec import Codec


@pytest.mark.parametrize("headers", [{"a": "\udc80"}, {"\ud800": "a"}, {"a": 1}, "text", [("a", "b")]])
def test_headers_that_no_worker_could_read_are_refused(headers: Any) -> None:
    queues = QueueManager("memory://")
    with pytest.raises(ConfigurationError, match="headers"):
        queues.enqueue("t", headers=headers)
    assert sum(status.waiting for status in queues.status()) == 0


def test_one_id_for_many_jobs_is_refused() -> None:
    queues = QueueManager("memory://")
    with pytest.raises(ConfigurationError, match="JobSpec"):
        queues.enqueue_many("t", [1, 2], id="same")
    assert sum(status.waiting for status in queues.status()) == 0


def _deep() -> list[Any]:
    made: list[Any] = []
    for _ in range(3000):
        made = [made]
    return made


def test_data_nested_too_deeply_is_a_payload_error() -> None:
    with pytest.raises(PayloadError, match="data"):
        QueueManager("memory://").enqueue("t", _deep())


def test_a_handler_whose_result_is_nested_too_deeply_runs_once() -> None:
    queues, runs = QueueManager("memory://"), list[int]()

    @queues.job("deep", attempts=3)
    def deep(ctx: Any, data: Any) -> list[Any]:
        runs.append(1)
        return _deep()

    job = queues.enqueue("deep")
    queues.worker().run(burst=True)
    assert (job.info().state, runs) == (JobState.FAILED, [1])


def test_a_job_has_a_bounded_number_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventperf.queues.working.context.MAX_STEPS", 2)
    queues, done = QueueManager("memory://"), list[str]()

    @queues.job("many", attempts=1)
    def many(ctx: Any, data: Any) -> None:
        for step in ("a", "b", "a", "c"):
            with ctx.once(step) as todo:
                done.append(f"{step} {todo}")

    job = queues.enqueue("many")
    queues.worker().run(burst=True)
    assert done == ["a True", "b True", "a False"]
    assert "steps" in (job.info().error or "")


def test_a_log_line_without_a_text_harms_no_handler() -> None:
    queues = QueueManager("memory://")

    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError("no text")

    logging.getLogger("shop.odd").propagate = False  # pytest's own handler cannot write it either

    @queues.job("odd", attempts=1)
    def odd(ctx: Any, data: Any) -> str:
        logging.getLogger("shop.odd").warning(Odd())
        return "done"

    job = queues.enqueue("odd")
    queues.worker().run(burst=True)
    assert job.result() == "done"
    assert "a Odd" in (job.info().attempts[0].log_tail or "")


@dataclass
class Seat:
    row: int


def test_what_is_stored_is_not_quoted_where_it_cannot_be_read() -> None:
    """The reason is stored, logged and shown to people who may not see payloads."""
    pydantic = pytest.importorskip("pydantic")
    card, codec = pydantic.create_model("Card", number=(int, ...)), Codec(10_000)
    stored = codec.encode({"number": "4111-SECRET", "row": "4111-SECRET"})
    for shape in (int, list[int], dict[str, int], card, Seat, tuple[int, int]):
        with pytest.raises(PayloadError) as caught:
            codec.decode(stored, shape)
        assert "SECRET" not in str(caught.value)
        assert f"{len(stored)} bytes" in str(caught.value)
        assert caught.value.__cause__ is None, "or a traceback would quote it"
    with pytest.raises(PayloadError) as caught:
        codec.decode(stored + b"SECRET")
    assert "SECRET" not in str(caught.value)
