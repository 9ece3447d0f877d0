"""HTTPS readers check who answers: a certificate of another name is a failed reading, whoever asks."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from eventperf.scaling import Alert, PrometheusMetrics, WebhookAlerts
from eventperf.scaling.backends.kubernetes import KubernetesApi
from eventperf.scaling.backends.kubernetes.errors import KubernetesUnavailable


class Answers(HTTPServer):
    """A server that says yes to everything and keeps what it was asked."""

    def __init__(self, folder: Path) -> None:
        asked = self.asked = list[str]()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                body = b'{"status":"success","data":{"resultType":"scalar","result":[1e10,"7"]}}'
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                """Be quiet."""

        super().__init__(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what is tested."""


@pytest.fixture(params=["right", "foreign"])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[Answers, Path, bool]]:
    is_right = request.param == "right"
    folder: Path = request.getfixturevalue("certificates" if is_right else "foreign_certificates")
    with Answers(folder) as answers:
        thread = threading.Thread(target=answers.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield answers, folder / "cert.pem", is_right
        answers.shutdown()
        thread.join(5)


def trusting(authority: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority))


def test_prometheus(server: tuple[Answers, Path, bool]) -> None:
    answers, authority, is_right = server
    source = PrometheusMetrics(answers.url, "up", context=trusting(authority))
    (sample,) = source.read().values()
    source.close()
    assert sample.value == (7 if is_right else None)
    assert is_right == (sample.error is None)
    assert is_right or "certificate" in str(sample.error).lower()
    assert bool(answers.asked) == is_right, "nothing is sent before it is known to whom"


def test_webhooks(server: tuple[Answers, Path, bool]) -> None:
    answers, authority, is_right = server
    with WebhookAlerts(answers.url, context=trusting(authority), every=0.01) as sink:
        sink(Alert(at=0.0, target="t", kind="k", text="x"))
    assert (sink.sent, bool(answers.asked)) == (int(is_right), is_right)


def test_kubernetes(server: tuple[Answers, Path, bool]) -> None:
    client = pytest.importorskip("kubernetes.client")
    answers, authority, is_right = server
    configuration = client.Configuration(host=answers.url)
    configuration.ssl_ca_cert = str(authority)
    api = KubernetesApi(configuration)
    try:
        if is_right:
            assert api.request("GET", "/api")["status"] == "success"
        else:
            with pytest.raises(KubernetesUnavailable, match=r"(?i)certificate"):
                api.request("GET", "/api")
    finally:
        api.close()
    assert bool(answers.asked) == is_right
