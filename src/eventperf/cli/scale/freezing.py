"""``eventperf scale freeze`` and ``unfreeze``: the annotation that every scaler of a workload obeys."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from eventperf._core.errors import ConfigurationError
from eventperf.cli.output import emit_json, say

from .config import build, read_file

if TYPE_CHECKING:
    from eventperf.scaling.backends.kubernetes.target import KubernetesScale


def freeze(args: argparse.Namespace, *, on: bool) -> int:
    """Write or take away the annotation of each target; the first refusal ends it."""
    done = []
    for target in _targets(args):
        target.freeze(on)
        done.append(f"{target.namespace}/{target.reference.plural}/{target.reference.name}")
        if not args.json:
            say(f"{done[-1]}: {'frozen' if on else 'no longer frozen'}")
    if args.json:
        emit_json({"frozen" if on else "unfrozen": done})
    return 0


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
