"""Whether a request says who asks: by names, of headers and of what a server puts into its environment.

A rule and not a list: every gateway has names of its own. A name that is caught in error only costs a kept
answer, and ``harmless_headers`` cures it. A name that is missed shows nobody's answer to others either: each
header that is not known to be silent is part of the key (:func:`is_silent`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, Final

_SAYS: Final = re.compile(
    "token|secret|session|jwt|user|auth|cert|credential|identity|identifier|apikey|passw|passphrase|login|logon"
    "|oidc|saml|shib|principal|account|consumer|customer|member|subject|assertion|claim|email|bearer"
    "|dpop|hmac|signature|impersonat|permission|kerberos|ldap|pomerium|vouch|cf-access|ssl-client|client-verify"
    "|goog-iap"
)
"""What such a name has somewhere in it."""
_WORDS: Final = frozenset({
    "key", "keys", "sid", "sso", "uid", "dn", "otp", "role", "roles", "group", "groups", "scope", "scopes",
    "actor", "owner", "person", "ident", "nonce", "upn", "eppn", "cookie", "admin", "staff", "employee",
    "mail", "pass", "pin", "ticket", "sub",
})  # fmt: skip
"""Or has as a whole word."""
_STARTS: Final = ("remote-", "x-remote-")
_HARMLESS: Final = frozenset({
    "accept-signature", "cookie", "remote-addr", "remote-host", "remote-ip", "remote-port", "x-remote-addr",
    "x-remote-host", "x-remote-ip", "x-remote-port", "sec-websocket-key",
})  # fmt: skip
_HARMLESS_STARTS: Final = ("sec-ch-", "sec-fetch-", "ssl-server-", "ssl-session-")
_SERVERS: Final = frozenset(
    {"remote-user", "remote-ident", "auth-type", "auth-user", "auth-password", "logon-user"}
)
"""What a server alone says, also where it hands its whole environment on (CGI)."""


@lru_cache(maxsize=2_000)
def says_who(name: str) -> bool:
    """Tell whether a header of this name, in small letters, says who asks.

    >>> [says_who(name) for name in ("private-token", "x-authentik-email", "user-agent", "accept-language")]
    [True, True, False, False]
    """
    name = name.replace("_", "-")  # a server may take one for the other
    if name in _HARMLESS or name.startswith(_HARMLESS_STARTS) or name.endswith("user-agent"):
        return False
    if name.startswith(_STARTS) or _SAYS.search(name):
        return True
    return not _WORDS.isdisjoint(name.split("-"))


_SILENT: Final = frozenset({
    # Of HTTP itself: what answers depend on is in the key already, in Vary, or no matter of the answer.
    "accept", "authorization",  # where it may be kept at all, the answer says that it is everybody's
    "accept-charset", "accept-datetime", "accept-encoding", "accept-language",
    "accept-signature", "alt-used", "cache-control", "connection", "content-length", "content-type",
    "date", "dnt", "early-data", "expect", "host", "http2-settings", "if-match", "if-modified-since",
    "if-none-match", "if-range", "if-unmodified-since", "keep-alive", "max-forwards", "pragma",
    "priority", "purpose", "range", "referer", "save-data", "te", "trailer", "transfer-encoding",
    "upgrade", "upgrade-insecure-requests", "user-agent", "via", "x-purpose",
    # Client hints, for which there is Vary.
    "device-memory", "downlink", "dpr", "ect", "rtt", "viewport-width", "width",
    # Whose address a proxy saw: of everybody another one.
    "cf-connecting-ip", "cf-connecting-ipv6", "cf-pseudo-ipv4", "client-ip", "fastly-client-ip",
    "true-client-ip", "x-appengine-user-ip", "x-azure-clientip", "x-azure-socketip", "x-client-ip",
    "x-cluster-client-ip", "x-envoy-external-address", "x-forwarded-for", "x-original-forwarded-for",
    "x-real-ip", "x-real-port",
    # What follows a request through the machines: of each request another one.
    "b3", "baggage", "cdn-loop", "cf-ew-via", "cf-ray", "cloudfront-viewer-address",
    "elastic-apm-traceparent", "fly-request-id", "function-execution-id", "grpc-trace-bin", "newrelic",
    "request-id", "sentry-trace", "traceparent", "tracestate", "uber-trace-id", "x-amz-cf-id",
    "x-amzn-trace-id", "x-arr-log-id", "x-azure-ref", "x-cloud-trace-context", "x-correlation-id",
    "x-newrelic-id", "x-newrelic-transaction", "x-queue-start", "x-request-id", "x-request-start",
    "x-start-time", "x-trace-id", "x-varnish", "x-vercel-id",
})  # fmt: skip
_SILENT_STARTS: Final = ("sec-", "x-b3-", "x-datadog-", "x-envoy-attempt-", "x-envoy-expected-", "x-ot-span-")


@lru_cache(maxsize=2_000)
def is_silent(name: str) -> bool:
    """Tell whether no answer depends on a header of this name, but where it says so itself (``Vary``).

    Of a name that nobody here knows, it may: requests that differ in it never share an answer.

    >>> [is_silent(name) for name in ("user-agent", "sec-fetch-mode", "x-workspace", "x-forwarded-host")]
    [True, True, False, False]
    """
    return (
        name in _SILENT or name in _HARMLESS or name.startswith(_SILENT_STARTS) or name.endswith("user-agent")
    )


def in_headers(headers: Mapping[str, str], harmless: Collection[str] = ()) -> bool:
    """Tell whether headers, by their names in small letters, say who asks."""
    for name in headers:  # noqa: SIM110 - a generator costs more than this loop, for each request
        if says_who(name) and _counts(name, headers[name], harmless):
            return True
    return False


def _counts(name: str, value: str, harmless: Collection[str]) -> bool:
    return name not in harmless and not (name.endswith("-verify") and value == "NONE")


@lru_cache(maxsize=2_000)
def _told(name: str) -> str:
    """Return a name of an environment as that of a header, empty where it says nothing of who asks."""
    if name.startswith("HTTP_") or "." in name:
        return ""
    header = name.replace("_", "-").lower()
    return header if says_who(header) else ""


def in_environ(environ: Mapping[str, Any], harmless: Collection[str] = ()) -> bool:
    """Tell whether a server that has judged who asks says so in a WSGI environment.

    What is also a variable of this process (``USER``, ``XDG_SESSION_ID``: some servers hand those on) is of
    the process and not of the request.
    """
    for name in environ:
        header = _told(name)
        value = environ[name] if header else None
        if not value or not isinstance(value, str) or not _counts(header, value, harmless):
            continue
        if header in _SERVERS or os.environ.get(name) != value:
            return True
    return False


def in_scope(scope: Mapping[str, Any]) -> bool:
    """Tell whether a middleware outside, or a client certificate, says who asks in an ASGI scope."""
    user = scope.get("user")
    if user is not None and getattr(user, "is_authenticated", True):
        return True
    auth = scope.get("auth")
    if auth is not None and getattr(auth, "scopes", True):
        return True
    tls = (scope.get("extensions") or {}).get("tls") or {}
    return bool(tls.get("client_cert_chain") or tls.get("client_cert_name"))
