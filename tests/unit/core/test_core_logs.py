"""What our log lines show of errors and objects from outside: one line, nothing that steers a terminal."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventperf._core.logs import Lines, logger

CLEAR = "\x1b[2J\x1b[H\x07\r\n\u202eFORGED"


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Mute:
    def __repr__(self) -> str:
        raise ValueError("no text either")


class Loud:
    def __repr__(self) -> str:
        return CLEAR


class Text(str):
    def __repr__(self) -> str:
        return CLEAR


class Stack(Exception):
    """The text of many exceptions is that of another one."""

    def __str__(self) -> str:
        return f"first line\n{CLEAR}"


HOSTILE = [
    CLEAR, ValueError(CLEAR), Silent(), Mute(), Loud(), Text("a"), Stack(), Path(CLEAR), (CLEAR,), [Loud()],
    {"a": Loud()}, b"\x1b[2J", KeyboardInterrupt(CLEAR),
]  # fmt: skip


def said(caplog: pytest.LogCaptureFixture, text: str, *args: Any) -> str:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        logger("eventperf.tests").warning(text, *args)
    (record,) = caplog.records
    return record.getMessage()


@pytest.mark.parametrize("form", ["%s", "%r"])
@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda value: type(value).__name__)
def test_whatever_a_line_tells_of_it_is_one_line_and_steers_nothing(
    caplog: pytest.LogCaptureFixture, hostile: object, form: str
) -> None:
    line = said(caplog, f"job %s failed: {form}", "a", hostile)
    assert line.isprintable(), line
    assert line.startswith("job a failed: ")
    assert said(caplog, "%(what)s in %(n)d", {"what": hostile, "n": 3}).isprintable()


def test_an_error_without_a_text_is_named(caplog: pytest.LogCaptureFixture) -> None:
    assert "<Silent, whose text fails with RuntimeError>" in said(caplog, "failed: %s", Silent())
    assert "<Mute, whose text fails with ValueError>" in said(caplog, "failed: %r", Mute())


def test_lines_that_are_meant_stay_and_numbers_are_numbers(caplog: pytest.LogCaptureFixture) -> None:
    assert said(caplog, "%s", Lines("a\nb\x1b")) == "a\nb\\x1b"
    assert said(caplog, "%d of %.1f, %s", 2, 0.5, None) == "2 of 0.5, None"


@given(
    st.lists(st.text() | st.text().map(ValueError) | st.integers() | st.floats() | st.binary(), max_size=4)
)
def test_no_text_at_all_gets_out_raw(args: list[Any]) -> None:
    record = logging.makeLogRecord({"msg": "%s " * len(args), "args": tuple(args)})
    assert logger("eventperf.tests").filter(record)
    assert record.getMessage().isprintable()


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit, RecursionError])
def test_what_logs_goes_on_whatever_the_application_s_handlers_and_filters_raise(
    capsys: pytest.CaptureFixture[str], kind: type[BaseException]
) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise kind("handler")

    def refuse(record: logging.LogRecord) -> bool:
        raise kind("filter")

    log, handler = logger("eventperf.tests.broken"), Broken()
    log.addHandler(handler)
    log.error("first")
    log.removeHandler(handler)
    log.addFilter(refuse)
    log.error("second")
    log.removeFilter(refuse)
    said = capsys.readouterr().err
    assert [text for text in ("first", "second") if text not in said] == [], "told as logging tells its own"


def test_an_application_s_own_class_of_loggers_stays() -> None:
    class Own(logging.Logger):
        pass

    logging.setLoggerClass(Own)
    try:
        assert type(logger("eventperf.tests.own")) is Own
    finally:
        logging.setLoggerClass(logging.Logger)
