"""The real kubectl against the stand-in cluster, for tests (Debian: kubernetes-client)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from eventperf.testing.kubernetes import KubernetesServer


class Kubectl:
    """One kubeconfig and cache of its own."""

    def __init__(self, server: KubernetesServer, folder: Path) -> None:
        program = shutil.which("kubectl")
        if program is None:
            text = "NOT RUN: kubectl is not on the PATH (apt: kubernetes-client)"
            if os.environ.get("CI"):
                pytest.fail(text)
            pytest.skip(text)
        self._command = [program, "--cache-dir", str(folder / "cache")]
        self._env = {
            **os.environ,
            "KUBECONFIG": str(server.kubeconfig(folder / "kubeconfig")),
            "HOME": str(folder),
        }
        self.said = ""

    def run(self, *words: str | Path, given: Any = None) -> subprocess.CompletedProcess[str]:
        text = given if given is None or isinstance(given, str) else json.dumps(given)
        ran = subprocess.run(
            [*self._command, *map(str, words)], env=self._env, input=text, capture_output=True, text=True,
            timeout=90, check=False,
        )  # fmt: skip
        self.said = ran.stdout + ran.stderr
        return ran

    def __call__(self, *words: str | Path, given: Any = None) -> str:
        """Return what it prints; it must succeed."""
        ran = self.run(*words, given=given)
        assert ran.returncode == 0, f"kubectl {' '.join(map(str, words))}: {self.said}"
        return ran.stdout

    def refused(self, *words: str | Path, given: Any = None) -> str:
        """Return what it complains of; it must fail."""
        ran = self.run(*words, given=given)
        assert ran.returncode != 0, f"kubectl {' '.join(map(str, words))}: {self.said}"
        return ran.stderr
