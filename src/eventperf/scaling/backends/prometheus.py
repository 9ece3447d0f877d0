"""Prometheus as a source of numbers: one instant query, one number, or a reason why there is none."""

from __future__ import annotations

import base64
import http.client
import json
import math
import os
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import BackendUnavailable, ConfigurationError
from eventperf._core.urls import redact
from eventperf.scaling.access import HttpAccess
from eventperf.scaling.errors import ScalingError
from eventperf.scaling.http import TimedHTTPConnection, TimedHTTPSConnection, checked_headers
from eventperf.scaling.model import Sample

_ANSWER_MAX = 1 << 20
_TEXT_MAX = 300
_HEADER_S = 1.0  # Date is written in whole seconds


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query gave: a finite number, or None and why."""

    value: float | None
    reason: str = ""


class PrometheusUnavailable(ScalingError, BackendUnavailable):
    """The server did not answer, or refused the query.

    Attributes:
        url: Where it was asked (never a password); status: HTTP status, 0 without an answer.
    """

    def __init__(self, url: str, text: str, *, status: int = 0) -> None:
        self.url: str = url
        self.text: str = text
        self.status: int = status
        super().__init__(f"{url}: {text}")

    def __reduce__(self) -> tuple[object, ...]:
        return _unavailable, (self.url, self.text, self.status)


def _unavailable(url: str, text: str, status: int) -> PrometheusUnavailable:
    return PrometheusUnavailable(url, text, status=status)


class PrometheusQuery:
    """One instant query against Prometheus or anything that speaks its HTTP API (Thanos, Mimir, ...).

    NaN, infinities, an empty result, several series, partial results and results older than ``max_age``
    are no numbers: :meth:`ask` then gives None and says why. Nothing is guessed from them. A result is as old
    as its evaluation is before the answer was sent, by the clock of who sent it (``Date`` and ``Age``), so
    that clocks that differ do no harm; without those headers by the clock of this machine.

    Args:
        url: Base address, for example ``http://prometheus:9090``; user and password in it are sent as
            basic authentication.
        query: PromQL that yields one series or a scalar.
        timeout: Longest wait, for the connection and for the whole answer each.
        max_age: Samples older than this do not count (sent as ``lookback_delta``, known to Prometheus
            2.45 and later); nor do results evaluated so long before they were sent, as a cache in between
            hands them out, or whose evaluation time stands still this long.
        headers: Sent along, for example ``X-Scope-OrgID``.
        access: Token, password and certificates; from files, they may be rotated.

    Source: Prometheus HTTP API, ``/api/v1/query``.
    """

    def __init__(
        self,
        url: str,
        query: str,
        *,
        timeout: Duration = 3.0,
        max_age: Duration = 60.0,
        headers: Mapping[str, str] | None = None,
        access: HttpAccess | None = None,
        context: ssl.SSLContext | None = None,
        clock: Clock | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError("url", redact(url), "an address such as http://prometheus:9090")
        if not query.strip():
            raise ConfigurationError("query", query, "a PromQL expression")
        self.url: str = redact(url)
        self.query: str = query
        self._tls, self._host, self._port = parts.scheme == "https", parts.hostname, parts.port
        self._path = f"{parts.path.rstrip('/')}/api/v1/query"
        self._headers = {"Accept": "application/json", "User-Agent": "eventperf", **checked_headers(headers)}
        if parts.username is not None:
            if access is not None and access.has_credentials:
                raise ConfigurationError("access", access, "no other credentials beside those in the url")
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        if access is not None and access.has_certificates and (not self._tls or context is not None):
            given = "both" if context is not None else self.url
            raise ConfigurationError("access", given, "certificates only for https, and without context")
        self._access = access
        self._timeout_s = seconds(timeout, name="timeout")
        self._max_age_s = seconds(max_age, name="max_age")
        self._context = context
        self._mark: tuple[object, ...] = ()
        self._clock = clock or SystemClock()
        self._mu = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None
        self._pid = 0
        self._evaluated: tuple[float, float] = (-math.inf, 0.0)

    def ask(self) -> Answer:
        """Run the query.

        Raises:
            PrometheusUnavailable: No answer in time, or an error instead of one.
        """
        with self._mu:
            status, body, about = self._fetch()
        elsewhere = about.get("location", "")
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = {}
        if status != 200 or not isinstance(answer, dict) or answer.get("status") != "success":
            text = answer.get("error") if isinstance(answer, dict) else None
            text = text if isinstance(text, str) and text else _refusal(status, elsewhere)
            raise PrometheusUnavailable(self.url, text[:_TEXT_MAX], status=status)
        doubts = _doubts(answer.get("warnings"))
        if answer.get("isPartial"):  # how VictoriaMetrics says that a part of its stores did not answer
            doubts.append("isPartial: not every store answered")
        if doubts:
            return Answer(None, f"partial: {doubts[0][:_TEXT_MAX]}")
        try:
            return self._judge(answer["data"], _sent_at(about, self._clock))
        except (LookupError, TypeError, ValueError, AttributeError):
            return Answer(None, "an answer of another shape than this API has")

    def _judge(self, data: Mapping[str, Any], sent_at: float) -> Answer:
        kind, result = data["resultType"], data["result"]
        if kind == "vector":
            if not result:
                return Answer(None, "empty")
            if len(result) > 1:
                return Answer(None, f"{len(result)} series where one is needed: aggregate them in the query")
            at, text = result[0]["value"]
        elif kind == "scalar":
            at, text = result
        else:
            return Answer(None, f"a {kind} where one number is needed")
        old_s = sent_at - float(at)
        if not math.isfinite(old_s):
            return Answer(None, "an answer without the time of its evaluation")
        if old_s > self._max_age_s + _HEADER_S:
            text = f"evaluated {old_s:.0f} s before it was sent, max_age is {self._max_age_s:g} s"
            return Answer(None, f"stale: {text}; a cache or a proxy answers")
        if self._stands_still(float(at)):
            return Answer(None, "stale: the time of its evaluation stands still, something answers for it")
        value = _number(text)
        return (
            Answer(value)
            if math.isfinite(value)
            else Answer(None, "NaN" if math.isnan(value) else "infinite")
        )

    def _stands_still(self, evaluated_at: float) -> bool:
        """Tell whether the evaluation time has stood still: a cache answers for a dead server."""
        now = self._clock.monotonic()
        if evaluated_at > self._evaluated[0]:
            self._evaluated = (evaluated_at, now)
        return now - self._evaluated[1] > self._max_age_s

    def _fetch(self) -> tuple[int, bytes, dict[str, str]]:
        query = {
            "query": self.query,
            "timeout": _spelled(self._timeout_s),
            "lookback_delta": _spelled(self._max_age_s),
        }
        target = f"{self._path}?{urlencode(query)}"
        headers = self._admitted()
        reused = self._connection is not None and self._pid == os.getpid()
        try:
            return self._exchange(target, headers)
        except (OSError, http.client.HTTPException) as error:
            self._drop()
            if not reused or isinstance(error, TimeoutError):
                raise PrometheusUnavailable(self.url, f"{type(error).__name__}: {error}") from error
        try:  # the server had closed the idle connection: a query may be asked again
            return self._exchange(target, headers)
        except (OSError, http.client.HTTPException) as error:
            self._drop()
            raise PrometheusUnavailable(self.url, f"{type(error).__name__}: {error}") from error

    def _admitted(self) -> dict[str, str]:
        """Return the headers as the files are now; a changed certificate ends the connection made with it."""
        access = self._access
        if access is None:
            return self._headers
        try:
            headers = {**self._headers, **access.headers()}
            if access.has_certificates and (self._context is None or self._mark != access.mark()):
                mark = access.mark()
                self._context = access.context()
                self._drop()
                self._mark = mark
        except ConfigurationError as error:
            raise PrometheusUnavailable(self.url, str(error)) from error
        return headers

    def _exchange(self, target: str, headers: Mapping[str, str]) -> tuple[int, bytes, dict[str, str]]:
        if self._connection is None or self._pid != os.getpid():
            self._connection, self._pid = self._connect(), os.getpid()
        self._connection.request("GET", target, headers=dict(headers))
        response = self._connection.getresponse()
        body = response.read(_ANSWER_MAX + 1)
        if len(body) > _ANSWER_MAX:
            self._drop()
            raise PrometheusUnavailable(self.url, f"an answer of more than {_ANSWER_MAX} bytes")
        return response.status, body, {name.lower(): value for name, value in response.getheaders()}

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls:
            return TimedHTTPSConnection(
                self._host, self._port, timeout=self._timeout_s, context=self._context
            )
        return TimedHTTPConnection(self._host, self._port, timeout=self._timeout_s)

    def _drop(self) -> None:
        if self._connection is not None and self._pid == os.getpid():
            self._connection.close()
        self._connection = None

    def close(self) -> None:
        """Close the connection; the next query opens a new one."""
        with self._mu:
            self._drop()

    def __repr__(self) -> str:
        return f"PrometheusQuery({self.url!r}, {self.query!r})"


def _number(text: object) -> float:
    """Return a sample's value, a number in a text; what only Python takes for one is none."""
    if isinstance(text, bool) or not isinstance(text, (str, int, float)) or "_" in str(text):
        raise ValueError(text)
    return float(text)


def _sent_at(headers: Mapping[str, str], clock: Clock) -> float:
    """Return when an answer was sent, by the clock of who sent it where that is known, else by ours."""
    try:
        date = parsedate_to_datetime(headers["date"]).timestamp()
        return date + max(0.0, float(headers.get("age", "0")))
    except (LookupError, TypeError, ValueError, OverflowError):
        return clock.time()


def _refusal(status: int, elsewhere: str) -> str:
    """Say what an answer means that is none of this API's."""
    if 300 <= status < 400 and elsewhere:
        # credentials are never carried to where an answer points
        return (
            f"HTTP {status}, it points to {redact(elsewhere.partition('?')[0])}: give the address behind it"
        )
    if status in (401, 403):
        return f"HTTP {status}: the credentials are missing, wrong or not enough"
    if status == 503:
        return "HTTP 503: the server is not ready (it may be starting)"
    return f"HTTP {status}, no answer of this API"


def _spelled(duration_s: float) -> str:
    """Spell a duration so that every server of this API reads it: a whole number of one unit."""
    if duration_s >= 1 and duration_s == int(duration_s):
        return f"{int(duration_s)}s"
    return f"{max(1, round(duration_s * 1000))}ms"


def _doubts(warnings: object) -> list[str]:
    """Return the warnings that tell of a fault of the result; remarks on how a query is written do not.

    Newer servers have a field of its own for these (``infos``), some mark them among the warnings.
    """
    if not warnings:
        return []
    given = warnings if isinstance(warnings, list) else [warnings]
    return [str(w) for w in given if not str(w).startswith("PromQL info:")]


class PrometheusMetrics:
    """Metrics by name, each from one PromQL query.

    Args:
        url: Base address of the server.
        queries: PromQL by metric name, or one query, measured as ``name``.
        name: What a single query measures.
        options: As for :class:`PrometheusQuery`.

    >>> source = PrometheusMetrics("http://prometheus:9090", "sum(rate(http_requests_total[1m]))", timeout=2)
    >>> list(source.queries)
    ['rps']
    """

    def __init__(
        self, url: str, queries: Mapping[str, str] | str, *, name: str = "rps", **options: Any
    ) -> None:
        given = {name: queries} if isinstance(queries, str) else dict(queries)
        if not given:
            raise ConfigurationError("queries", queries, "at least one PromQL expression")
        self.queries: dict[str, PrometheusQuery] = {
            metric: PrometheusQuery(url, text, **options) for metric, text in given.items()
        }

    def read(self) -> Mapping[str, Sample]:
        """Return one sample per query; one that fails does not disturb the others."""
        return {name: self._sample(query) for name, query in self.queries.items()}

    @staticmethod
    def _sample(query: PrometheusQuery) -> Sample:
        try:
            answer = query.ask()
        except PrometheusUnavailable as error:
            return Sample(error=str(error))
        return Sample(value=answer.value, error=answer.reason or None)

    def close(self) -> None:
        """Close the connections; the next read opens new ones."""
        for query in self.queries.values():
            query.close()
