"""How a server lets one in: tokens and passwords from files that may change, certificates of one's own."""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Callable
from pathlib import Path

from eventperf._core.errors import ConfigurationError

from .http import checked_headers

_MOST_BYTES = 64 << 10


class HttpAccess:
    """Credentials and certificates for an HTTP server; nothing is read before it is used.

    Files are read again for each request, so that a token or a Secret that was rotated counts at once; a
    changed certificate makes a new connection.

    Args:
        bearer: A token; or ``bearer_file``, a file with it, as a service account has one.
        username: For basic authentication, with ``password``; or ``username_file`` and ``password_file``, as
            a Secret of type ``kubernetes.io/basic-auth`` is mounted.
        ca_file: Certificates (PEM) to trust instead of those of the system.
        cert_file: The client's own certificate (PEM), for mutual TLS; ``key_file``: its key, where it is not
            in the same file.

    Raises:
        ConfigurationError: Two that exclude each other, or one without its other half.
    """

    def __init__(
        self,
        *,
        bearer: str | None = None,
        bearer_file: str | os.PathLike[str] | None = None,
        username: str | None = None,
        username_file: str | os.PathLike[str] | None = None,
        password: str | None = None,
        password_file: str | os.PathLike[str] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        cert_file: str | os.PathLike[str] | None = None,
        key_file: str | os.PathLike[str] | None = None,
    ) -> None:
        self._bearer = _source("bearer", bearer, bearer_file)
        self._username = _source("username", username, username_file)
        self._password = _source("password", password, password_file)
        if self._bearer and self._username:
            raise ConfigurationError("username", "and a bearer token", "one of them")
        if (self._username is None) != (self._password is None):
            missing = "username" if self._username is None else "password"
            raise ConfigurationError(missing, "nothing", "username and password, or neither")
        if key_file is not None and cert_file is None:
            raise ConfigurationError("cert_file", "nothing", "the certificate that key_file belongs to")
        self._ca, self._cert, self._key = (
            None if name is None else os.fspath(name) for name in (ca_file, cert_file, key_file)
        )

    @property
    def has_credentials(self) -> bool:
        """Whether a token or a password is sent."""
        return self._bearer is not None or self._username is not None

    @property
    def has_certificates(self) -> bool:
        """Whether it says which certificates count; only ``https`` has any."""
        return self._ca is not None or self._cert is not None

    def headers(self) -> dict[str, str]:
        """Return the header that lets one in, as the files are now.

        Raises:
            ConfigurationError: A file cannot be read, or holds what no header can.
        """
        if self._bearer is not None:
            return checked_headers({"Authorization": f"Bearer {self._bearer()}"}, "bearer")
        if self._username is None or self._password is None:
            return {}
        name, password = self._username(), self._password()
        if ":" in name:
            raise ConfigurationError("username", name, "a name without ':', which ends it on the wire")
        pair = base64.b64encode(f"{name}:{password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}

    def context(self) -> ssl.SSLContext:
        """Return a new context; certificate and host name of the server are always checked.

        Raises:
            ConfigurationError: A file is missing, or no certificate or key is in it.
        """
        try:
            made = ssl.create_default_context(cafile=self._ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError("ca_file", self._ca, f"certificates in PEM ({error})") from None
        if self._cert is not None:
            try:
                # an empty password, so that a locked key is an error and not a question at the terminal
                made.load_cert_chain(self._cert, self._key, password="")
            except (OSError, ssl.SSLError) as error:
                given = self._cert if self._key is None else f"{self._cert}, {self._key}"
                raise ConfigurationError("cert_file", given, f"a certificate and its key ({error})") from None
        return made

    def mark(self) -> tuple[object, ...]:
        """Return what changes when a certificate's file does."""
        return tuple(_mark(name) for name in (self._ca, self._cert, self._key))

    def __repr__(self) -> str:
        kind = "bearer" if self._bearer else "basic" if self._username else "no credentials"
        return f"HttpAccess({kind}, ca_file={self._ca!r}, cert_file={self._cert!r})"


def _source(name: str, value: str | None, file: str | os.PathLike[str] | None) -> Callable[[], str] | None:
    if value is not None and file is not None:
        raise ConfigurationError(f"{name}_file", f"both {name} and {name}_file", "one of them")
    if value is not None:
        if not isinstance(value, str) or not value.strip():
            raise ConfigurationError(name, "***" if value else value, "a text")
        return lambda: value
    return None if file is None else (lambda: _read(f"{name}_file", Path(file)))


def _read(argument: str, file: Path) -> str:
    try:
        with file.open("rb") as opened:
            text = opened.read(_MOST_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(argument, str(file), f"a file to read ({error})") from None
    if not text:
        raise ConfigurationError(argument, str(file), "a file that is not empty")
    return text


def _mark(name: str | None) -> object:
    if name is None:
        return None
    try:
        found = os.stat(name)
    except OSError as error:
        return error.errno
    return found.st_ino, found.st_mtime_ns, found.st_size
