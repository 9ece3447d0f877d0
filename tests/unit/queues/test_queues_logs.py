"""The log lines kept of a job, beside whatever logging the program sets up, before or during it."""

from __future__ import annotations

import logging
import logging.config
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from eventperf.queues.attempts import LOG_BYTES
from eventperf.queues.working import logs


@contextmanager
def _bare_root() -> Iterator[logging.Logger]:
    """The root logger as a program finds it that has set nothing up: without pytest's own handlers."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers[:] = []
    try:
        yield root
    finally:
        root.handlers[:] = before
        root.setLevel(level)


@contextmanager
def _job() -> Iterator[logs.LogTail]:
    """What a job's log keeps, in a program without handlers."""
    with _bare_root():
        logs.listen()
        tail = logs.LogTail()
        token = logs.current.set(tail)
        try:
            yield tail
        finally:
            logs.current.reset(token)
            logs.leave()


def test_basic_config_of_the_program_takes_effect_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    with _job() as kept:
        assert logging.getLogger().handlers == []
        logging.basicConfig(level=logging.INFO, format="mine %(message)s")
        logging.getLogger("shop").info("sold")
        assert capsys.readouterr().err == "mine sold\n"
        assert (kept.text() or "").endswith("INFO shop: sold")


def test_lines_are_kept_whatever_the_program_does_with_its_handlers() -> None:
    with _job() as kept:
        logging.config.dictConfig(
            {"version": 1, "disable_existing_loggers": False, "loggers": {"quiet": {"propagate": False}}}
        )
        logging.basicConfig(force=True, handlers=[logging.NullHandler()])
        logging.getLogger("quiet").warning("heard")
        assert (kept.text() or "").endswith("WARNING quiet: heard")


def test_warning_of_a_program_without_handlers_still_reaches_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with _job():
        logging.getLogger("shop").warning("said once")
        assert capsys.readouterr().err == "said once\n"


def test_filter_of_the_program_is_obeyed() -> None:
    with _job() as kept:

        def hide(record: logging.LogRecord) -> bool:
            record.msg = record.msg.replace("secret", "***")
            return "never" not in record.msg

        logger = logging.getLogger("hiding")
        logger.addFilter(hide)
        try:
            logger.warning("a secret")
            logger.warning("never this")
        finally:
            logger.removeFilter(hide)
        assert (kept.text() or "").endswith("hiding: a ***")


def test_message_whose_arguments_do_not_fit_is_kept_as_it_was_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with _job() as kept:
        monkeypatch.setattr(logging, "raiseExceptions", False)
        logging.getLogger("shop").warning("%d of them", "many")
        assert kept.text() == "WARNING shop: '%d of them' (its arguments do not fit)"


def test_what_is_kept_is_bounded() -> None:
    with _job() as kept:
        for n in range(200):
            logging.getLogger("shop").warning("%d %s", n, "x" * 1000)
        text = kept.text() or ""
        assert len(text) <= LOG_BYTES
        assert " 199 " in text


def test_nothing_is_kept_outside_of_a_job_or_after_the_worker() -> None:
    logs.listen()
    logs.leave()
    tail = logs.LogTail()
    token = logs.current.set(tail)
    logging.getLogger("shop").warning("too late")
    logs.current.reset(token)
    assert tail.text() is None
