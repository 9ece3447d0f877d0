"""How a Deployment's pods are spread over its ReplicaSets: the arithmetic of a rolling update. Pure."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from .store import Object, now


@dataclass(frozen=True, slots=True)
class Counts:
    """Pods of one ReplicaSet: how many it shall have, and how many of them are ready."""

    wanted: int
    ready: int


def template_hash(deployment: Object) -> str:
    """Return what names the ReplicaSet of a Deployment's present template."""
    text = json.dumps(deployment["spec"]["template"], sort_keys=True)
    return sha256(text.encode()).hexdigest()[:10]


def limits(spec: dict[str, Any]) -> tuple[int, int]:
    """Return how many pods there may be at most, and how many must be ready at least.

    >>> limits({"replicas": 4}), limits({"replicas": 1})
    ((5, 3), (2, 1))
    """
    want, strategy = spec.get("replicas", 1), spec.get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return want, 0
    rolling = strategy.get("rollingUpdate") or {}
    surge = _share(rolling.get("maxSurge", "25%"), want, math.ceil)
    away = _share(rolling.get("maxUnavailable", "25%"), want, math.floor)
    if not surge and not away:
        away = 1
    return want + surge, max(0, want - away)


def _share(value: Any, want: int, rounded: Any) -> int:
    if isinstance(value, str) and value.endswith("%"):
        return int(rounded(int(value[:-1]) * want / 100.0))
    return int(value)


def spread(spec: dict[str, Any], new: Counts, old: list[Counts]) -> tuple[int, list[int]]:
    """Return how many pods the new ReplicaSet shall have, and each old one.

    The new one grows while no more than the surge are there; old pods that are not ready go at once, others
    as far as enough are ready without them.

    >>> spread({"replicas": 4}, Counts(0, 0), [Counts(4, 4)])
    (1, [3])
    """
    want = spec.get("replicas", 1)
    most, least = limits(spec)
    if (spec.get("strategy") or {}).get("type") == "Recreate":
        return (want if not any(o.wanted for o in old) else new.wanted), [0] * len(old)
    grown = new.wanted if new.wanted > want else min(want, new.wanted + max(0, most - _all(new, old)))
    grown = min(grown, want)
    spare = max(0, min(new.ready, grown) + sum(min(o.ready, o.wanted) for o in old) - least)
    left = []
    for each in old:
        kept = min(each.ready, each.wanted)
        gone = min(kept, spare)
        spare -= gone
        left.append(kept - gone)
    return grown, left


def _all(new: Counts, old: list[Counts]) -> int:
    return new.wanted + sum(o.wanted for o in old)


def conditions(deployment: Object, total: int, updated: int, ready: int) -> list[Object]:
    """Return Available and Progressing; a time of transition stays while the status does."""
    spec = deployment["spec"]
    want, (_, least) = spec.get("replicas", 1), limits(spec)
    is_done = updated == want == total and ready >= want
    enough = ready >= least
    found = (
        ("Available", enough, "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"),
        ("Progressing", True, "NewReplicaSetAvailable" if is_done else "ReplicaSetUpdated"),
    )
    before = {c["type"]: c for c in (deployment.get("status") or {}).get("conditions") or ()}
    made = []
    for kind, holds, why in found:
        last = before.get(kind) or {}
        status = "True" if holds else "False"
        at = last["lastTransitionTime"] if last.get("status") == status else now()
        updated_at = last["lastUpdateTime"] if last.get("reason") == why else now()
        made.append(
            {
                "type": kind, "status": status, "reason": why, "message": why, "lastTransitionTime": at,
                "lastUpdateTime": updated_at,
            }
        )  # fmt: skip
    return made
