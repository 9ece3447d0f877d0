"""Whether the URL of a database asks who answers: drivers encrypt without asking unless they are told to."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from .urls import redact

_OFF: Final = ("false", "0", "no", "off")


def unchecked(backend: str, query: Mapping[str, Any]) -> str | None:
    """Return the option that asks for encryption and not for the name in the certificate, ``None`` for none.

    >>> unchecked("postgresql", {"sslmode": "require"}), unchecked("postgresql", {"sslmode": "verify-full"})
    ('sslmode=require', None)
    >>> unchecked("mysql", {"ssl_ca": "ca.pem", "ssl_check_hostname": "false"})
    'ssl_check_hostname=false'
    """
    said = {name.lower(): str(value).lower() for name, value in query.items()}
    if backend.startswith("postgres"):
        for name in ("sslmode", "ssl"):  # asyncpg's word is the second
            if said.get(name) in ("require", "verify-ca", "true"):
                return f"{name}={said[name]}"
        return None
    for name in ("ssl_check_hostname", "ssl_verify_identity", "ssl_verify_cert"):
        if said.get(name) in _OFF:
            return f"{name}={said[name]}"
    mode = said.get("ssl_mode")
    if mode in ("required", "verify_ca"):
        return f"ssl_mode={mode}"
    asks = [name for name in said if name in ("ssl", "ssl_cert", "ssl_key", "ssl_cipher")]
    has_authority = "ssl_ca" in said or "ssl_capath" in said or mode == "verify_identity"
    return asks[0] if asks and not has_authority and said[asks[0]] not in _OFF else None


def warn_unchecked(url: Any, log: logging.Logger) -> None:
    """Warn of a URL of SQLAlchemy whose connections are encrypted and do not check who answers."""
    backend = url.get_backend_name()
    if url.host is None or (option := unchecked(backend, url.query)) is None:
        return
    cure = "sslmode=verify-full" if backend.startswith("postgres") else "ssl_ca=FILE&ssl_verify_identity=true"
    log.warning(
        "connections to %s do not check who answers (%s in the URL): anybody on the way can read and change "
        "what they carry; %s checks the name in the certificate",
        redact(url.render_as_string(hide_password=True)),
        option,
        cure,
    )
