"""What the autoscaler saw, decided and did; the calendar; the switch that holds it still."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from eventperf._core.clock import Clock
from eventperf._pages.html import Html, markup, tag
from eventperf.contrib.console.texts import heads, say
from eventperf.contrib.console.view import Attention, Done, View, card, cards, empty, listing, moment, section

from . import replicas
from .part import NotHere, Refused

if TYPE_CHECKING:
    from eventperf.scaling import Alert, ScalingDecision

_DECISIONS: Final = 200
_AHEAD_S: Final = 86_400.0
_POINTS: Final = 2_000
_ALERTS: Final = 50
_OTHERS: Final = 20  # scalers whose shadows are looked for
_DRAWN: Final = 4  # targets on the overview


class ScalingPart:
    """See :class:`~eventperf.contrib.console.parts.part.Part`.

    A scaler may be a whole one or the log of one that runs elsewhere, which can be looked at only.
    """

    path: str = "/scaling"
    title: str = "scaling"
    actions: frozenset[str] = frozenset({"scaling.freeze", "scaling.unfreeze"})

    def __init__(self, scalers: Mapping[str, Any], clock: Clock) -> None:
        self._scalers, self._clock = scalers, clock
        self._alerts: dict[str, deque[Alert]] = {}
        for name, scaler in scalers.items():
            if hasattr(scaler, "on"):
                from eventperf.scaling import Alert

                heard = self._alerts[name] = deque(maxlen=_ALERTS)
                scaler.on(heard.append, Alert)
        self._seen: list[tuple[str, ScalingDecision]] = []

    def attention(self) -> list[Attention]:
        """Name targets that are blind, frozen or cannot be scaled."""
        found = []
        for name, last in self._seen:
            for metric, why in last.blind.items():
                text = say("blind", target=last.target, why=say("blind_metric", metric=metric, why=why))
                found.append(Attention(level="bad", text=text, path=self.path))
            if last.error:
                text = say("scale_failed", target=last.target, why=last.error)
                found.append(Attention(level="bad", text=text, path=self.path))
            if getattr(self._scalers[name], "frozen", False):
                text = say("frozen", target=last.target)
                found.append(Attention(level="warn", text=text, path=self.path))
        return found

    def overview(self, view: View) -> Html:
        """Show replicas and the last reason of each target."""
        shown: list[Html] = []
        drawn: list[Html] = []
        self._seen = []
        for name, scaler in self._scalers.items():
            decisions = _newest(scaler, _POINTS)
            newest = _by_target(decisions)
            if not newest:
                shown.append(card(name, say("none"), _nothing(scaler)))
            for last in newest.values():
                self._seen.append((name, last))
                level = "bad" if last.error or last.blind else None
                shown.append(card(last.target, last.after, say("fact_replicas"), level))
            if len(newest) == 1:
                drawn += self._drawn(name, scaler, decisions)[:1]
        return markup(cards(shown), *drawn[:_DRAWN])

    def show(self, view: View) -> tuple[str, Sequence[object]]:
        """Show plot, decisions and calendar of each target."""
        if view.request.path.strip("/") != "scaling":
            raise NotHere(say("not_found"))
        body: list[object] = []
        for name, scaler in self._scalers.items():
            body.append(section(name, *self._one(view, name, scaler)))
        return say("scaling"), body

    def _one(self, view: View, name: str, scaler: Any) -> Iterable[object]:
        decisions = _newest(scaler, _POINTS)
        if hasattr(scaler, "frozen"):
            verb = "unfreeze" if scaler.frozen else "freeze"
            yield tag("p", say("frozen", target=name), class_="warn") if scaler.frozen else ""
            yield view.button(self.path, say(f"do_{verb}"), action=f"scaling.{verb}", subject=name)
        if not decisions:
            yield empty(_nothing(scaler))
            return
        newest, chosen = _by_target(decisions), view.request.asked("target")
        if len(newest) > 1:
            yield self._switch(view, newest, chosen)
        if chosen in newest:
            decisions, newest = [d for d in decisions if d.target == chosen], {chosen: newest[chosen]}
        if len(newest) == 1:  # replicas of several in one line would say nothing
            yield from self._drawn(name, scaler, decisions)
        rows = [_row(d) for d in decisions[:_DECISIONS] if d.action != "none" or d.error or d.blind]
        columns = heads("when target change wanted limiting why")
        yield listing(say("decisions"), columns, rows[:50], prose=[5])
        full = (tag("pre", last.explain()) for last in islice(newest.values(), 50))
        yield tag("details", tag("summary", say("newest_in_full")), *full)
        if name in self._alerts:
            yield tag("h3", say("alerts"))
            yield _alerts(list(self._alerts[name]))
        yield tag("h3", say("calendar"))
        yield self._calendar(scaler)

    def _switch(self, view: View, targets: Iterable[str], chosen: str) -> Html:
        links = [
            tag("strong", text) if target == chosen else view.link(self.path, text, target=target)
            for target, text in (("", say("all")), *((t, t) for t in targets))
        ]
        return tag("p", say("targets"), " ", *(part for link in links for part in (link, " ")))

    def _drawn(self, name: str, scaler: Any, decisions: Sequence[ScalingDecision]) -> list[Html]:
        """Return the plots of one target, and a table where a shadow stands beside what ran."""
        live = [d for d in decisions if not d.dry_run] or list(decisions)
        shadows = {} if live[0].dry_run else self._shadows(name, live[0].target, decisions)
        drawn = [replicas.plots(live, shadows, self._clock.time(), getattr(scaler, "calendar", None))]
        return [*drawn, replicas.beside(live, shadows)] if shadows else drawn

    def _shadows(
        self, name: str, target: str, decisions: Sequence[ScalingDecision]
    ) -> dict[str, list[ScalingDecision]]:
        """Return what was decided about a target without being done: in its own log, and by other scalers."""
        found = {say("the_shadow"): [d for d in decisions if d.dry_run and d.target == target]}
        for other, scaler in islice(self._scalers.items(), _OTHERS):
            if other != name:
                found[other] = [d for d in _newest(scaler, _POINTS) if d.dry_run and d.target == target]
        return {label: each for label, each in found.items() if each}

    def _calendar(self, scaler: Any) -> Html:
        calendar, now = getattr(scaler, "calendar", None), self._clock.time()
        if calendar is None:
            return empty(say("no_calendar"))
        events = sorted((e for e in calendar.around(now) if e.at >= now - _AHEAD_S), key=lambda e: e.at)
        rows = [
            (
                moment(e.at), e.id or e.kind, e.kind,
                say("none") if e.expected is None else f"{e.expected:,.0f}", _said(e),
            )
            for e in islice(events, 50)
        ]  # fmt: skip
        return listing(say("dated_events"), heads("when event kind expected asks"), rows, [3])

    def act(self, view: View, action: str, subject: str | None) -> Done:
        """Hold a scaler still, or let it go on."""
        scaler = self._scalers.get(subject or "")
        if scaler is None or not hasattr(scaler, "frozen"):
            raise Refused(say("not_found"))
        scaler.frozen = action == "scaling.freeze"
        return Done(what=action.partition(".")[2], path=self.path)


def _alerts(heard: Sequence[Alert]) -> Html:
    if not heard:
        return empty(say("no_alerts"))
    rows = [
        (moment(a.at), a.target, a.kind, say("recovered") if a.recovered else "", a.text)
        for a in reversed(heard)
    ]
    return listing(say("alerts_told"), heads("when target kind state why"), rows, prose=[4])


def _newest(scaler: Any, most: int) -> list[ScalingDecision]:
    """Return decisions, newest first."""
    log = getattr(scaler, "log", scaler)
    return list(islice(reversed(list(log)), most))


def _by_target(decisions: Iterable[ScalingDecision]) -> dict[str, ScalingDecision]:
    """Return the newest of each target by name, what ran before shadows; they come newest first."""
    found: dict[str, ScalingDecision] = {}
    for decision in sorted(decisions, key=lambda d: d.dry_run):
        found.setdefault(decision.target, decision)
    return dict(sorted(found.items()))


def _nothing(scaler: Any) -> str:
    """Say why there is no decision."""
    return getattr(scaler, "absent", "") or say("no_decisions")


def _row(decision: ScalingDecision) -> tuple[object, ...]:
    why = markup(
        decision.reason,
        *(
            markup(tag("br"), tag("span", say("blind_on", metric=m, why=t), class_="bad"))
            for m, t in decision.blind.items()
        ),
        markup(tag("br"), tag("span", decision.error, class_="bad")) if decision.error else "",
    )
    change = f"{decision.before} → {decision.after}" + (f" {say('dry_run')}" if decision.dry_run else "")
    return (
        moment(decision.at),
        decision.target,
        change,
        decision.wanted,
        decision.binding or decision.metric or say("none"),
        why,
    )


def _said(event: Any) -> str:
    asked = (
        ("asks_replicas", event.replicas),
        ("asks_least", event.min_replicas),
        ("asks_rps", event.rps),
    )
    said = ", ".join(say(text, n=f"{value:g}") for text, value in asked if value is not None)
    return said or say("none")
