"""The caches: what they answer, here and in all processes, what they load, and how to make them forget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pprint import pformat
from typing import TYPE_CHECKING, Final

from eventperf._core.clock import Clock
from eventperf._core.errors import EventPerfError
from eventperf._pages.html import Html, markup, tag
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
    field,
    listing,
    section,
    select,
)

from .course import Course
from .loads import Loads
from .part import NotHere, Refused
from .processes import Processes

if TYPE_CHECKING:
    from eventperf.cache import CacheManager, CacheStats

_SHOWN: Final = 20_000
_MISSING: Final = object()
_WAYS: Final = ("key", "tag", "pattern")
_LARGEST: Final = 20


class CachePart:
    """See :class:`~eventperf.contrib.console.parts.part.Part`."""

    path: str = "/cache"
    title: str = "cache"
    actions: frozenset[str] = frozenset({"cache.invalidate"})

    def __init__(self, caches: Mapping[str, CacheManager], clock: Clock) -> None:
        self._caches = caches
        self._courses = {name: Course(clock) for name in caches}
        self._seen: dict[str, CacheStats] = {}
        self._loads = {name: Loads(cache) for name, cache in caches.items()}
        self._processes = {
            name: Processes(cache) for name, cache in caches.items() if hasattr(cache, "fleet")
        }

    def attention(self) -> list[Attention]:
        """Name caches whose second tier is away."""
        found = []
        for name, stats in self._seen.items():
            if stats.breaker == "open":
                found.append(Attention(level="bad", text=say("breaker_open", cache=name), path=self.path))
            found += self._elsewhere(name)
            if stats.coherence.endswith("(down)"):
                text = say("coherence_down", cache=name, state=stats.coherence)
                found.append(Attention(level="warn", text=text, path=self.path))
            if stats.replay_queue:
                text = say("replaying", cache=name, n=f"{stats.replay_queue:,}")
                found.append(Attention(level="warn", text=text, path=self.path))
        return found

    def _elsewhere(self, name: str) -> list[Attention]:
        """Name breakers that are open in other processes."""
        known = self._processes[name].last if name in self._processes else ()
        others = [one for one in known if not one.is_here]
        broken = sum(one.stats.breaker == "open" for one in others)
        if not broken:
            return []
        text = say("breaker_open_there", cache=name, n=f"{broken:,}", all=f"{len(known):,}")
        return [Attention(level="bad", text=text, path=self.path)]

    def overview(self, view: View) -> Html:
        """Show the ratio and the loads of each cache."""
        self._seen = {name: cache.stats() for name, cache in self._caches.items()}
        shown = []
        for name, stats in self._seen.items():
            known = self._processes[name].read() if name in self._processes else ()
            total = type(stats).summed(one.stats for one in known) if known else stats
            note = say("hits_and_loads", loads=f"{total.loads:,}")
            if len(known) > 1:
                note = say("hits_of_all", n=f"{len(known):,}", loads=f"{total.loads:,}")
            self._courses[name].note(total, len(known))
            shown.append(card(name, f"{total.hit_ratio:.1%}", note, _level(stats)))
        return markup(cards(shown), *(course.plots(name) for name, course in self._courses.items()))

    def show(self, view: View) -> tuple[str, Sequence[object]]:
        """Show every cache, and one key of one of them when asked."""
        if view.request.path.strip("/") != "cache":
            raise NotHere(say("not_found"))
        body: list[object] = []
        for name, cache in self._caches.items():
            stats = cache.stats()
            known = self._processes[name].read() if name in self._processes else ()
            total = type(stats).summed(one.stats for one in known) if known else stats
            self._courses[name].note(total, len(known))
            parts: list[object] = [_figures(stats), tag("p", say("since_start"), class_="muted")]
            parts.append(self._courses[name].plots(name))
            if name in self._processes:
                parts += [tag("h3", say("fleet")), self._processes[name].table()]
            parts += [tag("h3", say("dearest")), self._loads[name].table(view)]
            parts += [tag("h3", say("biggest_head")), _largest(view, cache)]
            body.append(section(name, *parts))
        body.append(section(say("a_key"), self._finder(view), *self._found(view)))
        if view.may("cache.invalidate", None):
            body.append(section(say("invalidate"), self._forms(view)))
        return say("cache"), body

    def _choices(self) -> list[tuple[str, str]]:
        return [(name, name) for name in self._caches]

    def _finder(self, view: View) -> Html:
        chosen = view.request.asked("in", next(iter(self._caches)))
        return tag(
            "form",
            select("in", say("field_cache"), self._choices(), chosen),
            field("key", say("field_key"), view.request.asked("key"), required="", size="40"),
            tag("button", say("look_up"), type="submit"),
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
            return [tag("p", say("key_absent", key=repr(key)))]
        facts = [card(say("fact_type"), type(value).__name__), *_facts(view, cache, key)]
        if not view.may("view.value", key):
            return [cards(facts), concealed(say("what_values"))]
        text = pformat(value, width=100)
        left = f"{len(text) - _SHOWN:,}"
        more = "\n" + say("more_characters", n=left) if len(text) > _SHOWN else ""
        return [cards(facts), tag("pre", text[:_SHOWN] + more)]

    def _forms(self, view: View) -> Html:
        return view.form(
            self.path,
            tag("input", type="hidden", name_="action", value="cache.invalidate"),
            select("subject", say("field_cache"), self._choices(), next(iter(self._caches))),
            select("by", say("by"), [(way, say(f"by_{way}")) for way in _WAYS], "key"),
            field("what", say("field_text"), "", required="", size="40"),
            tag("button", say("invalidate"), type="submit"),
            class_="filter",
        )

    def act(self, view: View, action: str, subject: str | None) -> Done | tuple[str, Sequence[object]]:
        """Invalidate by key, tag or pattern; a pattern is counted before anything goes."""
        cache, what = self._caches.get(subject or ""), view.request.sent("what")
        by = view.request.sent("by")
        if cache is None or by not in _WAYS:
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
            tag(
                "p",
                say("pattern_matches", n=f"{count:,}", cache=name),
                " ",
                tag("code", pattern),
                data_still="",
            ),
            view.button(self.path, say("confirm"), action="cache.invalidate", subject=name, **sent),
            markup(" ", view.link(self.path, say("cancel"))),
        ]


def _facts(view: View, cache: CacheManager, key: str) -> list[Html]:
    """Return what is known of an entry beside its value; tags may be what users typed, as values may."""
    known = cache.about(key) if hasattr(cache, "about") else None
    if known is None:
        return []
    facts = [
        card(say("fresh_for"), _span(known.fresh_s), say("kept_for", age=_span(known.kept_s))),
        card(say("fact_age"), say("none") if known.age_s is None else age(known.age_s)),
        card(
            say("fact_size"),
            say("none") if known.size_bytes is None else f"{known.size_bytes:,}",
            say("bytes"),
        ),
    ]
    if known.tags:
        tags = ", ".join(known.tags[:_LARGEST]) if view.may("view.value", key) else f"{len(known.tags):,}"
        facts.append(card(say("fact_tags"), tags))
    return facts


def _span(seconds: float) -> str:
    return say("for_ever") if seconds == math.inf else age(max(0.0, seconds))


def _largest(view: View, cache: CacheManager) -> Html:
    """Return the largest values that this process stored; keys may be what users typed."""
    found = cache.largest(_LARGEST) if hasattr(cache, "largest") else []
    if not found:
        return empty(say("no_sizes"))
    if not view.may("view.value", None):
        return concealed(say("what_keys"))
    return listing(say("biggest"), heads("key bytes"), [(key, f"{size:,}") for key, size in found], [1])


def _level(stats: CacheStats) -> str | None:
    return "bad" if stats.breaker == "open" else None


def _figures(stats: CacheStats) -> Html:
    mean = age(stats.load_s / stats.loads) if stats.loads else say("none")
    reads, failed = f"{stats.hits + stats.misses:,}", f"{stats.load_errors:,}"
    broken = say("commands_failed", n=f"{stats.store_errors:,}")
    facts = cards(
        [
            card(say("hit_ratio"), f"{stats.hit_ratio:.1%}", say("reads", n=reads)),
            card(say("loads"), f"{stats.loads:,}", say("load_note", mean=mean, failed=failed)),
            card(say("served_stale"), f"{stats.stale:,}"),
            card(say("breaker"), stats.breaker, broken, _level(stats)),
            card(say("coherence"), stats.coherence),
            card(say("in_memory"), f"{stats.entries:,}", say("evicted", n=f"{stats.evictions:,}")),
        ]
    )
    rows = [(name, _plain(value)) for name, value in stats.to_dict().items()]
    table = listing(say("figures"), heads("blank blank"), rows, [1])
    return markup(facts, tag("details", tag("summary", say("every_figure")), table))


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
