"""A real kube-apiserver for the same tests: etcd and kube-apiserver from ``KUBEBUILDER_ASSETS``."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from typing_extensions import Self

from eventperf._core.errors import BackendUnavailable, ConfigurationError

_START_S = 60.0


class RealApiServer:
    """etcd and kube-apiserver on free ports, with a token that may do everything.

    No controllers run: Deployments keep their replicas but get no pods, as in Kubernetes' own
    ``envtest``. Needs the ``openssl`` command for the service-account key.

    Args:
        assets: Folder with the binaries; the environment's ``KUBEBUILDER_ASSETS`` by default.
    """

    def __init__(self, assets: str | os.PathLike[str] | None = None) -> None:
        folder = assets or os.environ.get("KUBEBUILDER_ASSETS")
        if not folder:
            raise ConfigurationError("assets", folder, "a folder with etcd and kube-apiserver")
        self._assets = Path(folder)
        self._dir = tempfile.TemporaryDirectory(prefix="kube-apiserver-")
        self._children: list[subprocess.Popen[bytes]] = []
        self.token: str = secrets.token_hex(16)
        self.port: int = _free_port()

    @property
    def url(self) -> str:
        """Address of the API (TLS, self-signed)."""
        return f"https://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start both and wait until the API is ready."""
        home, etcd, peer = Path(self._dir.name), _free_port(), _free_port()
        tokens = home / "tokens.csv"
        tokens.write_text(f'{self.token},admin,admin,"system:masters"\n', encoding="utf-8")
        key = home / "sa.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        self._spawn(
            "etcd", f"--data-dir={home / 'etcd'}", f"--listen-client-urls=http://127.0.0.1:{etcd}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd}", f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
        )  # fmt: skip
        self._spawn(
            "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{etcd}", f"--secure-port={self.port}",
            "--bind-address=127.0.0.1", f"--cert-dir={home / 'certs'}", f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC", "--service-cluster-ip-range=10.0.0.0/24", "--allow-privileged=true",
            f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--disable-admission-plugins=ServiceAccount",
        )  # fmt: skip
        self._wait_ready()
        return self

    def _spawn(self, program: str, *arguments: str) -> None:
        log = (Path(self._dir.name) / f"{program}.log").open("wb")
        with log:
            child = subprocess.Popen([str(self._assets / program), *arguments], stdout=log, stderr=log)
        self._children.append(child)

    def _wait_ready(self) -> None:
        from urllib3 import HTTPSConnectionPool
        from urllib3.exceptions import HTTPError

        # a self-signed certificate on the loopback device of a test machine
        pool = HTTPSConnectionPool("127.0.0.1", self.port, cert_reqs="CERT_NONE", assert_hostname=False)
        headers = {"Authorization": f"Bearer {self.token}"}
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            try:
                if pool.request("GET", "/readyz", headers=headers, retries=False, timeout=2.0).status == 200:
                    return
            except HTTPError:
                pass
            time.sleep(0.2)
        self.stop()
        raise BackendUnavailable(f"kube-apiserver in {self._assets} was not ready within {_START_S:g} s")

    def stop(self) -> None:
        """Stop both and remove their files."""
        for child in reversed(self._children):
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._children.clear()
        self._dir.cleanup()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
