"""Serve the test API from a process of its own until standard input closes."""

from __future__ import annotations

import argparse
import sys

from .server import KubernetesServer


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m eventperf.testing.kubernetes", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--startup-s", type=float, default=0.0)
    parser.add_argument("--no-pods", action="store_true", help="workloads get no pods")
    parser.add_argument("--schemas", action="store_true", help="check bodies against the real schemas")
    parser.add_argument("--deployments", type=int, default=0, help="create web-0 ... web-N-1")
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--namespace", default="default")
    options = parser.parse_args()
    server = KubernetesServer(
        port=options.port, startup_s=options.startup_s, pods=not options.no_pods, schemas=options.schemas
    )
    for number in range(options.deployments):
        server.create_deployment(f"web-{number}", namespace=options.namespace, replicas=options.replicas)
    with server:
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
