"""KEDA's external scaler, driven by a client that grpcio-tools generated from the published proto."""

from __future__ import annotations

import importlib
import math
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventperf._core.errors import ConfigurationError
from eventperf.scaling import AutoScaler, CallableMetrics, ScalingDecision, SimulatedTarget, TargetTracking
from eventperf.scaling.serving import wire
from eventperf.scaling.serving.board import Board
from eventperf.scaling.serving.service import Service
from eventperf.testing import FakeClock

pytestmark = pytest.mark.integration

PROTO = Path(wire.__file__).with_name("externalscaler.proto")


@pytest.fixture(scope="session")
def pb(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The modules that the published proto makes."""
    folder = tmp_path_factory.mktemp("proto")
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO.parent}", f"--python_out={folder}"]
    subprocess.run([*command, f"--grpc_python_out={folder}", str(PROTO)], check=True)
    sys.path.insert(0, str(folder))
    try:
        messages = importlib.import_module("externalscaler_pb2")
        services = importlib.import_module("externalscaler_pb2_grpc")
    finally:
        sys.path.remove(str(folder))
    return SimpleNamespace(messages=messages, services=services)


class Host:
    """Two targets, a board, a service, and a client of KEDA's."""

    def __init__(self, pb: Any) -> None:
        self.clock, self.pb, self.load = FakeClock(), pb, [300.0]
        self.web = SimulatedTarget(2, name="prod/deployment/web", clock=self.clock)
        self.idle = SimulatedTarget(1, name="dev/deployment/idle", clock=self.clock)
        self.board = Board([self.web.name, self.idle.name], interval_s=15.0, clock=self.clock)
        self.scaler = self._scaler(self.web)
        self.service = Service(self.board, listen=("127.0.0.1", 0), grpc="127.0.0.1:0").start()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.service.grpc_port}")
        self.client = pb.services.ExternalScalerStub(self.channel)

    def _scaler(self, target: SimulatedTarget) -> AutoScaler:
        scaler = AutoScaler(
            target, CallableMetrics(rps=lambda: self.load[0]), TargetTracking(rps=50), min_replicas=0,
            max_replicas=40, dry_run=True, clock=self.clock,
        )  # fmt: skip
        scaler.advises = True
        scaler.on(self.board.put, ScalingDecision)
        return scaler

    def ref(self, namespace: str = "prod", **metadata: str) -> Any:
        return self.pb.messages.ScaledObjectRef(name="web", namespace=namespace, scalerMetadata=metadata)

    def asked(self, metric: str = "eventperf-replicas", **metadata: str) -> float:
        request = self.pb.messages.GetMetricsRequest(scaledObjectRef=self.ref(**metadata), metricName=metric)
        (value,) = self.client.GetMetrics(request, timeout=10).metricValues
        assert value.metricValue == value.metricValueFloat
        assert value.metricName == "eventperf-replicas"
        return float(value.metricValueFloat)

    def close(self) -> None:
        self.channel.close()
        self.service.close()


@pytest.fixture
def host(pb: Any) -> Iterator[Host]:
    found = Host(pb)
    yield found
    found.close()


def code(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code().name, caught.value.details()


def test_the_four_calls_answer_what_was_decided(host: Host) -> None:
    host.scaler.tick()
    (spec,) = host.client.GetMetricSpec(host.ref(), timeout=10).metricSpecs
    assert (spec.metricName, spec.targetSize, spec.targetSizeFloat) == ("eventperf-replicas", 1, 1.0)
    assert host.asked() == host.asked(target="deployment/web") == 6.0
    assert host.client.IsActive(host.ref(), timeout=10).result is True
    assert next(iter(host.client.StreamIsActive(host.ref(), timeout=10))).result is True


@pytest.mark.parametrize("key", ["tgt", "Target", "activationThreshold", "", "\u202e"])
def test_metadata_that_nothing_reads_is_named_with_what_is_allowed(host: Host, key: str) -> None:
    host.scaler.tick()
    ref = host.ref(**{key: "deployment/web", "target": "deployment/web"})
    request = host.pb.messages.GetMetricsRequest(scaledObjectRef=ref, metricName="eventperf-replicas")
    for call in (
        lambda: host.client.IsActive(ref, timeout=10), lambda: host.client.GetMetricSpec(ref, timeout=10),
        lambda: host.client.GetMetrics(request, timeout=10),
        lambda: next(iter(host.client.StreamIsActive(ref, timeout=10))),
    ):  # fmt: skip
        status, said = code(call)
        assert status == "INVALID_ARGUMENT"
        assert repr(key) in said
        assert "allowed are target" in said
    # what KEDA itself reads of a trigger comes along
    assert host.asked(target="deployment/web", scalerAddress="eventperf:6000", tlsCertFile="") == 6.0


def test_none_wanted_is_not_active_and_a_stream_tells_each_change_once(host: Host) -> None:
    host.load[0] = 0.0
    host.web.scale(0)
    host.scaler.tick()
    assert host.client.IsActive(host.ref(), timeout=10).result is False
    assert host.asked() == 0.0
    stream = host.client.StreamIsActive(host.ref(), timeout=30)
    assert next(stream).result is False
    host.load[0] = 300.0
    for _ in range(5):
        host.clock.advance(15)
        host.scaler.tick()
    assert next(stream).result is True
    host.load[0] = 0.0
    assert host.web.read().replicas == 0, "nothing is changed by who only recommends"
    stream.cancel()


def test_what_is_not_known_is_not_found_and_names_what_is(host: Host) -> None:
    host.scaler.tick()
    for call in (host.client.IsActive, host.client.GetMetricSpec):
        status, text = code(lambda call=call: call(host.ref(target="deployment/other"), timeout=10))
        assert status == "NOT_FOUND"
        assert "prod/deployment/web" in text
    assert code(lambda: host.asked(metric="s0-cpu"))[0] == "NOT_FOUND"
    assert code(lambda: host.client.IsActive(host.ref(namespace="test"), timeout=10))[0] == "NOT_FOUND"
    assert code(lambda: next(host.client.StreamIsActive(host.ref(target="x"), timeout=10)))[0] == "NOT_FOUND"


def test_what_cannot_be_answered_is_unavailable_so_that_keda_falls_back(host: Host) -> None:
    assert code(lambda: host.asked())[0] == "UNAVAILABLE"
    host.scaler.tick()
    assert host.asked() == 6.0
    host.clock.advance(61)
    status, text = code(lambda: host.asked())
    assert status == "UNAVAILABLE"
    assert "61 s old" in text

    def broken() -> Any:
        raise OSError("no cluster")

    host.web.read = broken  # type: ignore[method-assign]
    host.scaler.tick()
    status, text = code(lambda: host.client.IsActive(host.ref(), timeout=10))
    assert status == "UNAVAILABLE"
    assert "no cluster" in text


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\xff\xff\xff\xff\x7f", b"\x00", b"\x0b", b"\x0a\x01\xff"])
def test_bytes_that_are_no_message_are_an_invalid_argument(host: Host, data: bytes) -> None:
    call = host.channel.unary_unary("/externalscaler.ExternalScaler/IsActive")
    assert code(lambda: call(data, timeout=10))[0] == "INVALID_ARGUMENT"


def test_a_message_that_is_too_long_is_refused_and_an_unknown_call_is_unimplemented(host: Host) -> None:
    host.scaler.tick()
    call = host.channel.unary_unary("/externalscaler.ExternalScaler/IsActive")
    assert code(lambda: call(b"\x0a" + b"\xff" * 70_000, timeout=10))[0] == "RESOURCE_EXHAUSTED"
    other = host.channel.unary_stream("/externalscaler.ExternalScaler/StreamMetricSpec")
    assert code(lambda: next(other(b"", timeout=10)))[0] == "UNIMPLEMENTED"
    assert host.asked() == 6.0


def test_streams_that_nobody_reads_hold_no_call_back(host: Host) -> None:
    host.scaler.tick()
    streams = [host.client.StreamIsActive(host.ref(), timeout=60) for _ in range(100)]
    assert all(next(s).result for s in streams[:5])
    assert host.asked() == 6.0
    ended = threading.Thread(target=host.service.close)
    ended.start()
    ended.join(20)
    assert not ended.is_alive(), "open streams do not hold back a stop"
    for stream in streams:
        stream.cancel()


def test_a_call_with_a_time_out_ends_by_it_when_the_server_is_stopped(pb: Any) -> None:
    with socket.socket() as silent:  # takes connections and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        channel = grpc.insecure_channel(f"127.0.0.1:{silent.getsockname()[1]}")
        client = pb.services.ExternalScalerStub(channel)
        began = time.monotonic()
        status, _ = code(lambda: client.IsActive(pb.messages.ScaledObjectRef(), timeout=0.5))
        assert status in ("DEADLINE_EXCEEDED", "UNAVAILABLE")
        assert time.monotonic() - began < 20
        channel.close()


def test_an_address_that_is_taken_is_said_at_the_start(host: Host) -> None:
    taken = f"127.0.0.1:{host.service.grpc_port}"
    with pytest.raises(ConfigurationError, match="--grpc"):
        Service(host.board, listen=("127.0.0.1", 0), grpc=taken).start()
    with pytest.raises(ConfigurationError, match="--listen"):
        Service(host.board, listen=("127.0.0.1", host.service.port)).start()


@pytest.mark.parametrize("tolerance", [0.0, 0.1])
def test_an_hpa_on_top_follows_the_recommendation(host: Host, tolerance: float) -> None:
    """The HPA that KEDA makes, AverageValue 1 of the metric: beyond its tolerance it follows exactly."""
    for second in range(0, 3600, 15):
        host.load[0] = 1000.0 + 900.0 * math.sin(second / 600.0)
        host.clock.advance(15)
        host.scaler.tick()
        wanted, current = host.asked(), host.web.read().replicas
        if abs(wanted / current - 1.0) > tolerance:
            host.web.scale(math.ceil(wanted / 1.0))
        assert abs(host.web.read().replicas - wanted) <= tolerance * host.web.read().replicas
    assert host.web.read().replicas == pytest.approx(host.load[0] / 50, rel=0.35)


text = st.text(max_size=30)


@settings(deadline=None, max_examples=200)
@given(name=text, namespace=text, metadata=st.dictionaries(text, text, max_size=5), metric=text)
def test_messages_are_read_as_generated_code_writes_them(
    pb: Any, name: str, namespace: str, metadata: dict[str, str], metric: str
) -> None:
    ref = pb.messages.ScaledObjectRef(name=name, namespace=namespace, scalerMetadata=metadata)
    request = pb.messages.GetMetricsRequest(scaledObjectRef=ref, metricName=metric)
    assert wire.read_ref(ref.SerializeToString()) == wire.Asked(name, namespace, metadata)
    assert wire.read_metrics_request(request.SerializeToString()) == wire.Asked(
        name, namespace, metadata, metric
    )


@settings(deadline=None)
@given(name=text, value=st.integers(0, 2**31))
def test_messages_are_written_as_generated_code_reads_them(pb: Any, name: str, value: int) -> None:
    (spec,) = pb.messages.GetMetricSpecResponse.FromString(wire.metric(name, value)).metricSpecs
    assert (spec.metricName, spec.targetSize, spec.targetSizeFloat) == (name, value, float(value))
    (found,) = pb.messages.GetMetricsResponse.FromString(wire.metric(name, value)).metricValues
    assert (found.metricName, found.metricValue, found.metricValueFloat) == (name, value, float(value))
    assert pb.messages.IsActiveResponse.FromString(wire.active(bool(value))).result is bool(value)


@settings(deadline=None, max_examples=500)
@given(data=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (wire.read_ref, wire.read_metrics_request):
        try:
            assert isinstance(read(data), wire.Asked)
        except ValueError:
            pass
