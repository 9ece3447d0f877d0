"""Serve the test API from a process of its own until standard input closes.

Prints its address. A line ``counts`` on standard input prints the requests so far as JSON, by verb and
resource; ``reset`` sets them to zero.
"""

from __future__ import annotations

import argparse
import json
import sys

from .server import KubernetesServer
from .workloads import deployment, ready_pod


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m eventperf.testing.kubernetes", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--startup-s", type=float, default=0.0)
    parser.add_argument("--no-controllers", action="store_true", help="replicas change, pods do not follow")
    parser.add_argument("--schemas", action="store_true", help="check bodies against the real schemas")
    parser.add_argument("--deployments", type=int, default=0, help="create web-0 ... web-N-1")
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--usage", help="give each of them ready pods that use this much CPU, such as 70m")
    parser.add_argument("--namespace", default="default")
    options = parser.parse_args()
    server = KubernetesServer(
        port=options.port,
        startup_s=options.startup_s,
        pods=not options.no_controllers,
        schemas=options.schemas,
        usage=options.usage,
    )
    for number in range(options.deployments):
        _deploy(server, f"web-{number}", options)
    with server:
        _say(server.url)
        for line in sys.stdin:
            if line.strip() == "reset":
                server.counts.clear()
            elif line.strip() == "counts":
                _say(json.dumps({f"{verb} {what}": n for (verb, what), n in server.counts.items()}))


def _deploy(server: KubernetesServer, name: str, options: argparse.Namespace) -> None:
    made = server.create_deployment(name, namespace=options.namespace, replicas=options.replicas)
    if not options.usage or not options.no_controllers:
        return  # pods follow by themselves, and their usage follows them
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "controller": True, "name": name}
    for number in range(options.replicas):
        pod = ready_pod(f"{name}-{number}", deployment(name))
        pod["metadata"]["ownerReferences"] = [{**owner, "uid": made["metadata"]["uid"]}]
        server.create("pods", pod, namespace=options.namespace)
        server.set_usage(f"{name}-{number}", cpu=options.usage, namespace=options.namespace)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
