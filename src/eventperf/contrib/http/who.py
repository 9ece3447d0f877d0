"""Whether a request says who asks: by names, of headers and of what a server puts into its environment.

A rule and not a list: every gateway has names of its own, and a name that is missed shows one person's answer
to all. A name that is caught in error only costs a kept answer, and ``harmless_headers`` cures it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
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
    "actor", "owner", "person", "ident", "nonce", "upn", "eppn",
})  # fmt: skip
"""Or has as a whole word."""
_STARTS: Final = ("remote-", "x-remote-")
_HARMLESS: Final = frozenset({
    "accept-signature", "remote-addr", "remote-host", "remote-ip", "remote-port", "x-remote-addr",
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
    if name in _HARMLESS or name.startswith(_HARMLESS_STARTS) or name.endswith("user-agent"):
        return False
    if name.startswith(_STARTS) or _SAYS.search(name):
        return True
    return not _WORDS.isdisjoint(name.split("-"))


def sayers(headers: Mapping[str, str], harmless: Collection[str]) -> Iterable[str]:
    """Yield the names of the headers that say who asks."""
    for name, value in headers.items():
        if says_who(name) and name not in harmless and not (name.endswith("-verify") and value == "NONE"):
            yield name


def in_environ(environ: Mapping[str, Any], harmless: Collection[str] = ()) -> bool:
    """Tell whether a server that has judged who asks says so in a WSGI environment.

    What is also a variable of this process (``USER``, ``XDG_SESSION_ID``: some servers hand those on) is of
    the process and not of the request.
    """
    told = {
        name.replace("_", "-").lower(): value
        for name, value in environ.items()
        if isinstance(value, str) and value and not name.startswith("HTTP_") and "." not in name
        if os.environ.get(name) != value or name.replace("_", "-").lower() in _SERVERS
    }
    return any(True for _ in sayers(told, harmless))


def in_scope(scope: Mapping[str, Any]) -> bool:
    """Tell whether a middleware outside, or a client certificate, says who asks in an ASGI scope."""
    user = scope.get("user")
    if user is not None and getattr(user, "is_authenticated", True):
        return True
    tls = (scope.get("extensions") or {}).get("tls") or {}
    return bool(tls.get("client_cert_chain") or tls.get("client_cert_name"))
