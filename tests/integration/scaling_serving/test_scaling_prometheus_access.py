"""A real Prometheus behind TLS, client certificates and passwords: let in, refused, rotated, starting."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.cli.main import main
from eventperf.scaling import HttpAccess, PrometheusMetrics, Sample
from processes import ServerMissing
from prometheus_server import PASSWORDS, PrometheusServer

pytestmark = pytest.mark.integration

FIRST, SECOND = PASSWORDS


def started(**options: object) -> PrometheusServer:
    try:
        return PrometheusServer(**options).start()  # type: ignore[arg-type]
    except ServerMissing as error:
        if os.environ.get("CI"):
            pytest.fail(f"NOT RUN: {error}")
        pytest.skip(f"NOT RUN: {error}")


@pytest.fixture(scope="module")
def guarded(certificates: Path) -> Iterator[PrometheusServer]:
    """TLS and a password."""
    with closing(started(certificates=certificates, password=FIRST)) as server:
        yield server


@pytest.fixture(scope="module")
def mutual(certificates: Path, foreign_certificates: Path) -> Iterator[PrometheusServer]:
    """TLS, and nobody gets in without a certificate."""
    trusted = foreign_certificates / "cert.pem"
    with closing(started(certificates=certificates, clients=trusted)) as server:
        yield server


class Secret:
    """A folder as the kubelet mounts a Secret: files are links through ``..data``, swapped as a whole."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._version = folder, 0
        self.user, self.password = folder / "username", folder / "password"

    def write(self, password: str) -> None:
        self._version += 1
        held = self._folder / f"..{self._version}"
        held.mkdir()
        (held / "username").write_text("eventperf")
        (held / "password").write_text(password + "\n")
        (self._folder / "..new").symlink_to(held.name)
        os.replace(self._folder / "..new", self._folder / "..data")
        for file in (self.user, self.password):
            if not file.is_symlink():
                file.symlink_to(f"..data/{file.name}")


@pytest.fixture
def secret(tmp_path: Path) -> Secret:
    found = Secret(tmp_path)
    found.write(FIRST)
    return found


def seen(source: PrometheusMetrics) -> Sample:
    return source.read()["rps"]


def asked(url: str, access: HttpAccess | None = None) -> Sample:
    with closing(PrometheusMetrics(url, "vector(7)", access=access)) as source:
        return seen(source)


def test_a_mounted_secret_lets_in_and_counts_at_once_when_it_was_rotated(
    guarded: PrometheusServer, certificates: Path, secret: Secret
) -> None:
    access = HttpAccess(
        username_file=secret.user, password_file=secret.password, ca_file=certificates / "cert.pem"
    )
    with closing(PrometheusMetrics(guarded.url, "vector(7)", access=access)) as source:
        assert seen(source) == Sample(value=7.0)
        guarded.accept(SECOND)
        try:
            refused = seen(source)
            assert refused.value is None
            assert "HTTP 401: the credentials" in (refused.error or "")
            assert FIRST not in (refused.error or "")
            secret.write(SECOND)
            assert seen(source) == Sample(value=7.0), "the same source, without a restart"
            secret.password.unlink()
            assert "password_file" in (seen(source).error or "")
        finally:
            guarded.accept(FIRST)


def test_who_is_not_let_in_is_told_why(
    guarded: PrometheusServer, certificates: Path, foreign_certificates: Path
) -> None:
    ours = certificates / "cert.pem"
    login = {"username": "eventperf", "password": FIRST}
    assert asked(guarded.url, HttpAccess(**login, ca_file=ours)).value == 7.0
    assert "401" in (asked(guarded.url, HttpAccess(ca_file=ours)).error or "")
    assert "CERTIFICATE_VERIFY_FAILED" in (asked(guarded.url, HttpAccess(**login)).error or "")
    stranger = HttpAccess(**login, ca_file=foreign_certificates / "cert.pem")
    assert "CERTIFICATE_VERIFY_FAILED" in (asked(guarded.url, stranger).error or "")
    elsewhere = guarded.url.replace("127.0.0.1", "localhost")
    assert "doesn't match" in (asked(elsewhere, HttpAccess(**login, ca_file=ours)).error or "").replace(
        "is not valid for", "doesn't match"
    )


def test_a_client_shows_its_certificate_and_a_renewed_one_is_used(
    mutual: PrometheusServer, certificates: Path, foreign_certificates: Path, tmp_path: Path
) -> None:
    ours = certificates / "cert.pem"
    assert asked(mutual.url, HttpAccess(ca_file=ours)).value is None
    for name in ("cert.pem", "key.pem"):  # not trusted by the server
        shutil.copy(certificates / name, tmp_path / name)
    access = HttpAccess(ca_file=ours, cert_file=tmp_path / "cert.pem", key_file=tmp_path / "key.pem")
    with closing(PrometheusMetrics(mutual.url, "vector(7)", access=access)) as source:
        assert seen(source).value is None
        for name in ("cert.pem", "key.pem"):
            shutil.copy(foreign_certificates / name, tmp_path / name)
        assert seen(source) == Sample(value=7.0)
        (tmp_path / "key.pem").write_text("no key")
        assert "a certificate and its key" in (seen(source).error or "")
        shutil.copy(foreign_certificates / "key.pem", tmp_path / "key.pem")
        assert seen(source) == Sample(value=7.0)


def test_a_server_that_replays_its_log_is_no_value_until_it_is_ready() -> None:
    server = started()
    with closing(server):
        server.stop()
        gate = next((server.home / "data" / "wal").iterdir())
        gate.unlink()
        os.mkfifo(gate)  # its replay waits for what never comes
        server.ping = lambda: None  # type: ignore[method-assign]
        server.start()
        with closing(PrometheusMetrics(server.url, "vector(7)")) as source:
            end = time.monotonic() + 60
            while "HTTP 503" not in (seen(source).error or ""):
                assert seen(source).value is None
                assert time.monotonic() < end
                time.sleep(0.05)
            assert "starting" in (seen(source).error or "")
            server.kill9()
            gate.unlink()
            del server.ping
            server.start()
            assert seen(source) == Sample(value=7.0)


def test_a_file_says_it_in_its_keys_and_check_reads_through_it(
    guarded: PrometheusServer, certificates: Path, secret: Secret, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config = tmp_path / "scale.toml"
    config.write_text(f"""
[kubernetes]
kubeconfig = "{tmp_path / "none"}"
[[targets]]
name = "deployment/web"
max_replicas = 9
policy = {{ type = "target-tracking", rps = 50 }}
[targets.metrics.rps]
prometheus = "{guarded.url}"
query = "vector(7)"
username_file = "{secret.user}"
password_file = "{secret.password}"
ca_file = "{certificates / "cert.pem"}"
""")
    main(["scale", "run", "--config", str(config), "--check"])
    said = capsys.readouterr()
    assert "rps" in said.out
    assert "7" in said.out


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"bearer": "a", "bearer_file": "b"}, "bearer_file"),
        ({"bearer": "a", "username": "b", "password": "c"}, "username"),
        ({"username": "a"}, "password"),
        ({"password": "a"}, "username"),
        ({"key_file": "a"}, "cert_file"),
        ({"bearer": " "}, "bearer"),
    ],
)
def test_what_excludes_one_another_is_refused(wrong: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HttpAccess(**wrong)  # type: ignore[arg-type]
    assert caught.value.argument == named


@pytest.mark.parametrize(
    ("url", "access"),
    [
        ("http://p:9090", HttpAccess(ca_file="ca.pem")),
        ("https://me:word@p:9090", HttpAccess(bearer="a")),
    ],
)
def test_what_would_never_be_used_is_refused(url: str, access: HttpAccess) -> None:
    with pytest.raises(ConfigurationError, match="access"):
        PrometheusMetrics(url, "up", access=access)
