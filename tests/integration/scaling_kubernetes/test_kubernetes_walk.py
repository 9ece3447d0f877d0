"""The page "From an HPA or ScaledObject in ten minutes", walked: each command is run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventperf.testing.kubernetes import KubernetesServer, deployment
from eventperf.testing.kubernetes.resources import Resource
from kubectl import Kubectl

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/scaling/beside-hpa-and-keda.md").read_text("utf-8")
HPA = {
    "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
    "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "minReplicas": 2, "maxReplicas": 40,
        "metrics": [{
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}},
        }],
    },
}  # fmt: skip
TRIGGERS = {"cpu": {"type": "cpu", "metricType": "Utilization", "metadata": {"value": "70"}}}
SCALED_OBJECT = {
    "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "web"},
    "spec": {
        "scaleTargetRef": {"name": "web"}, "minReplicaCount": 2, "maxReplicaCount": 40,
        "triggers": [TRIGGERS["cpu"]],
    },
}  # fmt: skip
DATES = """BEGIN:VCALENDAR
VERSION:2.0
BEGIN:VEVENT
UID:sale@shop
DTSTART:20300101T090000Z
SUMMARY:sale
END:VEVENT
END:VCALENDAR
"""


def commands(part: str) -> list[str]:
    """Return what a part of the page tells people to type."""
    text = PAGE.partition(f"\n## {part}")[2].partition("\n## ")[0]
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


class Walker:
    """A shell in a folder that holds what the page takes for granted: the examples, and dates."""

    def __init__(self, server: KubernetesServer, folder: Path) -> None:
        self.kubectl = Kubectl(server, folder)
        self.folder = folder
        (folder / "examples").symlink_to(ROOT / "examples")
        (folder / "events.ics").write_text(DATES)
        self._env = {
            **os.environ, "KUBECONFIG": str(folder / "kubeconfig"), "HOME": str(folder),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }  # fmt: skip

    def type(self, command: str) -> str:
        ran = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self._env, capture_output=True, text=True,
            timeout=90, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, f"$ {command}\n{ran.stdout}{ran.stderr}"
        return ran.stdout + ran.stderr


@pytest.fixture
def walker(tmp_path: Path) -> Iterator[Walker]:
    with KubernetesServer(schemas=True) as server:
        server.register(
            Resource(group="keda.sh", version="v1alpha1", plural="scaledobjects", kind="ScaledObject")
        )
        yield Walker(server, tmp_path)


def test_the_page_leads_from_an_hpa_to_a_keda_that_follows(walker: Walker) -> None:
    kubectl, folder = walker.kubectl, walker.folder
    kubectl("apply", "-f", "-", given=deployment("web", replicas=3))
    kubectl("apply", "-f", "-", given=HPA)

    export, carry, check = commands("1. Carry over")
    walker.type(export)
    walker.type(carry)
    carried = (folder / "scale.toml").read_text()
    assert "max_replicas = 40" in carried
    assert "3 replicas, 3 ready" in walker.type(check)

    (said,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (folder / "scale.toml").write_text(said)
    (look,) = commands("2. Look first")
    assert "web: " in walker.type(look)
    assert kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "3"

    for command in commands("3. Offer it"):
        walker.type(command)
    shown = kubectl("get", "configmap", "eventperf-scaler", "-o", "jsonpath={.data}")
    assert "events.ics" in shown
    pods = kubectl("get", "pods", "-o", "name")
    assert "eventperf-recommends" in pods

    manifests = re.findall(r"`(examples/kubernetes/keda/[\w.-]+)`", PAGE)
    assert len(manifests) == 3
    for manifest in manifests:
        walker.type(f"kubectl apply -f {manifest}")
    walker.type("kubectl annotate scaledobject --all autoscaling.keda.sh/paused=true")


def test_the_page_starts_from_a_scaled_object_too(walker: Walker) -> None:
    walker.kubectl("apply", "-f", "-", given=deployment("web", replicas=3))
    walker.kubectl("apply", "-f", "-", given=SCALED_OBJECT)
    export, carry, check = commands("1. Carry over")
    _, _, instead = export.partition("# or: ")
    assert instead.startswith("kubectl get scaledobject")
    walker.type(f"{instead} > hpa.yaml")
    walker.type(carry)
    assert "3 replicas, 3 ready" in walker.type(check)


def test_every_manifest_that_a_page_shows_is_applied(walker: Walker) -> None:
    shown = [
        block
        for page in (ROOT / "docs").rglob("*.md")
        for block in re.findall(r"```ya?ml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
        if "apiVersion:" in block
    ]
    for block in shown:
        walker.kubectl("apply", "-f", "-", given=block)
    named = {
        name
        for page in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
        for name in re.findall(r"examples/kubernetes/[\w./-]+\.yaml", page.read_text("utf-8"))
    }
    assert {ROOT / name for name in named} == set((ROOT / "examples/kubernetes").rglob("*.yaml"))
