"""The Kubernetes backend against a test API server in a process of its own.

Prints patches per second beside the official client in the same run, and for a fleet of thousands of
Deployments: duration of a tick, time per decision, memory, and the requests the server counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import median
from typing import Any

import psutil

from eventperf.scaling.backends.kubernetes.api import KubernetesApi
from eventperf.scaling.backends.kubernetes.metrics import KubernetesMetrics
from eventperf.scaling.backends.kubernetes.scale import KubernetesScale
from eventperf.scaling.backends.kubernetes.state import KubernetesState
from eventperf.scaling.backends.kubernetes.target import KubernetesTarget
from eventperf.scaling.fleet import Fleet
from eventperf.scaling.manager import AutoScaler
from eventperf.scaling.policies.tracking import TargetTracking
from eventperf.scaling.records.log import DecisionLog


class Server:
    """The server's process: its address, and what it counted."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout
        self.url = self._out.readline().strip()

    def _tell(self, line: str) -> None:
        self._in.write(line + "\n")
        self._in.flush()

    def reset(self) -> None:
        self._tell("reset")
        self.counts()

    def counts(self) -> dict[str, int]:
        self._tell("counts")
        return dict(json.loads(self._out.readline()))


@contextmanager
def serve(*arguments: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "eventperf.testing.kubernetes", "--no-controllers", *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Server(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(20)


def rate(count: int, act: Callable[[int], object], threads: int = 1) -> float:
    """Return actions per second over ``count`` of them."""
    started = time.perf_counter()
    if threads == 1:
        for number in range(count):
            act(number)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(act, range(count)))
    return count / (time.perf_counter() - started)


def patches(count: int) -> dict[str, float]:
    """Compare the official client with this backend on the same server."""
    from kubernetes import client

    targets = 200
    with serve("--deployments", str(targets)) as server:
        configuration = client.Configuration()
        configuration.host = server.url
        official = client.AppsV1Api(client.ApiClient(configuration))

        def by_client(number: int) -> None:
            body = {"spec": {"replicas": number % 9 + 1}}
            official.patch_namespaced_deployment_scale(f"web-{number % targets}", "default", body)

        api = KubernetesApi.at(server.url)

        def scales(events: bool) -> Callable[[int], object]:
            made = [
                KubernetesScale(f"deployment/web-{n}", namespace="default", api=api, events=events)
                for n in range(targets)
            ]
            for scale in made:
                scale.read()
            # every round asks for another number, so each call is a real change
            return lambda number: made[number % targets].write(
                number // targets % 50 + 10, reason="benchmark"
            )

        found = {"official client, models": rate(count // 5, by_client)}
        # each reads the state anew: the one before it has changed everything
        found["eventperf, one thread"] = rate(count, scales(events=False))
        found["eventperf, four threads"] = rate(count, scales(events=False), threads=4)
        found["eventperf, one thread, each with its Event"] = rate(count, scales(events=True))
    return found


def _timed(scaler: AutoScaler) -> float:
    started = time.perf_counter()
    scaler.tick()
    return time.perf_counter() - started


def fleet(targets: int, pods: int, ticks: int, workers: int) -> dict[str, Any]:
    """Tick ``targets`` Deployments whose CPU is at its target."""
    with serve("--deployments", str(targets), "--replicas", str(pods), "--usage", "70m") as server:
        process = psutil.Process()
        with KubernetesApi.at(server.url) as api, KubernetesState(api, metrics_age_s=60.0) as state:
            policy, log = TargetTracking(cpu=0.7), DecisionLog()
            targets_ = [
                KubernetesTarget(f"deployment/web-{n}", namespace="default", state=state)
                for n in range(targets)
            ]
            scalers = [
                AutoScaler(t, KubernetesMetrics(t, resources=["cpu"]), policy, max_replicas=50, log=log)
                for t in targets_
            ]
            with Fleet(scalers, workers=workers) as group:
                first = group.tick()
                server.reset()
                took, cpu = [], process.cpu_times()
                for _ in range(ticks):
                    report = group.tick()
                    assert len(report.decisions) == targets
                    assert not any(d.error or d.blind or d.action != "none" for d in report.decisions)
                    took.append(report.took_s)
                used = process.cpu_times()
                each = sorted(_timed(s) for s in scalers)
                return {
                    "first_tick_s": first.took_s,
                    "tick_s_median": median(took),
                    "tick_s_max": max(took),
                    "cpu_s_per_tick": (used.user + used.system - cpu.user - cpu.system) / ticks,
                    "decision_us_p50": each[len(each) // 2] * 1e6,
                    "decision_us_p99": each[int(len(each) * 0.99)] * 1e6,
                    "rss_mib": process.memory_info().rss / 2**20,
                    "requests": server.counts(),
                    "ticks": ticks,
                }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=6000)
    parser.add_argument("--targets", type=int, default=5000)
    parser.add_argument("--pods", type=int, default=2, help="pods per Deployment")
    parser.add_argument("--ticks", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--part", choices=["all", "fleet", "patches"], default="all")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    result: dict[str, Any] = {}
    if options.part != "patches":
        # first, so that the official client's models are not counted as the fleet's memory
        result["fleet"] = fleet(options.targets, options.pods, options.ticks, options.workers)
    if options.part != "fleet":
        result["patches_per_s"] = patches(options.patches)
    if options.json:
        print(json.dumps(result, indent=2))
        return 0
    for name, value in result.get("patches_per_s", {}).items():
        print(f"{name:45} {value:8.0f} patches/s")
    for name, value in result.get("fleet", {}).items():
        print(f"{name:45} {value if not isinstance(value, float) else f'{value:8.3f}'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
