"""The Kubernetes API as raw JSON over the official client's configuration, authentication and pool.

The client's models cost about 1.5 ms of CPU per request; this file leaves them out. What stays the
client's: reading kubeconfig and in-cluster credentials, token refresh, TLS, proxies.
"""

from __future__ import annotations

import gc
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit

from typing_extensions import Self

from eventperf._core.durations import Duration, seconds
from eventperf._core.extras import require
from eventperf._core.logs import logger
from eventperf._core.objects import check_json
from eventperf.scaling.http import Timed, checked_headers

from .errors import (
    KubernetesApiError,
    KubernetesConflict,
    KubernetesDisconnected,
    KubernetesForbidden,
    KubernetesGone,
    KubernetesInvalid,
    KubernetesNotFound,
    KubernetesThrottled,
    KubernetesUnavailable,
)

JSON = dict[str, Any]

_log = logger("eventperf.scaling")

_ANSWER_MAX = 256 << 20  # a list of some ten thousand pods has a hundred
_OBJECTS_MAX = 16 << 20
_REFUSAL_MAX = 1 << 20
_LINE_MAX = 64 << 20

_encode = json.JSONEncoder(separators=(",", ":")).encode

MERGE_PATCH = "application/merge-patch+json"

_STATUS: dict[int, type[KubernetesApiError]] = {
    400: KubernetesInvalid,
    401: KubernetesForbidden,
    403: KubernetesForbidden,
    404: KubernetesNotFound,
    409: KubernetesConflict,
    410: KubernetesGone,
    422: KubernetesInvalid,
    429: KubernetesThrottled,
}


class KubernetesApi:
    """One connection pool to one API server, shared by targets, metrics, leases and watches.

    Safe for threads. Opened on first use, once per process (a forked child opens its own).

    Args:
        configuration: A ``kubernetes.client.Configuration``; by default the in-cluster credentials are
            used inside a pod, and the kubeconfig elsewhere.
        kubeconfig: Path of a kubeconfig file; wins over the default search.
        context: Context of the kubeconfig.
        timeout: Longest wait for a whole answer.
        connect_timeout: Longest wait for a connection.
        pool_size: Connections kept open.

    Raises:
        MissingExtra: The ``kubernetes`` package is not installed (on first use).
    """

    def __init__(
        self,
        configuration: Any = None,
        *,
        kubeconfig: str | os.PathLike[str] | None = None,
        context: str | None = None,
        timeout: Duration = 5.0,
        connect_timeout: Duration = 2.0,
        pool_size: int = 8,
    ) -> None:
        self._given = configuration
        self._kubeconfig = os.fspath(kubeconfig) if kubeconfig is not None else None
        self._context = context
        self._timeout_s = seconds(timeout, name="timeout")
        self._connect_s = seconds(connect_timeout, name="connect_timeout")
        self._pool_size = pool_size
        self._mu = threading.Lock()
        self._pid = 0
        self._pool: Any = None
        self._configuration: Any = None
        self._urllib3: Any = None
        self._urlopen: Any = None
        self._base = ""

    @classmethod
    def at(cls, url: str, *, token: str | None = None, **options: Any) -> Self:
        """Return an API at ``url``, for a proxy (``kubectl proxy``) or a test server."""
        api = cls(None, **options)
        api._given = (url, checked_headers({"token": token}, "token")["token"] if token else None)
        return api

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: JSON | None = None,
        content_type: str = "application/json",
        timeout_s: float | None = None,
    ) -> JSON:
        """Send one request and return the decoded answer.

        A GET whose connection broke is sent once more. Nothing else is repeated here: only the caller
        knows whether it may be.

        Raises:
            KubernetesUnavailable: No answer, a broken answer, or a status from 500 up. The request may
                have taken effect.
            KubernetesApiError: One of its other leaves, for a refused request.
        """
        try:
            response, found = self._exchange(method, path, query, body, content_type, timeout_s)
        except KubernetesDisconnected:
            if method != "GET":
                raise
            response, found = self._exchange(method, path, query, body, content_type, timeout_s)
        try:
            _refuse_redirect(method, path, response.status)
            check_json(found, _OBJECTS_MAX)
            data: JSON = json.loads(found) if found else {}
        except (ValueError, RecursionError) as error:
            raise KubernetesUnavailable(method, path, f"an answer that is no JSON: {error}") from error
        if response.status >= 400:
            raise _translate(method, path, response.status, response.headers, data)
        if not isinstance(data, dict):
            raise KubernetesUnavailable(method, path, f"an answer that is no object: {type(data).__name__}")
        if method == "GET" and path.count("/") > 2 and not isinstance(data.get("metadata"), dict):
            found_there = ", ".join(map(repr, sorted(data)[:5])) or "nothing"  # groups have no metadata
            raise KubernetesUnavailable(method, path, f"an answer of no Kubernetes: {found_there} in it")
        return data

    def _exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: JSON | None,
        content_type: str,
        timeout_s: float | None,
    ) -> tuple[Any, bytes]:
        response = self._send(method, path, query, body, content_type, timeout_s)
        try:
            return response, self._whole(method, path, response)
        except (self._urllib3.exceptions.HTTPError, OSError) as error:
            raise self._broken(method, path, error) from error

    @staticmethod
    def _whole(method: str, path: str, response: Any) -> bytes:
        found = bytearray()
        while chunk := response.read(1 << 20, decode_content=False):
            found += chunk
            if len(found) > _ANSWER_MAX:
                response.close()
                raise KubernetesUnavailable(method, path, f"an answer of more than {_ANSWER_MAX >> 20} MiB")
        return bytes(found)

    def _broken(self, method: str, path: str, error: Exception) -> KubernetesUnavailable:
        broken = isinstance(error, (self._urllib3.exceptions.ProtocolError, ConnectionError))
        kind = KubernetesDisconnected if broken else KubernetesUnavailable
        return kind(method, path, f"{type(error).__name__}: {error}")

    def stream(self, path: str, *, query: Mapping[str, Any], timeout_s: float) -> KubernetesStream:
        """Open a watch.

        Args:
            timeout_s: Longest silence before the stream counts as broken.

        Raises:
            KubernetesApiError: The watch was refused.
            KubernetesUnavailable: No answer.
        """
        response = self._send("GET", path, query, None, "", None)
        if 300 <= response.status < 400:
            response.close()
        _refuse_redirect("GET", path, response.status)
        if response.status < 400:
            # the answer began in time; from here on silence is normal for a while
            relax = getattr(response._original_response, "relax", None)
            if relax is not None:
                relax(timeout_s)
            return KubernetesStream(path, response, self._urllib3.exceptions.HTTPError)
        try:
            data = json.loads(response.read(_REFUSAL_MAX))
        except (ValueError, RecursionError, self._urllib3.exceptions.HTTPError):
            data = {}
        finally:
            response.close()
        raise _translate("GET", path, response.status, response.headers, data)

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: JSON | None,
        content_type: str,
        timeout_s: float | None,
    ) -> Any:
        self._open()
        headers = self._headers()
        data = None
        if body is not None:
            data = _encode(body).encode()
            headers["Content-Type"] = content_type
        url = f"{self._base}{path}?{urlencode(query)}" if query else self._base + path
        limit = self._timeout_s if timeout_s is None else timeout_s
        timeout = self._urllib3.Timeout(connect=min(self._connect_s, limit), read=limit)
        try:
            return self._urlopen(
                method, url, body=data, headers=headers, timeout=timeout,
                retries=False, redirect=False, preload_content=False,
            )  # fmt: skip
        except (self._urllib3.exceptions.HTTPError, OSError) as error:
            raise self._broken(method, path, error) from error

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": "eventperf"}
        for auth in self._configuration.auth_settings().values() if self._configuration is not None else ():
            # asks the client every time: its refresh hook renews tokens that expire
            if auth.get("in") == "header" and auth.get("value"):
                headers[auth["key"]] = auth["value"]
        return checked_headers(headers, "kubernetes credentials")

    def _open(self) -> None:
        if self._pid == os.getpid():
            return
        with self._mu:
            if self._pid != os.getpid():
                self._build()
                self._pid = os.getpid()

    def _build(self) -> None:
        client = require("kubernetes.client", extra="kubernetes", needed_by="KubernetesApi")
        self._urllib3 = require("urllib3", extra="kubernetes", needed_by="KubernetesApi")
        configuration = self._load(client)
        configuration.connection_pool_maxsize = self._pool_size
        self._configuration = configuration
        host = configuration.host.rstrip("/")
        if getattr(configuration, "proxy", None) and urlsplit(host).scheme == "http":
            _log.warning(
                "the proxy of the environment is passed by for %s: over plain http it would read the token",
                host,
            )
            configuration.proxy = None
        # the pool has the client's TLS and proxy settings; its models are never touched
        self._pool = client.ApiClient(configuration).rest_client.pool_manager
        if getattr(self._pool, "proxy", None) is None:
            # one server: taking its URL apart again for each request would cost a fifth of the time
            pool = self._pool.connection_from_url(host)
            # from here on a time-out bounds whole answers, not each wait for a byte
            pool.ConnectionCls = type("TimedConnection", (Timed, pool.ConnectionCls), {})
            self._urlopen, self._base = pool.urlopen, urlsplit(host).path
        else:
            self._urlopen, self._base = self._pool.urlopen, host

    def _load(self, client: Any) -> Any:
        if isinstance(self._given, tuple):
            url, token = self._given
            configuration = client.Configuration()
            configuration.host = url
            if token:
                configuration.api_key = {"authorization": f"Bearer {token}"}
            return configuration
        if self._given is not None:
            return self._given
        config = require("kubernetes.config", extra="kubernetes", needed_by="KubernetesApi")
        configuration = client.Configuration()
        inside = "KUBERNETES_SERVICE_HOST" in os.environ and os.path.exists(_TOKEN)
        try:
            if inside and self._kubeconfig is None and self._context is None:
                config.load_incluster_config(client_configuration=configuration)
            else:
                config.load_kube_config(
                    config_file=self._kubeconfig, context=self._context, client_configuration=configuration
                )
        except Exception as error:  # the client has many words for a file that is missing or broken
            text = f"no way into a cluster: {error}; name a kubeconfig and a context of it"
            where = self._kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
            raise KubernetesUnavailable("OPEN", str(where), text) from error
        return configuration

    def close(self) -> None:
        """Close the pool; the next request opens a new one."""
        with self._mu:
            if self._pool is not None and self._pid == os.getpid():
                self._pool.clear()
            self._pool, self._pid = None, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class KubernetesStream:
    """The events of one watch, until the server ends it or :meth:`close` is called by any thread."""

    def __init__(self, path: str, response: Any, broken: type[Exception]) -> None:
        self._path, self._response, self._broken = path, response, broken
        self._closed = False

    def __iter__(self) -> Iterator[JSON]:
        """Yield events.

        Raises:
            KubernetesUnavailable: The connection broke or was silent for too long.
        """
        pending = b""
        try:
            for chunk in self._response.stream(65536, decode_content=True):
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    if line:
                        check_json(line, _OBJECTS_MAX)
                        yield json.loads(line)
                if len(pending) > _LINE_MAX:
                    raise ValueError(f"an event of more than {_LINE_MAX >> 20} MiB")
        except (self._broken, OSError, ValueError, RecursionError) as error:
            if not self._closed:
                raise KubernetesUnavailable("GET", self._path, f"the watch broke: {error}") from error
        finally:
            self._response.close()

    def close(self) -> None:
        """End the stream; a thread that waits for its next event returns."""
        self._closed = True
        shutdown = getattr(self._response, "shutdown", None)  # urllib3 2.3; before it the reader times out
        if shutdown is not None:
            try:
                shutdown()
            except (ValueError, OSError, RuntimeError):
                return  # it ended by itself meanwhile


@contextmanager
def no_cycles() -> Iterator[None]:
    """Pause the cyclic collector while a long answer is taken apart.

    Tens of thousands of short-lived dictionaries make it walk the whole heap several times, which costs
    more than the parsing; they hold no cycles. Bounded: one answer, well under a second.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
_NAMESPACE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


def pod_namespace() -> str:
    """Return the namespace this process runs in, or ``default`` outside a cluster."""
    try:
        with open(_NAMESPACE, encoding="utf-8") as file:
            return file.read().strip() or "default"
    except OSError:
        return "default"


def _refuse_redirect(method: str, path: str, status: int) -> None:
    """Refuse to follow: credentials go to the address that was given and to no other."""
    if 300 <= status < 400:
        text = f"a redirect ({status}), which is not followed: is this the address of the API server?"
        raise KubernetesUnavailable(method, path, text)


def _translate(
    method: str, path: str, status: int, headers: Mapping[str, str], body: Any
) -> KubernetesApiError:
    text = str(body.get("message") or body.get("reason") or "") if isinstance(body, dict) else ""
    if status == 429 or (status == 503 and headers.get("Retry-After")):
        return KubernetesThrottled(method, path, text, status=status, retry_after_s=_retry_after(headers))
    kind = _STATUS.get(status, KubernetesUnavailable if status >= 500 else KubernetesApiError)
    return kind(method, path, text, status=status)


def _retry_after(headers: Mapping[str, str]) -> float:
    try:
        return max(0.0, float(headers.get("Retry-After", 1)))
    except ValueError:
        return 1.0
