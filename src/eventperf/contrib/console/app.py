"""The console: from a request to a response, without a framework. Adapters bring the requests."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.errors import ConfigurationError
from eventperf._core.events import Hooks
from eventperf._core.logs import logger
from eventperf._pages.html import Html, tag
from eventperf._pages.style import STYLE

from . import guard
from .layout import attentions, frame
from .parts.cache import CachePart
from .parts.database import DatabasePart
from .parts.part import NotHere, Part, Refused
from .parts.queues import QueuesPart
from .parts.scaling import ScalingPart
from .texts import TEXTS, say
from .view import Attention, View, section
from .web import Request, Response, html, redirect

if TYPE_CHECKING:
    from eventperf.cache import CacheManager
    from eventperf.dbopt import DatabaseOptimizer
    from eventperf.queues import QueueManager
    from eventperf.scaling import AutoScaler

    from .adapters.asgi import AsgiApp
    from .adapters.wsgi import WsgiApp

_log = logger("eventperf.console")

_ASSETS: Final = {
    "/console.css": ("text/css; charset=utf-8", "console.css"),
    "/console.js": ("text/javascript; charset=utf-8", "console.js"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleAction:
    """What somebody did, or tried: the audit.

    Attributes:
        at: Seconds since the epoch.
        who: The host's name of the user, else the address.
        action: Such as ``"job.retry"``.
        subject: What it was done to.
        count: How many things it touched.
        outcome: ``"done"``, ``"forbidden"``, or ``"failed: ..."`` with the reason.
    """

    at: float
    who: str
    action: str
    subject: str | None
    count: int = 0
    outcome: str = "done"


class Console:
    """One page about queues, caches, database and scaling, mounted in the host application.

    Every part may be absent. Several managers of a kind are given as a list, or as a mapping from the name
    that the page shows.

    Args:
        queues: A :class:`~eventperf.queues.QueueManager`, or several.
        cache: A :class:`~eventperf.cache.CacheManager`, or several.
        optimizer: A :class:`~eventperf.dbopt.DatabaseOptimizer`.
        scaler: An :class:`~eventperf.scaling.AutoScaler`, a :class:`~eventperf.scaling.DecisionLog`, or
            several.
        title: What the page is called.
        may: Who may do what: called with the host's own request, an action and its subject, for each thing
            that is shown or done. ``"view"`` lets see the pages; ``"view.payload"``, ``"view.value"`` and
            ``"view.sql"`` what users typed; every other action changes something. :func:`read_only` and
            :func:`staff_only` ship. An answer that raises is a no.
        who: The name of whoever asks, for the audit, from the host's own request; by default Django's or
            Starlette's user, ``REMOTE_USER``, else the address.
        policy: Send a Content-Security-Policy. ``False`` where a middleware of the host's sends one and
            refuses ours, which names ``base-uri`` and ``frame-ancestors``; it must allow scripts, styles and
            connections of ``'self'``.
        clock: Time, for tests.

    Raises:
        ConfigurationError: ``may`` is missing: a console that everybody may use is nobody's intention.

    >>> from eventperf.contrib.console import Console, read_only
    >>> from eventperf.contrib.console.web import Request
    >>> console = Console(may=read_only)
    >>> console.respond(Request(method="GET", path="/", base="/ops")).status
    200
    """

    def __init__(
        self,
        *,
        queues: QueueManager | Sequence[QueueManager] | Mapping[str, QueueManager] = (),
        cache: CacheManager | Sequence[CacheManager] | Mapping[str, CacheManager] = (),
        optimizer: DatabaseOptimizer | None = None,
        scaler: AutoScaler | Sequence[AutoScaler] | Mapping[str, AutoScaler] | Any = None,
        title: str = "eventperf",
        may: guard.May | None = None,
        who: Callable[[Any], str] | None = None,
        policy: bool = True,
        clock: Clock | None = None,
    ) -> None:
        if not callable(may):
            allowed = "a function (request, action, subject) -> bool, such as read_only or staff_only"
            raise ConfigurationError("may", may, allowed)
        if not isinstance(title, str) or not title:
            raise ConfigurationError("title", title, "a text")
        if who is not None and not callable(who):
            raise ConfigurationError("who", who, "a function (request) -> str")
        self.title: str = title
        self.hooks: Hooks = Hooks()
        self._may, self._who = may, who or guard.name_of
        self._headers = guard.HEADERS if policy else guard.HEADERS[1:]
        self._clock = clock or SystemClock()
        named_queues, named_caches = named("queues", queues, "status"), named("cache", cache, "stats")
        scalers = named("scaler", () if scaler is None else scaler, "tick", "__iter__")
        parts: list[Part] = []
        if named_queues:
            parts.append(QueuesPart(named_queues, self._clock))
        if named_caches:
            parts.append(CachePart(named_caches, self._clock))
        if optimizer is not None:
            parts.append(DatabasePart(optimizer, self._clock))
        if scalers:
            parts.append(ScalingPart(scalers, self._clock))
        self._parts: dict[str, Part] = {part.path: part for part in parts}

    def on(self, listener: Callable[[Any], object], *types: type) -> Callable[[], None]:
        """Call ``listener`` with every :class:`ConsoleAction`; returns a function that ends it."""
        return self.hooks.subscribe(listener, *types)

    # -- from a request to a response ------------------------------------------------------------

    def respond(self, request: Request) -> Response:
        """Answer one request; never raises. Blocks on the stores it reads: call it from a thread."""
        cookie = guard.cookie_of(request)
        given = cookie or guard.fresh_cookie()
        view = View(request, self._asker(request), guard.token_of(given))
        try:
            answer = self._answer(view)
        except Exception as error:  # a page that fails must not be the host's 500
            _log.exception("the console failed on %s", request.path)
            answer = self._page(view, say("overview"), [_refused(f"{type(error).__name__}")], status=500)
        headers = (*answer.headers, *self._headers)
        if not cookie:
            secure = "; Secure" if request.is_secure else ""
            text = f"{guard.COOKIE}={given}; Path={request.base or '/'}; HttpOnly; SameSite=Strict{secure}"
            headers = (*headers, ("Set-Cookie", text))
        return Response(status=answer.status, headers=headers, body=answer.body)

    def _asker(self, request: Request) -> Callable[[str, str | None], bool]:
        def asked(action: str, subject: str | None = None) -> bool:
            try:
                return self._may(request.native, action, subject) is True
            except Exception:
                _log.exception("may() failed on %s: taken as a no", action)
                return False

        return asked

    def _name_of(self, native: Any) -> str:
        try:
            return str(self._who(native))[:200]
        except Exception:  # what is done is told all the same
            _log.exception("who() failed")
            return guard.name_of(native)

    def _answer(self, view: View) -> Response:
        request = view.request
        if request.method in ("GET", "HEAD") and request.path in _ASSETS:
            return _asset(request.path)
        if not view.may("view", None):
            return self._page(view, say("forbidden"), [], status=403)
        part = self._parts.get("/" + request.path.strip("/").partition("/")[0])
        if request.method == "POST":
            return self._post(view, part)
        if request.method not in ("GET", "HEAD"):
            kind = ("Content-Type", "text/plain; charset=utf-8")
            return Response(status=405, headers=(kind, ("Allow", "GET, HEAD, POST")))
        if request.path in ("", "/"):
            return self._page(view, say("overview"), [_told(view), *self._overview(view)])
        if part is None:
            return self._page(view, say("not_found"), [view.link("/", say("back"))], status=404)
        try:
            title, body = part.show(view)
        except NotHere as error:
            return self._page(view, str(error), [view.link(part.path, say(part.title))], status=404)
        except Exception as error:
            return self._page(view, say(part.title), [_unreadable(part, error)], status=503)
        return self._page(view, title, [_told(view), *body], current=part.path)

    def _post(self, view: View, part: Part | None) -> Response:
        why = guard.refusal(view.request)
        if why:
            self._audit(view, "form", None, outcome=f"failed: {why}")
            return self._page(view, say("forbidden"), [_refused(say(f"refused_{why}"))], status=403)
        if part is None:
            return self._page(view, say("not_found"), [], status=404)
        action = view.request.sent("action") or view.request.sent("all")  # one job or some, or all that match
        subject = view.request.sent("subject") or None
        if action not in part.actions:
            return self._page(view, say("not_found"), [], status=404)
        if not view.may(action, subject):
            self._audit(view, action, subject, outcome="forbidden")
            return self._page(view, say("forbidden"), [], status=403)
        try:
            done = part.act(view, action, subject)
        except Refused as error:
            self._audit(view, action, subject, outcome=f"failed: {error}")
            return self._page(view, say(part.title), [_refused(str(error))], status=409, current=part.path)
        except Exception as error:
            self._audit(view, action, subject, outcome=f"failed: {type(error).__name__}: {error}")
            return self._page(
                view, say(part.title), [_unreadable(part, error)], status=503, current=part.path
            )
        if isinstance(done, tuple):  # a page between: how much it would touch, and whether to go on
            return self._page(view, done[0], done[1], current=part.path)
        self._audit(view, action, subject, count=done.count)
        return redirect(
            view.request.link(
                done.path, done=done.what, n=done.count, left=done.left or "", **(done.query or {})
            )
        )

    def _audit(
        self, view: View, action: str, subject: str | None, *, count: int = 0, outcome: str = "done"
    ) -> None:
        who = self._name_of(view.request.native)
        level = logging.INFO if outcome == "done" else logging.WARNING
        _log.log(level, "%s on %r by %r: %r, %d touched", action, subject, who, outcome, count)
        if self.hooks.active:
            event = ConsoleAction(
                at=self._clock.time(), who=who, action=action, subject=subject, count=count, outcome=outcome
            )
            self.hooks.emit(event)

    # -- pages -----------------------------------------------------------------------------------

    def _page(
        self, view: View, title: str, body: Sequence[object], *, status: int = 200, current: str = "/"
    ) -> Response:
        parts = [("/", say("overview")), *((p.path, say(p.title)) for p in self._parts.values())]
        text = frame(view, title=title, site=self.title, parts=parts, current=current, body=body)
        return html(text, status)

    def _overview(self, view: View) -> Iterator[Html]:
        if not self._parts:
            yield tag("p", say("nothing_connected"))
            return
        found: list[Attention] = []
        shown: list[Html] = []
        for part in self._parts.values():
            try:
                summary = part.overview(view)
                found += part.attention()
            except Exception as error:
                summary = _unreadable(part, error)
                text = say("unreadable", part=say(part.title), error=type(error).__name__)
                found.append(Attention(level="bad", text=text, path=part.path))
            shown.append(section(say(part.title), summary))
        yield section(say("attention"), attentions(view, found))
        yield from shown

    # -- where it is mounted ---------------------------------------------------------------------

    def django_urls(self) -> list[Any]:
        """Return URL patterns: ``path("ops/", include(console.django_urls()))``."""
        from .adapters.django import urls

        return urls(self)

    def flask_blueprint(self, name: str = "eventperf_console") -> Any:
        """Return a blueprint: ``app.register_blueprint(console.flask_blueprint(), url_prefix="/ops")``."""
        from .adapters.flask import blueprint

        return blueprint(self, name)

    def asgi(self) -> AsgiApp:
        """Return an ASGI application: ``app.mount("/ops", console.asgi())``."""
        from .adapters.asgi import AsgiApp

        return AsgiApp(self)

    def wsgi(self) -> WsgiApp:
        """Return a WSGI application."""
        from .adapters.wsgi import WsgiApp

        return WsgiApp(self)


def named(argument: str, given: Any, *abilities: str) -> dict[str, Any]:
    """Return managers by the name they are shown by.

    Raises:
        ConfigurationError: One of them is something else.
    """
    if isinstance(given, Mapping):
        found = {str(name): one for name, one in given.items()}
    else:
        several = isinstance(given, (list, tuple))
        found = {}
        for one in given if several else (given,):
            target = getattr(one, "target", None)
            wish = str(getattr(one, "namespace", "") or getattr(target, "name", "") or argument)
            name, more = wish, 2
            while name in found:
                name, more = f"{wish} {more}", more + 1
            found[name] = one
    for one in found.values():
        if isinstance(one, str) or not any(hasattr(one, ability) for ability in abilities):
            raise ConfigurationError(argument, type(one).__name__, f"objects with {abilities[0]}()")
    return found


def _asset(path: str) -> Response:
    kind, name = _ASSETS[path]
    text = files(__package__ or "").joinpath("static").joinpath(name).read_text("utf-8")
    body = (STYLE + text if name.endswith(".css") else text).encode()
    return Response(headers=(("Content-Type", kind), ("Cache-Control", "max-age=300")), body=body)


def _told(view: View) -> Html:
    """Say what the form before this page did."""
    what, count, left = (view.request.asked(name) for name in ("done", "n", "left"))
    if f"done_{what}" not in TEXTS or not _is_count(count):
        return Html("")
    told = [say(f"done_{what}", n=f"{int(count):,}")]
    if _is_count(left) and int(left) and f"left_{what}" in TEXTS:
        told.append(say(f"left_{what}", n=f"{int(left):,}"))
    return tag("p", " ".join(told), class_="note", role="status")


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 12


def _refused(text: str) -> Html:
    return tag("p", text, class_="note refused", role="alert")


def _unreadable(part: Part, error: Exception) -> Html:
    _log.warning("%s cannot be read: %s: %s", part.title, type(error).__name__, error)
    return _refused(say("unreadable", part=say(part.title), error=f"{type(error).__name__}: {error}"))
