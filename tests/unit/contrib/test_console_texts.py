"""Every English text of the console stands in one file: another language is another table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from console_asks import get
from console_stage import stage
from eventperf.contrib.console import Console
from eventperf.contrib.console.texts import COLUMNS, TEXTS
from eventperf.queues import JobSpec

_SHOWN = ("aria-label", "title", "placeholder", "alt", "data-late")
# What the stage is made of, states and units as they are written everywhere, and what other rooms say.
_DATA = set(
    re.findall(
        r"\S+",
        """
        Box office default ms min en UTC p50 p99 high normal low critical confirm ticket badge nightly report
        Berlin Europe summer festival Summer on sale prod deployment web rps memory closed process site event
        waiting delayed active completed failed cancelled retried success ConnectionError mail server answered
        too many connections from this address RELATED summer-festival dict int str
        hits misses loads stale stores refused corrupt invalidations entries evictions expirations coherence
        stabilisation window limit max all none error
        WHERE and buyer count event_id events fetch first join one order rows select starts_at state statement
        them tickets venue_id where key
        breaker load_s load_errors l1_hits l2_hits hit_ratio size_bytes store_errors replay_queue replayed
        """,
    )
)


class Words(HTMLParser):
    """The words of a page that people see, without code and what statements hold."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._quiet = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._quiet += tag in ("code", "pre", "time", "script")
        if not self._quiet:
            self.found += [value for name, value in attrs if name in _SHOWN and value]

    def handle_endtag(self, tag: str) -> None:
        self._quiet -= tag in ("code", "pre", "time", "script")

    def handle_data(self, data: str) -> None:
        if not self._quiet:
            self.found.append(data)


def translated(text: str) -> str:
    """Return a text of another language, with the places of its values."""
    return re.sub(r"\{\w+\}|[A-Za-z]", lambda m: m[0] if m[0].startswith("{") else "ж", text)


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Console:
    return stage(tmp_path_factory.mktemp("stage"))


def _pages(console: Console) -> Iterator[tuple[str, dict[str, str]]]:
    manager = next(iter(console._parts["/queues"]._managers.values()))  # type: ignore[attr-defined]
    parent = manager.enqueue("badge", 1)
    manager.chain([JobSpec(type="badge", data=1)] * 2)
    child = manager.enqueue("badge", 2, after=[parent], after_when="any")
    dead = manager.jobs(state="failed").jobs[0].id
    for path in (
        "/",
        "/queues",
        "/queues/workers",
        "/queues/rules",
        "/cache",
        "/database",
        "/scaling",
        "/no",
    ):
        yield path, {}
    for state in ("", "failed", "cancelled"):
        yield "/queues/jobs", {"state": state}
    for id in (dead, parent.id, child.id):
        yield "/queues/job", {"id": id}
    yield "/cache", {"key": "event:1", "in": "site"}
    for done in ("retry", "delete", "cancel", "reschedule", "purge", "freeze", "pause"):
        yield "/queues", {"done": done, "n": "3", "left": "2"}


def test_no_english_stands_outside_of_the_table(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = list(_pages(console))
    reasons = " ".join(d.reason for d in next(iter(console._parts["/scaling"]._scalers.values())).log)  # type: ignore[attr-defined]
    known = _DATA | set(re.findall(r"[A-Za-z]{2,}", reasons))
    for table in (TEXTS, COLUMNS):
        for name, text in table.items():
            monkeypatch.setitem(table, name, translated(text))
    odd: dict[str, set[str]] = {}
    for path, query in pages:
        words = Words(get(console, path, **query).body.decode())
        seen = {word for text in words.found for word in re.findall(r"[A-Za-z][A-Za-z_0-9-]{2,}", text)}
        ids = {word for value in query.values() for word in re.findall(r"[A-Za-z][A-Za-z_0-9-]{2,}", value)}
        if path not in ("/queues/jobs", "/queues/job"):  # ids are words of their own
            odd[path] = seen - known - ids
    assert " ".join(sorted(set().union(*odd.values()))) == ""


def test_every_text_is_used_and_every_use_has_its_text() -> None:
    root = Path("src/eventperf/contrib/console")
    code = "".join(p.read_text() for p in root.rglob("*.py") if p.name != "texts.py")
    assert {name for name in re.findall(r"""say\(\s*["'](\w+)["']""", code)} <= TEXTS.keys()
    made = re.compile(
        r"(do|ask|none|done|left|after|field|by|count|refused)_\w+"
    )  # put together where they are used
    quoted = set(re.findall(r"""["'](\w+)["']""", code))
    assert [name for name in TEXTS if name not in quoted and not made.fullmatch(name)] == []
    columns = {name for text in re.findall(r'heads\(\s*"([^"]+)"', code) for name in text.split()}
    assert columns <= COLUMNS.keys()
    assert [name for name in COLUMNS if name not in columns and f'COLUMNS["{name}"]' not in code] == []
