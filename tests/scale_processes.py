"""Processes of ``eventperf scale run --config`` beside a stand-in cluster, for tests."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from eventperf.testing.kubernetes import KubernetesServer

RULES = next(
    document["rules"]
    for document in yaml.safe_load_all(
        (Path(__file__).parents[1] / "examples" / "kubernetes" / "rbac.yaml").read_text("utf-8")
    )
    if document["kind"] == "Role"
)
LEASE_S, RETRY_S = 6.0, 0.3


def eventually(holds: Callable[[], Any], within_s: float = 60.0) -> Any:
    end = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


class Group:
    """Candidates, each a process; where they write; the server they use."""

    def __init__(self, server: KubernetesServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.config = folder / "scale.json"
        self.data: dict[str, Any] = {
            "scaler": {"interval": 0.5, "namespace": "default"},
            "kubernetes": {"kubeconfig": str(server.kubeconfig(folder / "kubeconfig")), "metrics_age": 0.2},
            "leader": {"lease": LEASE_S, "retry": RETRY_S, "renew_every": 0.3},
            "log": {"file": str(folder / "decisions.jsonl")},
            "targets": [
                {
                    "name": "deployment/web",
                    "max_replicas": 30,
                    "policy": {"type": "target-tracking", "cpu": 0.7},
                    "metrics": {"cpu": "kubernetes"},
                }
            ],
        }

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        self.config.write_text(json.dumps(self.data))
        command = [
            sys.executable,
            "-m",
            "eventperf",
            "scale",
            "run",
            "--config",
            str(self.config),
        ]
        number = len(list(self.folder.glob("out*")))
        with (
            (self.folder / f"out{number}").open("wb") as out,
            (self.folder / f"err{number}").open("wb") as err,
        ):
            process = subprocess.Popen([*command, *arguments], stdout=out, stderr=err)
        self.running[process.pid] = process
        return process

    def said(self, stream: str = "err") -> str:
        return "\n".join(path.read_text("utf-8") for path in sorted(self.folder.glob(f"{stream}*")))

    def holder(self) -> str:
        leases = self.server.list("leases", group="coordination.k8s.io")
        return str(leases[0]["spec"].get("holderIdentity") or "") if leases else ""

    def leader(self) -> subprocess.Popen[bytes] | None:
        """The process that holds the Lease, if it is one of those that run."""
        holder = self.holder()
        return self.running.get(int(holder.split("_")[-2])) if holder else None

    def patches(self) -> int:
        return self.server.counts["patch", "deployments/scale"]

    def end(self) -> None:
        for process in self.running.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()


def use(server: KubernetesServer, cpu: str) -> None:
    for pod in server.list("pods"):
        server.set_usage(pod["metadata"]["name"], cpu=cpu)
