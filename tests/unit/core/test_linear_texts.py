"""Eight times the text takes about eight times the work, whatever is in it; quadratic is sixty-four."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from eventperf._core.texts import one_line
from eventperf._core.urls import redact
from eventperf.cache.following import begins, changed_nothing, may_commit, tables_written
from eventperf.cache.keys import escape, glob
from eventperf.cache.transactions import writes
from eventperf.dbopt.statements.fingerprint import fingerprint, statements
from eventperf.dbopt.statements.lex import split, tokens

SMALL = 2_000
RUNS = [
    " ", ".", "-", "\\", "'", '"', "`", "$", "(", "/*", "*/", "--\n", "-- ", "E'", "N'", "a", "1", "1.", "?,",
    ":", "%", "#", "[", "{", ";", "$a$", "' '", "''", "_utf8", "x'", "\n", "@", "é", "\x00", "limit ",
    "in (?, ", "values (1), ", "/**/", "/* ", "( \n", "from ", "from [", "from `a", ", lateral a",
    "insert a ", "?pass", "?a=&",
]  # fmt: skip
READERS: dict[str, Callable[[str], Any]] = {
    "tokens": lambda text: [tokens(text, dialect) for dialect in ("sqlite", "postgres", "mysql")],
    "split": lambda text: split(text, "postgres"),
    "statements": lambda text: list(statements(text, "mysql")),
    "fingerprint": lambda text: [fingerprint(text, dialect) for dialect in ("sqlite", "postgres", "mysql")],
    "redact": redact,
    "redact a URL": lambda text: redact(f"redis://h/{text}"),
    "writes": lambda text: [writes(text), writes(text[7:]), writes(f"WITH {text}")],
    "tables of a statement": lambda text: [
        tables_written(f"UPDATE {text[7:]}"),
        tables_written(text + " FROM t"),
    ],
    "ends of a transaction": lambda text: [f(t) for f in (may_commit, begins) for t in (text, text[7:])],
    "changed nothing": lambda text: [changed_nothing(f"UPDATE {text}{end}", 0) for end in ("", ";x")],
    "one_line": one_line,
    "glob of a text": lambda text: glob("*a*b?c*")(text),
    "glob of an escaped text": lambda text: glob(escape(text))(text),
}


def work(reader: Callable[[str], Any], run: str, length: int) -> float:
    """Return the processor time for a statement that repeats ``run``."""
    text = f"SELECT {run * (length // len(run))}"
    began = time.process_time()
    reader(text)
    return time.process_time() - began


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_work_grows_with_the_text(name: str) -> None:
    """Four times what is linear is let pass, and what is too short to be measured."""
    reader = READERS[name]
    slow = RUNS
    for _ in range(3):  # a collection of garbage is no work with the text
        slow = [
            run for run in slow if work(reader, run, 8 * SMALL) > 32 * max(work(reader, run, SMALL), 0.02)
        ]
    assert slow == []
