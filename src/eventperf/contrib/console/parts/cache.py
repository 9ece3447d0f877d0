"""The caches of this process: what they answer, what they load, and how to make them forget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pprint import pformat
from typing import TYPE_CHECKING, Final

from eventperf._core.errors import EventPerfError
from eventperf._pages.html import Html, markup, tag
from eventperf.contrib.console.texts import say
from eventperf.contrib.console.view import (
    Attention,
    Done,
    View,
    age,
    card,
    cards,
    concealed,
    field,
    listing,
    section,
    select,
)

from .loads import Loads
from .part import NotHere, Refused

if TYPE_CHECKING:
    from eventperf.cache import CacheManager, CacheStats

_SHOWN: Final = 20_000
_MISSING: Final = object()
_WAYS: Final = (("key", "key"), ("tag", "tag"), ("pattern", "pattern (* and ?)"))


class CachePart:
    """See :class:`~eventperf.contrib.console.parts.part.Part`."""

    path: str = "/cache"
    title: str = "cache"
    actions: frozenset[str] = frozenset({"cache.invalidate"})

    def __init__(self, caches: Mapping[str, CacheManager]) -> None:
        self._caches = caches
        self._seen: dict[str, CacheStats] = {}
        self._loads = {name: Loads(cache) for name, cache in caches.items()}

    def attention(self) -> list[Attention]:
        """Name caches whose second tier is away."""
        found = []
        for name, stats in self._seen.items():
            if stats.breaker == "open":
                found.append(Attention(level="bad", text=say("breaker_open", cache=name), path=self.path))
            if stats.coherence.endswith("(down)"):
                text = say("coherence_down", cache=name, state=stats.coherence)
                found.append(Attention(level="warn", text=text, path=self.path))
            if stats.replay_queue:
                text = say("replaying", cache=name, n=f"{stats.replay_queue:,}")
                found.append(Attention(level="warn", text=text, path=self.path))
        return found

    def overview(self, view: View) -> Html:
        """Show the ratio and the loads of each cache."""
        self._seen = {name: cache.stats() for name, cache in self._caches.items()}
        return cards(
            card(name, f"{stats.hit_ratio:.1%}", f"hits; {stats.loads:,} loads", _level(stats))
            for name, stats in self._seen.items()
        )

    def show(self, view: View) -> tuple[str, Sequence[object]]:
        """Show every cache, and one key of one of them when asked."""
        if view.request.path.strip("/") != "cache":
            raise NotHere(say("not_found"))
        body: list[object] = []
        for name, cache in self._caches.items():
            body.append(section(name, _figures(cache.stats()), self._loads[name].table(view)))
        body.append(section("A key", self._finder(view), *self._found(view)))
        if view.may("cache.invalidate", None):
            body.append(section("Invalidate", self._forms(view)))
        body.append(tag("p", "Figures are of this process since it started.", class_="muted"))
        return say("cache"), body

    def _choices(self) -> list[tuple[str, str]]:
        return [(name, name) for name in self._caches]

    def _finder(self, view: View) -> Html:
        chosen = view.request.asked("in", next(iter(self._caches)))
        return tag(
            "form",
            select("in", "cache", self._choices(), chosen),
            field("key", "key", view.request.asked("key"), required="", size="40"),
            tag("button", "Look up", type="submit"),
            method="get", action=view.request.link(self.path), class_="filter",
        )  # fmt: skip

    def _found(self, view: View) -> list[object]:
        key, name = view.request.asked("key"), view.request.asked("in")
        if not key:
            return []
        cache = self._caches.get(name)
        if cache is None:
            raise NotHere(say("not_found"))
        value = cache.get(key, _MISSING)
        if value is _MISSING:
            return [tag("p", f"{key!r} is not in the cache.")]
        facts = [card("type", type(value).__name__)]
        left = getattr(cache, "ttl", None)
        if callable(left):
            seconds = left(key)
            facts.append(card("fresh for", "–" if seconds is None else age(float(seconds))))
        if not view.may("view.value", key):
            return [cards(facts), concealed("values")]
        text = pformat(value, width=100)
        more = f"\n... {len(text) - _SHOWN:,} more characters" if len(text) > _SHOWN else ""
        return [cards(facts), tag("pre", text[:_SHOWN] + more)]

    def _forms(self, view: View) -> Html:
        return view.form(
            self.path,
            tag("input", type="hidden", name_="action", value="cache.invalidate"),
            select("subject", "cache", self._choices(), next(iter(self._caches))),
            select("by", "by", _WAYS, "key"),
            field("what", "text", "", required="", size="40"),
            tag("button", "Invalidate", type="submit"),
            class_="filter",
        )

    def act(self, view: View, action: str, subject: str | None) -> Done | tuple[str, Sequence[object]]:
        """Invalidate by key, tag or pattern; a pattern is counted before anything goes."""
        cache, what = self._caches.get(subject or ""), view.request.sent("what")
        by = view.request.sent("by")
        if cache is None or by not in dict(_WAYS):
            raise Refused(say("not_found"))
        if not what:
            raise Refused(say("nothing_chosen"))
        try:
            if by == "key":
                return Done(what="invalidate", path=self.path, count=cache.invalidate(what))
            if by == "tag":
                cache.invalidate_tags(what)
                return Done(what="invalidate_tag", path=self.path)
            if not view.request.sent("sure"):
                count = cache.invalidate_pattern(what, dry_run=True)
                return say("confirm"), self._question(view, subject or "", what, count)
            return Done(what="invalidate", path=self.path, count=cache.invalidate_pattern(what))
        except EventPerfError as error:
            raise Refused(str(error)) from error

    def _question(self, view: View, name: str, pattern: str, count: int) -> list[object]:
        sent = {"by": "pattern", "what": pattern, "sure": "1"}
        return [
            tag("p", f"{count:,} entries of {name} match ", tag("code", pattern), ".", data_still=""),
            view.button(self.path, say("confirm"), action="cache.invalidate", subject=name, **sent),
            markup(" ", view.link(self.path, say("cancel"))),
        ]


def _level(stats: CacheStats) -> str | None:
    return "bad" if stats.breaker == "open" else None


def _figures(stats: CacheStats) -> Html:
    mean = age(stats.load_s / stats.loads) if stats.loads else "–"
    facts = cards(
        [
            card("hit ratio", f"{stats.hit_ratio:.1%}", f"{stats.hits + stats.misses:,} reads"),
            card("loads", f"{stats.loads:,}", f"{mean} each, {stats.load_errors:,} failed"),
            card("served stale", f"{stats.stale:,}"),
            card("breaker", stats.breaker, f"{stats.store_errors:,} commands failed", _level(stats)),
            card("coherence", stats.coherence),
            card("in memory", f"{stats.entries:,}", f"{stats.evictions:,} evicted"),
        ]
    )
    rows = [(name, _plain(value)) for name, value in stats.to_dict().items()]
    return markup(
        facts, tag("details", tag("summary", "Every figure"), listing("Figures", ("", ""), rows, [1]))
    )


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
