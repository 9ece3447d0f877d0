"""A real Prometheus (Debian: prometheus), plain or with TLS, client certificates and passwords."""

from __future__ import annotations

import json
import socket
import urllib.request
from pathlib import Path
from typing import Any

from processes import Server, find_binary

PASSWORDS = {
    "first: pässword": "$2b$04$abcdefghijklmnopqrstuuwE2Q1/LubQ2HFsAXEN.q1xAdgLDf/Jm",
    "second": "$2b$04$abcdefghijklmnopqrstuu0m4FNu/b0Ul0dVXpD5yXn5kdSneXCgS",
}
"""What is sent, and what stands in the server's file (bcrypt)."""


class PrometheusServer(Server):
    """Scrapes ``targets`` every 200 ms; ``certificates`` names a folder with cert.pem and key.pem."""

    name = "prometheus"

    def __init__(
        self,
        *,
        targets: tuple[str, ...] = (),
        certificates: Path | None = None,
        clients: Path | None = None,
        password: str | None = None,
    ) -> None:
        super().__init__()
        self._targets, self.certificates, self._clients = targets, certificates, clients
        self._password = password

    @classmethod
    def find(cls) -> str:
        return find_binary("prometheus")

    @property
    def url(self) -> str:
        return f"{'https' if self.certificates else 'http'}://{self.host}:{self.port}"

    def command(self) -> list[str]:
        return [
            self.binary, f"--config.file={self.home / 'prometheus.yml'}",
            f"--web.config.file={self.home / 'web.yml'}", f"--storage.tsdb.path={self.home / 'data'}",
            f"--web.listen-address={self.host}:{self.port}", "--storage.tsdb.retention.size=50MB",
        ]  # fmt: skip

    def prepare(self) -> None:
        scrape = {"job_name": "app", "static_configs": [{"targets": list(self._targets)}]}
        config = {
            "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"},
            "scrape_configs": [scrape] if self._targets else [],
        }
        (self.home / "prometheus.yml").write_text(json.dumps(config))
        self.accept(self._password)

    def accept(self, password: str | None) -> None:
        """Let ``eventperf`` in with this password from now on; the server reads its file at each request."""
        web: dict[str, Any] = {}
        if self.certificates is not None:
            web["tls_server_config"] = {
                "cert_file": str(self.certificates / "cert.pem"),
                "key_file": str(self.certificates / "key.pem"),
            }
        if self._clients is not None:
            web["tls_server_config"] |= {
                "client_auth_type": "RequireAndVerifyClientCert",
                "client_ca_file": str(self._clients),
            }
        if password is not None:
            web["basic_auth_users"] = {"eventperf": PASSWORDS[password]}
        (self.home / "web.yml").write_text(json.dumps(web))

    def ping(self) -> None:
        if self.certificates is not None:
            with socket.create_connection((self.host, self.port), timeout=2):
                return
        with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2):
            return
