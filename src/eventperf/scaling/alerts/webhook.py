"""Alerts to a webhook: gathered, repeated as little as possible, sent by a thread of their own."""

from __future__ import annotations

import http.client
import json
import math
import os
import random as _random
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import IO, Any
from urllib.parse import urlsplit

from typing_extensions import Self

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError
from eventperf._core.logs import logger
from eventperf._core.texts import one_line
from eventperf.scaling.http import TimedHTTPHandler, TimedHTTPSHandler, checked_headers
from eventperf.scaling.model import Alert

_log = logger("eventperf.scaling")

_KEYS = 10_000
_PER_POST = 500
_SLACK_LINES = 20
_ATTEMPTS = 5
_BACKOFF_MAX_S = 60.0
_RETRY_AFTER_MAX_S = 300.0
_RETRIED = (408, 425, 429)


class Outbox:
    """What is still to be told: pure, told the time.

    Per target and kind only the newest state is kept, and none is told twice in a row. A target and kind of
    which something was told within ``quiet_s`` waits until that is over, and is left out when it is then
    back where it was: an alert that comes and goes with every tick is told once, not a thousand times.
    """

    def __init__(self, *, quiet_s: float, every_s: float) -> None:
        self._quiet_s, self._every_s = quiet_s, every_s
        self._waiting: dict[tuple[str, str], Alert] = {}
        self._told: dict[tuple[str, str], tuple[bool, float]] = {}
        self._next_at = -math.inf
        self.dropped: int = 0

    def add(self, alert: Alert) -> None:
        """Take one alert or recovery notice."""
        key = (alert.target, alert.kind)
        if key not in self._waiting and len(self._waiting) >= _KEYS:
            self.dropped += 1
            return
        self._waiting[key] = alert

    def due(self, now: float, limit: int = _PER_POST) -> list[Alert]:
        """Take out what may be told at ``now``; a second call before ``every_s`` is over gives nothing."""
        if now < self._next_at:
            return []
        found = [key for key in self._waiting if self._due_at(key) <= now]
        for key in found:
            if self._waiting[key].recovered == self._told.get(key, (True, 0.0))[0]:
                del self._waiting[key]  # back where it was when it was told last
        told = [self._waiting.pop(key) for key in [k for k in found if k in self._waiting][:limit]]
        for alert in told:
            self._told[alert.target, alert.kind] = (alert.recovered, now)
        if told:
            self._next_at = now + self._every_s
            self._forget(now)
        return told

    def next_at(self) -> float:
        """Return when :meth:`due` will next have something; infinity when nothing waits."""
        soonest = min((self._due_at(key) for key in self._waiting), default=math.inf)
        return max(soonest, self._next_at)

    def _due_at(self, key: tuple[str, str]) -> float:
        told = self._told.get(key)
        return -math.inf if told is None else told[1] + self._quiet_s

    def _forget(self, now: float) -> None:
        over = [k for k, (rec, at) in self._told.items() if rec and now - at > self._quiet_s]
        for key in over:
            if key not in self._waiting:
                del self._told[key]

    def flush(self) -> None:
        """Make everything that waits due, for the end of the program."""
        self._quiet_s = self._every_s = 0.0
        self._next_at = -math.inf


class WebhookAlerts:
    """Sends alerts to an address as JSON: ``{"alerts": [{"kind": ..., "target": ..., "text": ...}]}``.

    Calling it only queues, so a tick never waits for the network. Alerts that come together go in one
    request; there is at most one request per ``every``, and one target's alert of one kind is told at most
    once per ``quiet``. A request that was not answered, or answered by 408, 425, 429 or 5xx, is tried up to
    five times in all with growing pauses (``Retry-After`` is heeded); other refusals are logged and dropped.
    The address may be a secret: only its host is ever shown. Redirects are not followed.

    Args:
        url: Where to send; ``http`` or ``https``.
        headers: Sent along, for example ``{"Authorization": "Bearer ..."}``.
        timeout: Longest wait for the connection and for the whole answer each.

    >>> WebhookAlerts("https://hooks.example.com/T0/secret")
    WebhookAlerts('https://hooks.example.com/...')
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: Duration = 5.0,
        every: Duration = 2.0,
        quiet: Duration = "5m",
        context: ssl.SSLContext | None = None,
        clock: Clock | None = None,
        random: _random.Random | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise ConfigurationError(
                "url", f"{parts.scheme}://...", "an http or https address without a user; use headers="
            )
        port = f":{parts.port}" if parts.port else ""
        self._shown = f"{parts.scheme}://{parts.hostname}{port}/..."
        self._url, self._headers = url, checked_headers(headers)
        self._timeout_s = seconds(timeout, name="timeout")
        self._every_s = seconds(every, name="every")
        self._quiet_s = seconds(quiet, name="quiet", zero=True)
        self._clock, self._random = clock or SystemClock(), random or _random.Random()
        self._opener = urllib.request.build_opener(
            _NoRedirect(), TimedHTTPHandler(), TimedHTTPSHandler(context)
        )
        self.sent: int = 0
        self.failed: int = 0
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._outbox = Outbox(quiet_s=self._quiet_s, every_s=self._every_s)
        self._mu = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def __call__(self, alert: Alert, /) -> None:
        if self._pid != os.getpid():
            self._begin()
        with self._mu:
            if self._stopping:
                return
            self._outbox.add(alert)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="eventperf-webhook", daemon=True)
                self._thread.start()
            self._mu.notify()

    def body(self, alerts: Sequence[Alert]) -> Mapping[str, Any]:
        """Return what is sent for ``alerts``; override it for a receiver with another format."""
        return {"alerts": [alert.to_dict() for alert in alerts]}

    # -- the thread ----------------------------------------------------------------------------------

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            try:
                self._deliver(batch)
            except Exception as error:  # a body() of a subclass; the text might hold the address
                self.failed += len(batch)
                _log.error("alerts to %s were lost: %s", self._shown, type(error).__name__)

    def _next(self) -> list[Alert] | None:
        with self._mu:
            while True:
                now = self._clock.monotonic()
                batch = self._outbox.due(now)
                if batch:
                    return batch
                if self._stopping:
                    return None
                left = self._outbox.next_at() - now
                self._mu.wait(None if math.isinf(left) else max(0.0, left))

    def _deliver(self, batch: Sequence[Alert]) -> None:
        data = json.dumps(self.body(batch)).encode()
        pause_s = 1.0
        for attempt in range(1, _ATTEMPTS + 1):
            status, retry_after_s = self._post(data)
            if 200 <= status < 300:
                self.sent += len(batch)
                return
            again = status == 0 or status in _RETRIED or status >= 500
            with self._mu:
                if not again or attempt == _ATTEMPTS or self._stopping:
                    break
                wait = min(_RETRY_AFTER_MAX_S, retry_after_s) if retry_after_s else pause_s
                self._mu.wait_for(lambda: self._stopping, wait * self._random.uniform(0.9, 1.1))
            pause_s = min(_BACKOFF_MAX_S, pause_s * 3)
        self.failed += len(batch)
        why = f"status {status}" if status else "no answer"
        _log.error("%d alerts to %s were lost: %s", len(batch), self._shown, why)

    def _post(self, data: bytes) -> tuple[int, float | None]:
        """Send once; return the status, 0 without an answer, and the seconds of ``Retry-After``."""
        headers = {"Content-Type": "application/json", "User-Agent": "eventperf", **self._headers}
        request = urllib.request.Request(self._url, data=data, headers=headers, method="POST")
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                answer.read(1 << 16)
                return int(answer.status), None
        except urllib.error.HTTPError as refusal:
            with refusal:
                return int(refusal.code), _number(refusal.headers.get("Retry-After"))
        except (OSError, http.client.HTTPException, ValueError) as error:
            # their texts may repeat the address
            _log.info("no answer from %s: %s", self._shown, type(error).__name__)
            return 0, None

    # -- the end -------------------------------------------------------------------------------------

    def close(self, timeout: Duration = 5.0) -> bool:
        """Send what waits, once, and stop; calls after it queue nothing.

        Returns:
            Whether everything was tried within ``timeout``.
        """
        wait_s = seconds(timeout, name="timeout", zero=True)
        with self._mu:
            self._stopping = True
            self._outbox.flush()
            thread = self._thread
            self._mu.notify_all()
        if thread is None or self._pid != os.getpid():
            return True
        thread.join(wait_s)
        return not thread.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._shown!r})"


class SlackAlerts(WebhookAlerts):
    """Sends alerts to a Slack-compatible incoming webhook (Slack, Mattermost, Rocket.Chat, Discord's /slack).

    One message per request, a line per alert, at most twenty; what does not fit is counted. Arguments are
    those of :class:`WebhookAlerts`.
    """

    def body(self, alerts: Sequence[Alert]) -> Mapping[str, Any]:
        lines = [_slack_line(alert) for alert in alerts[:_SLACK_LINES]]
        if len(alerts) > _SLACK_LINES:
            lines.append(f"... and {len(alerts) - _SLACK_LINES} more")
        return {"text": "\n".join(lines)}


def _slack_line(alert: Alert) -> str:
    mark = ":white_check_mark:" if alert.recovered else ":warning:"
    over = " is over" if alert.recovered else ""
    target, kind, text = (_escape(one_line(part)) for part in (alert.target, alert.kind, alert.text[:300]))
    return f"{mark} *{target}* {kind}{over}: {text}"


def _escape(text: str) -> str:
    """Escape what Slack would read as a mention or a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry headers to another host."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        return None
