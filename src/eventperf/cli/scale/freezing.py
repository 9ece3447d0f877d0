"""``eventperf scale freeze`` and ``unfreeze``: what every scaler of a target obeys.

On Kubernetes an annotation of the workload; for any other target a mark in the state its scalers share.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from eventperf._core.errors import ConfigurationError
from eventperf.cli.output import emit_json, say

from .config import build, read_file
from .state import open_state

if TYPE_CHECKING:
    from eventperf.scaling.backends.kubernetes.scale import KubernetesScale


def freeze(args: argparse.Namespace, *, on: bool) -> int:
    """Hold each target or let it go on; the first refusal ends it."""
    done = []
    for name in _shared(args, on) if args.state else _annotated(args, on):
        done.append(name)
        if not args.json:
            say(f"{name}: {'frozen' if on else 'no longer frozen'}")
    if args.json:
        emit_json({"frozen" if on else "unfrozen": done})
    return 0


def _annotated(args: argparse.Namespace, on: bool) -> Iterator[str]:
    for target in _targets(args):
        target.freeze(on)
        yield f"{target.namespace}/{target.reference.kind.lower()}/{target.reference.name}"


def _shared(args: argparse.Namespace, on: bool) -> Iterator[str]:
    other = [o for o in ("config", "namespace", "kubeconfig", "context") if getattr(args, o)]
    if other:
        raise ConfigurationError("--state", f"and --{other[0]}", "one: workloads of a cluster are annotated")
    if not args.targets:
        raise ConfigurationError("TARGET", "none", "the names as decisions show them")
    state = open_state(args.state, argument="--state")
    try:
        for name in args.targets:
            if on and not any(state.recall(name, dry_run=dry) for dry in (False, True)):
                text = (
                    f"{name}: nobody has kept anything under this name yet; is it spelt as in the decisions?"
                )
                say(text, error=True)
            state.freeze(name, on)
            yield name
    finally:
        state.close()


def _targets(args: argparse.Namespace) -> list[KubernetesScale]:
    if args.config:
        targets: list[Any] = [scaler.target for scaler in build(read_file(args.config)).scalers]
        found = {target.name: target.object for target in targets}
        if not args.targets:
            return list(found.values())
        chosen = []
        for name in args.targets:
            known = [full for full in found if name in (full, full.partition("/")[2])]
            if not known:
                raise ConfigurationError("TARGET", name, sorted(found))
            chosen += [found[full] for full in known]
        return chosen
    if not args.targets:
        raise ConfigurationError("TARGET", "none", "one or more, or --config FILE")
    from eventperf.scaling import KubernetesTarget
    from eventperf.scaling.backends.kubernetes import KubernetesApi

    api = KubernetesApi(kubeconfig=args.kubeconfig, context=args.context)
    return [KubernetesTarget(name, namespace=args.namespace, api=api).object for name in args.targets]
