"""What costs time in the database, what is advised against it, and what was done."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from eventperf._core.clock import Clock
from eventperf._pages.html import Html, markup, tag
from eventperf.contrib.console.texts import say
from eventperf.contrib.console.view import (
    Attention,
    Done,
    View,
    age,
    card,
    cards,
    empty,
    listing,
    moment,
    section,
)

from .part import NotHere, Refused

if TYPE_CHECKING:
    from eventperf.dbopt import Advice, DatabaseOptimizer, SlowQuery

_FRESH_S: Final = 30.0
_MOST_LINES: Final = 200
_STATEMENTS: Final = 25


class Work:
    """One long thing at a time, on a thread of its own, with what it says.

    Attributes:
        lines: Its last words.
        error: Why it ended early, empty if it did not.
    """

    def __init__(self) -> None:
        self._mu = threading.Lock()
        self._thread: threading.Thread | None = None
        self.what: str = ""
        self.lines: deque[str] = deque(maxlen=_MOST_LINES)
        self.error: str = ""

    @property
    def is_running(self) -> bool:
        """Whether it goes on."""
        return self._thread is not None and self._thread.is_alive()

    def begin(self, what: str, run: Callable[[Callable[[str], None]], None]) -> None:
        """Start ``run``.

        Raises:
            Refused: Something is under way.
        """

        def whole() -> None:
            try:
                run(self.lines.append)
            except BaseException as error:  # shown on the page: nobody waits for the thread
                self.error = f"{type(error).__name__}: {error}"

        with self._mu:
            if self.is_running:
                raise Refused(f"{self.what} is still under way")
            self.what, self.error = what, ""
            self.lines.clear()
            self._thread = threading.Thread(target=whole, name=f"eventperf-console-{what}", daemon=True)
            self._thread.start()


class DatabasePart:
    """See :class:`~eventperf.contrib.console.parts.part.Part`."""

    path: str = "/database"
    title: str = "database"
    actions: frozenset[str] = frozenset({"database.advise", "database.apply"})

    def __init__(self, optimizer: DatabaseOptimizer, clock: Clock) -> None:
        self._optimizer, self._clock = optimizer, clock
        self._mu = threading.Lock()
        self._read: dict[bool, tuple[float, list[SlowQuery]]] = {}
        self._slow: list[SlowQuery] = []
        self._advice: list[tuple[float, Advice]] = []
        self._report: tuple[float, Any] | None = None
        self._work = Work()

    def _slowest(self, *, redact: bool = True) -> list[SlowQuery]:
        """Return the ranking, read at most twice a minute however many pages are open."""
        with self._mu:
            at, slow = self._read.get(redact, (0.0, []))
            if redact not in self._read or self._clock.monotonic() - at >= _FRESH_S:
                slow = self._optimizer.slow_queries(limit=_STATEMENTS, redact=redact)
                self._read[redact] = (self._clock.monotonic(), slow)
            self._slow = slow
            return slow

    def attention(self) -> list[Attention]:
        """Name a statement that takes most of the time, and advice that waits."""
        found = []
        total = sum(q.total_s or 0.0 for q in self._slow)
        if total and (self._slow[0].total_s or 0.0) > 0.5 * total and len(self._slow) > 1:
            share = f"{(self._slow[0].total_s or 0.0) / total:.0%}"
            found.append(Attention(level="warn", text=say("slow_top", share=share), path=self.path))
        if self._advice and self._advice[-1][1].indexes and self._report is None:
            text = say("advice_ready", n=len(self._advice[-1][1].indexes))
            found.append(Attention(level="warn", text=text, path=self.path))
        return found

    def overview(self, view: View) -> Html:
        """Show what costs most."""
        slow = self._slowest()
        if not slow:
            return empty(say("no_slow"))
        total = sum(q.total_s or 0.0 for q in slow)
        calls = sum(q.calls for q in slow)
        return cards(
            [
                card("statements", len(slow), "that cost most"),
                card("calls", f"{calls:,}"),
                card("database time", age(total)),
            ]
        )

    def show(self, view: View) -> tuple[str, Sequence[object]]:
        """Show the ranking, the last advice beside the one before, and what was applied."""
        if view.request.path.strip("/") != "database":
            raise NotHere(say("not_found"))
        return say("database"), [
            *self._under_way(),
            section("Statements", self._ranking(view)),
            *self._told(view),
        ]

    def _under_way(self) -> Iterable[object]:
        work = self._work
        if work.is_running or work.error:
            state = f"{work.what} is under way" if work.is_running else f"{work.what} ended: {work.error}"
            last = work.lines[-1] if work.lines else ""
            yield tag("p", state, ": " if last else "", last, class_="note", role="status")

    def _ranking(self, view: View) -> Html:
        shows = view.may("view.sql", None)
        slow = self._slowest(redact=not shows)
        if not slow:
            return empty(say("no_slow"))
        total = sum(q.total_s or 0.0 for q in slow) or 1.0
        rows = [
            (
                _statement(q.sample), f"{q.calls:,}", _time(q.total_s),
                f"{(q.total_s or 0.0) / total:.0%}", _time(q.mean_s), _time(q.max_s),
            )
            for q in slow
        ]  # fmt: skip
        columns = ("statement", "calls", "in all", "share", "mean", "longest")
        what = "By calls times time" if shows else "By calls times time, literals hidden"
        return listing(what, columns, rows, range(1, 6))

    def _told(self, view: View) -> Iterable[object]:
        button = view.button(self.path, "Search for indexes", action="database.advise", subject="advice")
        body: list[object] = [button] if not self._work.is_running else []
        if not self._advice:
            body.append(empty(say("no_advice")))
        for n, (at, advice) in enumerate(reversed(self._advice)):
            body.append(tag("h3", "Last search, " if n == 0 else "The one before, ", moment(at)))
            body.append(_advised(advice))
        if self._advice and self._advice[-1][1].indexes and not self._work.is_running:
            body.append(view.button(self.path, "Apply, measure and keep what helps", action="database.apply",
                                    subject="advice"))  # fmt: skip
        yield section("Advice", *body)
        if self._report is not None:
            at, report = self._report
            yield section("Applied", tag("p", moment(at)), tag("pre", str(report)))

    def act(self, view: View, action: str, subject: str | None) -> Done:
        """Begin a search, or apply the last advice; both go on in the background."""
        if action == "database.advise":
            self._work.begin("the search", self._search)
            return Done(what="advise", path=self.path)
        if not self._advice:
            raise Refused(say("no_advice"))
        advice = self._advice[-1][1]
        self._work.begin("the change", lambda tell: self._change(advice, tell))
        return Done(what="apply", path=self.path, count=len(advice.indexes))

    def _search(self, tell: Callable[[str], None]) -> None:
        advice = self._optimizer.advise(progress=tell)
        self._advice = [*self._advice[-1:], (self._clock.time(), advice)]
        self._report = None

    def _change(self, advice: Advice, tell: Callable[[str], None]) -> None:
        report = self._optimizer.apply(advice, dry_run=False, progress=tell)
        self._report = (self._clock.time(), report)


def _statement(sample: str) -> Html:
    if len(sample) <= 160:
        return tag("code", sample)
    return tag("details", tag("summary", tag("code", f"{sample[:150]}…")), tag("pre", sample))


def _time(seconds: float | None) -> str:
    return "–" if seconds is None else age(seconds)


def _advised(advice: Advice) -> Html:
    if not advice.indexes:
        return tag("p", f"No index is advised ({advice.statements} statements, {age(advice.seconds)}).")
    rows = [(tag("code", index.name), index.spec.label(), tag("code", index.sql)) for index in advice.indexes]
    table = listing(f"Gain {advice.gain:.0%} by proof: {advice.proof}", ("name", "index", "statement"), rows)
    return markup(table, tag("details", tag("summary", "Everything"), tag("pre", str(advice))))
