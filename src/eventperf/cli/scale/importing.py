"""``eventperf scale import``: an HPA or a ScaledObject as a configuration file, and what differs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require
from eventperf.scaling import Behavior, Rules
from eventperf.scaling.backends.kubernetes.names import quantity
from eventperf.scaling.behavior import HPA_DOWN, HPA_UP, PLAIN_UP

from .checks import REPLACE

_SPARE = ("rps", "backlog")
_ADDRESS = "http://prometheus:9090"
# fields of KEDA's that have a counterpart here, or need none
_CARRIED = {
    "cpu": {"value", "type", "containerName"}, "memory": {"value", "type", "containerName"},
    "prometheus": {"serverAddress", "query", "threshold", "metricName"},
}  # fmt: skip
_SPEC = {
    "scaleTargetRef", "triggers", "minReplicaCount", "maxReplicaCount", "advanced", "fallback",
    "cooldownPeriod",
}  # fmt: skip


def carried_over(path: str) -> tuple[str, list[str]]:
    """Return a configuration file for the autoscalers in ``path``, and what of them it does not do alike.

    Raises:
        ConfigurationError: It cannot be read, or holds neither an HPA nor a ScaledObject.
    """
    parts, remarks = [], list[str]()
    for obj in _objects(path):
        kind, name = obj.get("kind"), (obj.get("metadata") or {}).get("name", "?")
        if kind not in ("HorizontalPodAutoscaler", "ScaledObject"):
            remarks.append(f"{kind} {name} is no autoscaler: left out")
            continue
        made = _Carried(obj, f"{kind} {name}")
        parts.append(made.text())
        remarks += made.remarks
    if not parts:
        allowed = "a HorizontalPodAutoscaler or a ScaledObject"
        raise ConfigurationError("FILE", path, allowed if remarks else f"{allowed}: it holds no object")
    return "\n\n".join(parts), remarks


def _objects(path: str) -> Iterator[Mapping[str, Any]]:
    try:
        text = Path(path).read_text(encoding="utf-8")
        if path.endswith(".json"):
            found = [json.loads(text)]
        else:
            yaml = require("yaml", extra="scaling", needed_by="eventperf scale import")
            found = list(yaml.safe_load_all(text))
    except (OSError, ValueError) as error:
        raise ConfigurationError("FILE", path, f"a manifest to read ({error})") from None
    except Exception as error:  # yaml's own
        raise ConfigurationError("FILE", path, f"YAML ({str(error)[:200]})") from None
    for obj in found:
        if isinstance(obj, Mapping):
            yield from obj.get("items") or [obj]


class _Carried:
    """One autoscaler on its way."""

    def __init__(self, obj: Mapping[str, Any], title: str) -> None:
        self._spec: Mapping[str, Any] = obj.get("spec") or {}
        self._title, self._meta = title, obj.get("metadata") or {}
        self.remarks: list[str] = []
        self._targets: dict[str, float] = {}
        self._totals: list[str] = []
        self._sources: dict[str, str] = {}
        self._behavior = Behavior.from_hpa(obj)
        if obj.get("kind") == "ScaledObject":
            self._keda()
        else:
            self._hpa(obj)

    def _say(self, text: str) -> None:
        self.remarks.append(f"{self._title}: {text}")

    # -- reading -------------------------------------------------------------------------------------

    def _hpa(self, obj: Mapping[str, Any]) -> None:
        if obj.get("apiVersion") == "autoscaling/v1":
            percent = self._spec.get("targetCPUUtilizationPercentage", 80)
            self._spec = {**self._spec, "metrics": [_resource("cpu", percent)]}
        elif obj.get("apiVersion") not in ("autoscaling/v2", None):
            self._say(f"{obj.get('apiVersion')} is read as autoscaling/v2: convert it first")
        self._low, self._high = self._spec.get("minReplicas", 1), self._spec.get("maxReplicas")
        metrics = self._spec.get("metrics")
        if metrics is None:
            metrics = [_resource("cpu", 80)]  # the API server's default
        for metric in metrics:
            self._metric(metric)

    def _metric(self, metric: Mapping[str, Any]) -> None:
        kind = str(metric.get("type"))
        part = metric.get(kind[:1].lower() + kind[1:]) or {}
        target = part.get("target") or {}
        name = part.get("name") or (part.get("metric") or {}).get("name", "?")
        if kind in ("Resource", "ContainerResource") and name in ("cpu", "memory"):
            percent = target.get("averageUtilization")
            if percent is None:
                self._say(
                    f"{name} with {target.get('type')}: only shares of the request are followed; left out"
                )
                return
            self._targets[name] = percent / 100
            container = part.get("container")
            self._sources[name] = (
                f"{{ container = {json.dumps(container)} }}" if container else '"kubernetes"'
            )
        elif kind in ("Pods", "Object", "External"):
            self._outside(str(name), kind, target)
        else:
            self._say(f"metric of type {kind} is not known; left out")

    def _outside(self, name: str, kind: str, target: Mapping[str, Any]) -> None:
        slot = next((s for s in _SPARE if s not in self._targets), None)
        if slot is None:
            self._say(f"{name}: no more than two metrics beside cpu and memory; left out")
            return
        given = target.get("averageValue", target.get("value", 0))
        try:
            self._targets[slot] = quantity(str(given))
        except ValueError:
            raise ConfigurationError(f"{self._title}: target of {name}", given, "a quantity") from None
        if "averageValue" not in target:
            self._totals.append(slot)
        self._sources[slot] = f'{{ prometheus = "{_ADDRESS}", query = "{REPLACE}" }}'
        self._say(f"{kind} metric {name} became {slot}: give its PromQL query, a total over all pods")

    def _keda(self) -> None:
        self._low, self._high = self._spec.get("minReplicaCount", 0), self._spec.get("maxReplicaCount", 100)
        for trigger in self._spec.get("triggers") or ():
            self._trigger(trigger)
            self._unsaid(trigger)
        for name in sorted(set(self._spec) - _SPEC):
            self._say(f"{name} = {self._spec[name]}: there is nothing of the kind here; left out")
        if self._spec.get("fallback"):
            self._say("fallback: while metrics are missing the number stays, and never falls")
        if self._low == 0:
            self._say("cooldownPeriod to zero: the scale-down window of [targets.behavior] counts instead")

    def _unsaid(self, trigger: Mapping[str, Any]) -> None:
        """Name what of a trigger that is carried over has no counterpart here."""
        kind, data = str(trigger.get("type")), trigger.get("metadata") or {}
        for name in sorted(set(data) - _CARRIED.get(kind, set(data))):
            what = "there is nothing of the kind here; left out"
            if name.startswith("activation"):
                what = "a target at min_replicas = 0 starts with the first load, however small; left out"
            elif name in ("authModes", "customHeaders", "unsafeSsl"):
                what = "give it as a key of the metric, such as bearer_file, ca_file or headers; left out"
            self._say(f"{name} = {data[name]} of {kind}: {what}")
        if trigger.get("authenticationRef") and kind in _CARRIED:
            self._say("authenticationRef: give the credentials as keys of the metric, such as bearer_file")

    def _prometheus(self, data: Mapping[str, Any], slot: str) -> None:
        address, query = data.get("serverAddress"), data.get("query")
        if not address:
            self._say(f"prometheus without serverAddress: {_ADDRESS} stands for it")
        if not query:
            self._say(f"prometheus without query: give {slot} its PromQL query, a total over all pods")
        self._sources[slot] = (
            f"{{ prometheus = {json.dumps(address or _ADDRESS)}, query = {json.dumps(query or REPLACE)} }}"
        )

    def _trigger(self, trigger: Mapping[str, Any]) -> None:
        kind, data = trigger.get("type"), trigger.get("metadata") or {}
        if kind in ("cpu", "memory"):
            self._metric(_resource(kind, float(data.get("value", 80)), data.get("containerName")))
        elif kind == "cron":
            self._say(f"cron {data.get('start')} to {data.get('end')}: write it as events of a [calendar]")
        elif kind == "prometheus":
            threshold = data.get("threshold")
            if threshold in (None, ""):
                raise ConfigurationError(f"{self._title}: threshold of prometheus", "nothing", "a quantity")
            target = {"value" if trigger.get("metricType") == "Value" else "averageValue": threshold}
            before = set(self._targets)
            self._outside("prometheus", "External", target)
            for slot in set(self._targets) - before:
                self.remarks.pop()
                self._prometheus(data, slot)
        else:
            self._say(f"trigger {kind}: give it as a Prometheus query or a function; left out")

    # -- writing -------------------------------------------------------------------------------------

    def text(self) -> str:
        """Return the target's table."""
        reference = self._spec.get("scaleTargetRef") or {}
        group, slash, version = str(reference.get("apiVersion") or "apps/v1").partition("/")
        kind = str(reference.get("kind") or "Deployment").lower()
        if slash and group != "apps":
            kind = f"{kind}s.{version}.{group}"
            self._say(f"its target is of kind {kind}: check the plural")
        name = reference.get("name") or reference.get("deploymentName")  # the latter in keda.k8s.io/v1alpha1
        if not name:
            raise ConfigurationError(f"{self._title}: spec.scaleTargetRef.name", "nothing", "what it scales")
        lines = ["[[targets]]", f"name = {json.dumps(f'{kind}/{name}')}"]
        if self._meta.get("namespace"):
            lines.append(f"namespace = {json.dumps(self._meta['namespace'])}")
        if self._high is None:
            raise ConfigurationError(f"{self._title}: spec.maxReplicas", "nothing", "a whole number")
        lines += [f"min_replicas = {self._low}", f"max_replicas = {self._high}"]
        if self._targets:
            wanted = "".join(f", {n} = {v:g}" for n, v in self._targets.items())
            totals = f", totals = {json.dumps(self._totals)}" if self._totals else ""
            lines.append(f'policy = {{ type = "target-tracking"{wanted}{totals} }}')
            lines += ["", "[targets.metrics]", *(f"{n} = {source}" for n, source in self._sources.items())]
        else:
            self._say("no metric could be carried over: add a policy and [targets.metrics]")
            lines += [
                '# policy = { type = "target-tracking", rps = 100 }', "", "[targets.metrics]",
                '# rps = { prometheus = "http://prometheus:9090", query = "sum(rate(requests_total[1m]))" }',
            ]  # fmt: skip
        return "\n".join([*lines, *self._rules()])

    def _rules(self) -> list[str]:
        up, down, tolerance = self._behavior.up, self._behavior.down, self._behavior.tolerance
        if up is PLAIN_UP:
            return []
        lines = ["", "[targets.behavior]"]
        if (tolerance.up, tolerance.down) != (0.1, 0.1):
            lines.append(f"tolerance = {{ up = {tolerance.up:g}, down = {tolerance.down:g} }}")
        for name, rules, default in (("up", up, HPA_UP), ("down", down, HPA_DOWN)):
            if rules != default:
                lines.append(f"{name} = {_inline(rules)}")
        return lines if len(lines) > 2 else [*lines, f"up = {_inline(HPA_UP)}"]


def _inline(rules: Rules) -> str:
    policies = ", ".join(
        f'{{ type = "{p.type}", value = {p.value}, period = {p.period:g} }}' for p in rules.policies
    )
    return f'{{ window = {rules.window:g}, select = "{rules.select}", policies = [{policies}] }}'


def _resource(name: str, percent: float, container: str | None = None) -> dict[str, Any]:
    part: dict[str, Any] = {"name": name, "target": {"type": "Utilization", "averageUtilization": percent}}
    if container:
        return {"type": "ContainerResource", "containerResource": {**part, "container": container}}
    return {"type": "Resource", "resource": part}
