"""What to do about a server that cannot be used, by what the driver says."""

from __future__ import annotations

from typing import Final

_CURES: Final = (
    (("WRONGPASS", "NOAUTH", "invalid username-password", "Authentication required"),
     "check user and password in the URL"),
    (("NOPERM", "no permissions"), "allow the command to this user (ACL SETUSER)"),
    (("WRONG_VERSION_NUMBER", "wrong version number", "record layer failure"),
     "the server speaks no TLS here: use redis:// in place of rediss://, or its TLS port"),
    (("certificate", "CERTIFICATE"), "name the CA with ssl_ca_certs in the URL"),
    (("refused", "Connect call failed"), "check host and port, and that the server is up"),
    (("Name or service not known", "getaddrinfo", "nodename nor servname", "name resolution"),
     "check the name of the host"),
    (("MOVED",), "this is a node of a cluster: use redis+cluster://"),
    (("READONLY",), "this is a replica: name the master, or use redis+sentinel://"),
    (("OOM",), "give the server memory, or a maxmemory-policy that evicts"),
    (("DB index", "invalid DB"), "check the number of the database at the end of the URL"),
    (("Connection closed by server", "Connection reset", "reset by peer"),
     "a port that speaks TLS needs rediss://; else check what stands between"),
    (("does not fit", "Protocol"),
     "this is no Redis, or something stands between that mixes answers up"),
    (("imed out", "imeout"), "raise timeout= above the round trip; `eventperf cache ping URL` measures it"),
)  # fmt: skip


def cure_of(reason: str, url: str = "") -> str:
    """Return the next step for what a driver said of ``url``, or nothing.

    >>> cure_of("AuthenticationError: WRONGPASS invalid username-password pair")
    'check user and password in the URL'
    """
    if url.startswith("rediss") and "imeout connecting" in reason:  # it waits for a greeting without TLS
        return (
            "a server that speaks no TLS here never answers: try redis:// or its TLS port; or raise timeout="
        )
    return next((cure for words, cure in _CURES if any(word in reason for word in words)), "")
