"""One answer in the making: who asks, what they may do, and the pieces that pages are built from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from eventperf._pages.html import Html, tag

from .guard import FIELD
from .texts import say
from .web import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Something a person should look at: ``level`` is ``"bad"`` or ``"warn"``, ``path`` where it is shown."""

    level: str
    text: str
    path: str = "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a form did: the name of its text, how many, how many not, and the page to show next."""

    what: str
    path: str
    count: int = 1
    left: int = 0
    query: Mapping[str, str] | None = None


class View:
    """What a page needs to know of its request.

    Args:
        request: What was asked.
        may: Whether the asker may do an action on a subject.
        token: What a form of this page must carry.
    """

    def __init__(self, request: Request, may: Callable[[str, str | None], bool], token: str) -> None:
        self.request: Request = request
        self.may: Callable[[str, str | None], bool] = may
        self.token: str = token

    def link(self, path: str, text: object, /, **query: object) -> Html:
        """Return a link to a page of the console."""
        return tag("a", text, href=self.request.link(path, **query))

    def form(self, path: str, *children: object, class_: str | None = "act") -> Html:
        """Return a form that posts to ``path``, with its token."""
        hidden = tag("input", type="hidden", name_=FIELD, value=self.token)
        return tag("form", hidden, *children, method="post", action=self.request.link(path), class_=class_)

    def button(self, path: str, text: str, *, action: str, subject: str, **fields: object) -> Html:
        """Return a form of one button, or nothing where the asker may not do ``action``."""
        if not self.may(action, subject):
            return Html("")
        sent = {"action": action, "subject": subject, **fields}
        return self.form(path, *hidden(sent), tag("button", text, type="submit"))


def hidden(fields: Mapping[str, object]) -> list[Html]:
    """Return hidden fields."""
    return [tag("input", type="hidden", name_=k, value=v) for k, v in fields.items() if v is not None]


def select(name: str, label: str, choices: Iterable[tuple[str, str]], chosen: str) -> Html:
    """Return a labelled choice; each of ``choices`` is a value and its text."""
    options = [
        tag("option", text, value=value, selected="" if value == chosen else None) for value, text in choices
    ]
    return tag("label", label, " ", tag("select", *options, name_=name))


def field(name: str, label: str, value: str, **attributes: object) -> Html:
    """Return a labelled line of text."""
    return tag("label", label, " ", tag("input", name_=name, value=value, **attributes))


def moment(at: float | None) -> Html:
    """Return an instant; the page's script turns it into the reader's zone, UTC stands without it."""
    if at is None or not math.isfinite(at):
        return tag("span", "–", class_="muted")
    try:
        when = datetime.fromtimestamp(at, timezone.utc)
    except (OverflowError, OSError, ValueError):
        return tag("span", "–", class_="muted")
    return tag(
        "time", when.strftime("%Y-%m-%d %H:%M:%S UTC"), datetime=when.isoformat(timespec="milliseconds")
    )


def age(seconds: float) -> str:
    """Return a length of time for people.

    >>> age(0.0042), age(75), age(7300)
    ('4.2 ms', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else say("days", n=hours // 24)


def listing(
    caption: str,
    columns: Sequence[object],
    rows: Iterable[Sequence[object]],
    numbers: Sequence[int] = (),
    prose: Sequence[int] = (),
) -> Html:
    """Return a table that a screen reader can announce.

    Args:
        caption: What it lists.
        columns: Headings.
        rows: As many cells each.
        numbers: Columns that stand right.
        prose: Columns of sentences, which are not squeezed on a narrow screen.
    """

    def line(kind: str, cells: Sequence[object], **more: str) -> Html:
        classes = ["n" if at in numbers else "prose" if at in prose else None for at in range(len(columns))]
        return tag("tr", *(tag(kind, c, class_=k, **more) for c, k in zip(cells, classes, strict=True)))

    body = [line("td", row) for row in rows]
    head = tag("thead", line("th", columns, scope="col"))
    whole = tag("table", tag("caption", caption), head, tag("tbody", *body))
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def card(title: str, value: object, note: object = "", level: str | None = None) -> Html:
    """Return one figure with its name."""
    return tag(
        "div",
        tag("dt", title),
        tag("dd", value, class_=level),
        tag("dd", note, class_="muted"),
        class_="card",
    )


def cards(items: Iterable[Html]) -> Html:
    """Return figures beside one another."""
    return tag("dl", *items, class_="cards")


def section(title: str, *body: object) -> Html:
    """Return a part of a page under a heading."""
    return tag("section", tag("h2", title), *body)


def empty(text: str) -> Html:
    """Return what stands where there is nothing, and what to do about it."""
    return tag("p", text, class_="muted")


def concealed(what: str) -> Html:
    """Return what stands in place of something the asker may not see."""
    return empty(say("hidden", what=what))
