"""What costs time in the database, what is advised against it, and what was done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from eventperf._core.clock import Clock
from eventperf._core.texts import whole
from eventperf._pages.html import Html, markup, tag
from eventperf._pages.svg import bars
from eventperf.contrib.console.texts import heads, say
from eventperf.contrib.console.view import (
    Attention,
    Done,
    View,
    age,
    card,
    cards,
    concealed,
    empty,
    listing,
    moment,
    section,
)

from .part import NotHere, Refused
from .statements import Statements
from .work import Work

if TYPE_CHECKING:
    from eventperf.dbopt import Advice, DatabaseOptimizer

_DRAWN: Final = 5  # statements on the overview


class DatabasePart:
    """See :class:`~eventperf.contrib.console.parts.part.Part`."""

    path: str = "/database"
    title: str = "database"
    actions: frozenset[str] = frozenset({"database.advise", "database.apply"})

    def __init__(self, optimizer: DatabaseOptimizer, clock: Clock) -> None:
        self._optimizer, self._clock = optimizer, clock
        self._statements = Statements(optimizer, clock)
        self._advice: list[tuple[float, Advice]] = []
        self._report: tuple[float, Any] | None = None
        self._work = Work()

    def attention(self) -> list[Attention]:
        """Name a statement that takes most of the time, and advice that waits."""
        found = []
        slow = self._statements.last
        total = sum(q.total_s or 0.0 for q in slow)
        if total and (slow[0].total_s or 0.0) > 0.5 * total and len(slow) > 1:
            share = f"{(slow[0].total_s or 0.0) / total:.0%}"
            found.append(Attention(level="warn", text=say("slow_top", share=share), path=self.path))
        if self._advice and self._advice[-1][1].indexes and self._report is None:
            text = say("advice_ready", n=len(self._advice[-1][1].indexes))
            found.append(Attention(level="warn", text=text, path=self.path))
        return found

    def overview(self, view: View) -> Html:
        """Show what costs most."""
        slow = self._statements.slowest()
        if not slow:
            return empty(say("no_slow"))
        total = sum(q.total_s or 0.0 for q in slow)
        calls = sum(q.calls for q in slow)
        figures = [
            card(say("fact_statements"), len(slow), say("that_cost_most")),
            card(say("fact_calls"), f"{calls:,}"),
            card(say("database_time"), age(total)),
        ]
        costly = [(q.sample, [q.total_s]) for q in slow[:_DRAWN] if q.total_s]
        return markup(
            cards(figures), bars(costly, title=say("time_by_statement"), show=age) if costly else ""
        )

    def show(self, view: View) -> tuple[str, Sequence[object]]:
        """Show the ranking, the last advice beside the one before, and what was applied."""
        path = view.request.path.strip("/")
        if path == "database/advice":
            return say("advice"), self._whole(view)
        if path != "database":
            raise NotHere(say("not_found"))
        return say("database"), [
            *self._under_way(view),
            section(say("statements"), self._statements.ranking(view)),
            section(say("loops"), self._statements.loops(view)),
            *self._told(view),
        ]

    def _under_way(self, view: View) -> Iterable[object]:
        work = self._work
        if work.is_running or work.error:
            sees = view.may("view.sql", None)
            error = work.error if sees else work.error.partition(":")[0]
            state = (
                say("under_way", what=work.what)
                if work.is_running
                else say("ended_early", what=work.what, error=error)
            )
            last = work.lines[-1] if work.lines and sees else ""
            yield tag("p", state, ": " if last else "", last, class_="note", role="status")

    def _told(self, view: View) -> Iterable[object]:
        button = view.button(self.path, say("search_indexes"), action="database.advise", subject="advice")
        body: list[object] = [button] if not self._work.is_running else []
        if not self._advice:
            body.append(empty(say("no_advice")))
        for n, (at, advice) in enumerate(reversed(self._advice)):
            body.append(tag("h3", say("last_search" if n == 0 else "search_before"), moment(at)))
            body.append(self._advised(view, advice, n))
        if self._advice and self._advice[-1][1].indexes and not self._work.is_running:
            body.append(view.button(self.path, say("apply"), action="database.apply", subject="advice"))
        yield section(say("advice"), *body)
        if self._report is not None:
            at, report = self._report
            yield section(say("applied"), tag("p", moment(at)), *_applied(view, report))

    def _advised(self, view: View, advice: Advice, n: int) -> Html:
        more = view.link("/database/advice", say("advice_whole"), n=n)

        def shown(sql: str) -> str:  # a partial index carries the value of its condition
            from eventperf.dbopt.statements.lex import without_values

            return sql if view.may("view.sql", None) else without_values(sql, advice.dialect)

        if not advice.indexes:
            text = say("no_index", n=advice.statements, age=age(advice.seconds))
            return tag("p", text, " ", more)
        other = self._advice[0][1] if len(self._advice) > 1 and n == 0 else None
        before = None if other is None else {index.spec.label() for index in other.indexes}
        rows = [
            (
                tag("code", index.name), shown(index.spec.label()), f"{index.gain:.1%}", index.level,
                "" if before is None or index.spec.label() in before else say("new"),
                tag("code", shown(index.sql)),
            )
            for index in advice.indexes
        ]  # fmt: skip
        columns = heads("name index gain proof blank statement")
        table = listing(
            say("gain_by", gain=f"{advice.gain:.0%}", proof=advice.proof), columns, rows, [2], [5]
        )
        gone = sorted((before or set()) - {index.spec.label() for index in advice.indexes})
        lost = tag("p", say("no_longer", indexes=shown(", ".join(gone))), class_="muted") if gone else ""
        return markup(table, lost, tag("p", more))

    def _whole(self, view: View) -> Sequence[object]:
        """Return all of an advice: its plans carry the values of statements."""
        from eventperf.dbopt.output.page import advice_parts

        asked = whole(view.request.asked("n", "0"))
        if asked is None or asked >= len(self._advice):
            raise NotHere(say("no_advice"))
        if not view.may("view.sql", None):
            return [concealed(say("what_plans"))]
        at, advice = self._advice[-1 - asked]
        return [tag("p", moment(at)), *advice_parts(advice)]

    def act(self, view: View, action: str, subject: str | None) -> Done:
        """Begin a search, or apply the last advice; both go on in the background."""
        if action == "database.advise":
            self._work.begin(say("the_search"), self._search)
            return Done(what="advise", path=self.path)
        if not self._advice:
            raise Refused(say("no_advice"))
        advice = self._advice[-1][1]
        self._work.begin(say("the_change"), lambda tell: self._change(advice, tell))
        return Done(what="apply", path=self.path, count=len(advice.indexes))

    def _search(self, tell: Callable[[str], None]) -> None:
        advice = self._optimizer.advise(progress=tell)
        self._advice = [*self._advice[-1:], (self._clock.time(), advice)]
        self._report = None

    def _change(self, advice: Advice, tell: Callable[[str], None]) -> None:
        report = self._optimizer.apply(advice, dry_run=False, progress=tell)
        self._report = (self._clock.time(), report)


def _applied(view: View, report: Any) -> Iterable[Html]:
    if view.may("view.sql", None):
        yield tag("pre", str(report))
        return
    counts = {kind: getattr(report, kind) for kind in ("created", "reverted", "skipped", "failed")}
    yield cards(
        card(say(f"count_{kind}"), f"{len(found):,}", say("indexes")) for kind, found in counts.items()
    )
    yield concealed(say("what_statements"))
