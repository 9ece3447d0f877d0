"""What the autoscaler saw, decided and did; the calendar; the switch that holds it still."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from eventperf._core.clock import Clock
from eventperf._pages.html import Html, markup, tag
from eventperf._pages.svg import lines
from eventperf.contrib.console.texts import say
from eventperf.contrib.console.view import Attention, Done, View, card, cards, empty, listing, moment, section

from .part import NotHere, Refused

if TYPE_CHECKING:
    from eventperf.scaling import ScalingDecision

_DECISIONS: Final = 200
_AHEAD_S: Final = 86_400.0
_POINTS: Final = 2_000
_HOURS_FROM_S: Final = 7_200.0
_AHEAD_SHARE: Final = 0.3  # of what is drawn, how far ahead openings are marked
_MARKS: Final = 12
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
        self._seen: list[tuple[str, ScalingDecision]] = []

    def attention(self) -> list[Attention]:
        """Name targets that are blind, frozen or cannot be scaled."""
        found = []
        for name, last in self._seen:
            for metric, why in last.blind.items():
                text = say("blind", target=last.target, why=f"{metric}: {why}")
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
                shown.append(card(name, "–", _nothing(scaler)))
            for last in newest.values():
                self._seen.append((name, last))
                level = "bad" if last.error or last.blind else None
                shown.append(card(last.target, last.after, "replicas", level))
            if len(newest) == 1:
                drawn.append(
                    _plot(_newest(scaler, _POINTS), self._clock.time(), getattr(scaler, "calendar", None))
                )
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
            yield view.button(self.path, verb.capitalize(), action=f"scaling.{verb}", subject=name)
        if not decisions:
            yield empty(_nothing(scaler))
            return
        newest, chosen = _by_target(decisions), view.request.asked("target")
        if len(newest) > 1:
            yield self._switch(view, newest, chosen)
        if chosen in newest:
            decisions, newest = [d for d in decisions if d.target == chosen], {chosen: newest[chosen]}
        if len(newest) == 1:  # replicas of several in one line would say nothing
            yield self._plot(decisions, scaler)
        rows = [_row(d) for d in decisions[:_DECISIONS] if d.action != "none" or d.error or d.blind]
        columns = ("when", "target", "replicas", "wanted", "decided by", "why")
        yield listing("Decisions that changed something, or could not", columns, rows[:50])
        full = (tag("pre", last.explain()) for last in islice(newest.values(), 50))
        yield tag("details", tag("summary", "The newest in full"), *full)
        yield tag("h3", "Calendar")
        yield self._calendar(scaler)

    def _switch(self, view: View, targets: Iterable[str], chosen: str) -> Html:
        links = [
            tag("strong", text) if target == chosen else view.link(self.path, text, target=target)
            for target, text in (("", "all"), *((t, t) for t in targets))
        ]
        return tag("p", "Target: ", *(part for link in links for part in (link, " ")))

    def _plot(self, decisions: Sequence[ScalingDecision], scaler: Any) -> Html:
        return _plot(decisions, self._clock.time(), getattr(scaler, "calendar", None))

    def _calendar(self, scaler: Any) -> Html:
        calendar, now = getattr(scaler, "calendar", None), self._clock.time()
        if calendar is None:
            return empty(say("no_calendar"))
        events = sorted((e for e in calendar.around(now) if e.at >= now - _AHEAD_S), key=lambda e: e.at)
        rows = [
            (
                moment(e.at), e.id or e.kind, e.kind, "–" if e.expected is None else f"{e.expected:,.0f}",
                _said(e),
            )
            for e in islice(events, 50)
        ]  # fmt: skip
        return listing("Dated events near now", ("when", "event", "kind", "expected", "asks for"), rows, [3])

    def act(self, view: View, action: str, subject: str | None) -> Done:
        """Hold a scaler still, or let it go on."""
        scaler = self._scalers.get(subject or "")
        if scaler is None or not hasattr(scaler, "frozen"):
            raise Refused(say("not_found"))
        scaler.frozen = action == "scaling.freeze"
        return Done(what=action.partition(".")[2], path=self.path)


def _newest(scaler: Any, most: int) -> list[ScalingDecision]:
    """Return decisions, newest first."""
    log = getattr(scaler, "log", scaler)
    return list(islice(reversed(list(log)), most))


def _by_target(decisions: Iterable[ScalingDecision]) -> dict[str, ScalingDecision]:
    """Return the newest of each target, by name; ``decisions`` are newest first."""
    found: dict[str, ScalingDecision] = {}
    for decision in decisions:
        found.setdefault(decision.target, decision)
    return dict(sorted(found.items()))


def _nothing(scaler: Any) -> str:
    """Say why there is no decision."""
    return getattr(scaler, "absent", "") or say("no_decisions")


def _row(decision: ScalingDecision) -> tuple[object, ...]:
    why = markup(
        decision.reason,
        *(
            markup(tag("br"), tag("span", f"blind on {m}: {t}", class_="bad"))
            for m, t in decision.blind.items()
        ),
        markup(tag("br"), tag("span", decision.error, class_="bad")) if decision.error else "",
    )
    change = f"{decision.before} → {decision.after}" + (" (dry run)" if decision.dry_run else "")
    return (
        moment(decision.at),
        decision.target,
        change,
        decision.wanted,
        decision.binding or decision.metric or "–",
        why,
    )


def _said(event: Any) -> str:
    asked = (("replicas", event.replicas), ("at least", event.min_replicas), ("requests/s", event.rps))
    return ", ".join(f"{name} {value:g}" for name, value in asked if value is not None) or "–"


def _plot(decisions: Sequence[ScalingDecision], now: float, calendar: Any) -> Html:
    """Draw replicas, and beside them the load at its own scale; what the calendar announces is marked."""
    past = list(reversed(decisions))
    unit_s, unit = (3600.0, "hours") if now - past[0].at > _HOURS_FROM_S else (60.0, "minutes")
    seen = [((d.at - now) / unit_s, d, d.observation) for d in past]
    series = [
        ("asked for", [(at, float(d.after)) for at, d, _ in seen]),
        ("ready", [(at, float(o.state.ready)) for at, _, o in seen if o is not None]),
        ("wanted before limits", [(at, float(d.wanted)) for at, d, _ in seen]),
    ]
    metric = next((d.metric for d in decisions if d.metric), "rps")
    load = [(at, value) for at, _, o in seen if o is not None and (value := o.value(metric)) is not None]
    ahead = now + (now - past[0].at) * _AHEAD_SHARE
    announced = () if calendar is None else calendar.around(now)
    marks = [((e.at - now) / unit_s, e.id or e.kind) for e in announced if past[0].at <= e.at <= ahead]
    marks = sorted(marks)[:_MARKS]
    x = f"{unit} from now"
    plots = [tag("div", tag("h3", "Replicas"), lines(series, x=x, y="replicas", marks=marks))]
    if load:
        drawn = lines([(metric, load)], x=x, y=metric, areas=1, marks=marks)
        plots.append(tag("div", tag("h3", "Load"), drawn))
    return tag("div", *plots, class_="multiples")
