"""``eventperf scale import``: an HPA or a ScaledObject as a configuration file, and what differs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from eventperf._core.cron import Cron, time_zone
from eventperf._core.errors import ConfigurationError
from eventperf.scaling import Behavior, Rules
from eventperf.scaling.behavior import HPA_DOWN, HPA_UP, PLAIN_UP

from .checks import REPLACE
from .manifest import amount, objects, rows, table, whole

_SPARE = ("rps", "backlog")
_VERSIONS = ("autoscaling/v1", "autoscaling/v2", "autoscaling/v2beta1", "autoscaling/v2beta2")
_ADDRESS = "http://prometheus:9090"
_AIM = re.compile("threshold|length|value$|target", re.IGNORECASE)  # what a trigger of KEDA's aims at
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
    parts, remarks, scaled = [], list[str](), dict[str, str]()
    for obj in objects(path):
        kind, name = obj.get("kind"), table(obj.get("metadata"), "metadata").get("name", "?")
        if kind not in ("HorizontalPodAutoscaler", "ScaledObject"):
            remarks.append(f"{kind} {name} is no autoscaler: left out")
            continue
        made = _Carried(obj, f"{kind} {name}")
        parts.append(made.text())
        remarks += made.remarks
        other = scaled.setdefault(made.target, f"{kind} {name}")
        if len(scaled) < len(parts):
            remarks.append(f"{kind} {name} scales {made.target}, as {other} does: keep one of the two")
            parts.pop()
    if not parts:
        allowed = "a HorizontalPodAutoscaler or a ScaledObject"
        raise ConfigurationError("FILE", path, allowed if remarks else f"{allowed}: it holds no object")
    return "\n\n".join(parts), remarks


class _Carried:
    """One autoscaler on its way."""

    def __init__(self, obj: Mapping[str, Any], title: str) -> None:
        self._spec = table(obj.get("spec"), f"{title}: spec")
        self._title, self._meta = title, table(obj.get("metadata"), f"{title}: metadata")
        self.target: str = ""
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
        self._limits("minReplicas", 1, "maxReplicas", None)
        if obj.get("apiVersion") not in (None, *_VERSIONS):
            self._say(f"{obj.get('apiVersion')} is read as autoscaling/v2: convert it first")
        metrics = rows(self._spec.get("metrics"), f"{self._title}: spec.metrics")
        if obj.get("apiVersion") == "autoscaling/v1":
            metrics = [_resource("cpu", self._spec.get("targetCPUUtilizationPercentage") or 80)]
        for number, metric in enumerate(metrics or [_resource("cpu", 80)]):  # the API server's default
            self._metric(metric, f"{self._title}: spec.metrics[{number}]")

    def _limits(self, least: str, low: int, most: str, high: int | None) -> None:
        path = f"{self._title}: spec"
        given = self._spec.get(least), self._spec.get(most)
        self._low = low if given[0] is None else whole(given[0], f"{path}.{least}")
        self._high = high if given[1] is None and high else whole(given[1], f"{path}.{most}")
        if self._high < max(1, self._low):
            raise ConfigurationError(f"{path}.{most}", self._high, f"at least 1 and {least}, {self._low}")

    def _metric(self, metric: Mapping[str, Any], path: str) -> None:
        kind = str(metric.get("type"))
        field = kind[:1].lower() + kind[1:]
        part = _modern(table(metric.get(field), f"{path}.{field}"))
        target = table(part.get("target"), f"{path}.{field}.target")
        name = part.get("name") or table(part.get("metric"), f"{path}.{field}.metric").get("name", "?")
        if kind in ("Resource", "ContainerResource") and name in ("cpu", "memory"):
            self._share(str(name), target, part.get("container"), path)
        elif kind in ("Pods", "Object", "External"):
            self._outside(str(name), kind, target)
        elif kind in ("Resource", "ContainerResource"):
            self._say(f"{name}: of resources only cpu and memory are followed; left out")
        else:
            self._say(f"metric of type {kind} is not known; left out")

    def _share(self, name: str, target: Mapping[str, Any], container: str | None, path: str) -> None:
        if target.get("averageUtilization") is None:
            given = target.get("averageValue", target.get("value", "no target"))
            self._say(f"{name} of {given}: only shares of the request are followed; left out")
            return
        if name in self._targets:
            self._say(f"{name} a second time ({path.rpartition('.')[2]}): only one is followed; left out")
            return
        self._targets[name] = amount(target["averageUtilization"], f"{path}: averageUtilization") / 100
        self._sources[name] = f"{{ container = {json.dumps(container)} }}" if container else '"kubernetes"'

    def _outside(self, name: str, kind: str, target: Mapping[str, Any]) -> None:
        slot = next((s for s in _SPARE if s not in self._targets), None)
        if slot is None:
            self._say(f"{name}: no more than two metrics beside cpu and memory; left out")
            return
        average = target.get("averageValue")
        given = target.get("value") if average is None else average
        self._targets[slot] = amount(given, f"{self._title}: target of {name}")
        if average is None:
            self._totals.append(slot)
        self._sources[slot] = f'{{ prometheus = "{_ADDRESS}", query = "{REPLACE}" }}'
        self._say(f"{kind} metric {name} became {slot}: give its PromQL query, a total over all pods")

    def _keda(self) -> None:
        self._limits("minReplicaCount", 0, "maxReplicaCount", 100)
        for number, trigger in enumerate(rows(self._spec.get("triggers"), f"{self._title}: spec.triggers")):
            self._trigger(trigger, f"{self._title}: spec.triggers[{number}]")
            self._unsaid(trigger)
        for name in sorted(set(self._spec) - _SPEC):
            self._say(f"{name} = {self._spec[name]}: there is nothing of the kind here; left out")
        advanced = table(self._spec.get("advanced"), f"{self._title}: spec.advanced")
        if advanced.get("scalingModifiers"):
            self._say(
                "advanced.scalingModifiers: each trigger has its own target here, the largest wish wins"
            )
        if advanced.get("restoreToOriginalReplicaCount"):
            self._say(
                "advanced.restoreToOriginalReplicaCount: the number stays as it is when the scaler ends"
            )
        for name in table(self._meta.get("annotations"), f"{self._title}: annotations"):
            if str(name).startswith("autoscaling.keda.sh/paused"):
                self._say(f"annotation {name}: eventperf scale freeze holds a target; left out")
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

    def _trigger(self, trigger: Mapping[str, Any], path: str) -> None:
        kind, data = trigger.get("type"), table(trigger.get("metadata"), f"{path}.metadata")
        if kind in ("cpu", "memory"):
            form = str(trigger.get("metricType") or data.get("type") or "Utilization")
            value = "80" if data.get("value") is None else data["value"]
            target = {"averageUtilization" if form == "Utilization" else "averageValue": value}
            self._share(kind, target, data.get("containerName"), path)
        elif kind == "cron":
            self._cron(data, path)
        elif kind == "prometheus":
            if data.get("threshold") in (None, ""):
                raise ConfigurationError(f"{self._title}: threshold of prometheus", "nothing", "a quantity")
            field = "value" if trigger.get("metricType") == "Value" else "averageValue"
            before = set(self._targets)
            self._outside("prometheus", "External", {field: data["threshold"]})
            for slot in set(self._targets) - before:
                self.remarks.pop()
                self._prometheus(data, slot)
        else:
            aims = [f"{name} = {data[name]}" for name in sorted(data) if _AIM.search(str(name))]
            named = f"{kind} ({', '.join(aims)})" if aims else str(kind)
            self._say(f"trigger {named}: give it as a Prometheus query or a function; left out")

    def _cron(self, data: Mapping[str, Any], path: str) -> None:
        """Say what stands for a cron trigger in a calendar's file, ready to be copied."""
        start, end, zone = (str(data.get(name) or "") for name in ("start", "end", "timezone"))
        number = data.get("desiredReplicas")
        said = f"cron {start} to {end}: write it as events of a [calendar]"
        try:
            began = Cron(start, time_zone(zone or "UTC")).after(0.0) or 0.0
            ended = Cron(end, time_zone(zone or "UTC")).after(began) or began
            least = whole(number, f"{path}.desiredReplicas")
        except ConfigurationError as error:
            self._say(f"{said}; what it says is not read: {error}")
            return
        self._say(
            f"{said}, whose file has [[cron]] with cron = {json.dumps(start)}, timezone = "
            f'{json.dumps(zone or "UTC")}, min_replicas = {least}, duration = "{ended - began:.0f}s"'
        )

    # -- writing -------------------------------------------------------------------------------------

    def text(self) -> str:
        """Return the target's table."""
        reference = table(self._spec.get("scaleTargetRef"), f"{self._title}: spec.scaleTargetRef")
        group, slash, version = str(reference.get("apiVersion") or "apps/v1").partition("/")
        kind = str(reference.get("kind") or "Deployment").lower()
        if slash and group != "apps":
            kind = f"{kind}s.{version}.{group}"
            self._say(f"its target is of kind {kind}: check the plural")
        name = reference.get("name") or reference.get("deploymentName")  # the latter in keda.k8s.io/v1alpha1
        if not name:
            raise ConfigurationError(f"{self._title}: spec.scaleTargetRef.name", "nothing", "what it scales")
        self.target = f"{self._meta.get('namespace') or 'default'}/{kind}/{name}"
        lines = ["[[targets]]", f"name = {json.dumps(f'{kind}/{name}')}"]
        if self._meta.get("namespace"):
            lines.append(f"namespace = {json.dumps(self._meta['namespace'])}")
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


def _modern(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a metric of autoscaling/v2beta1 as autoscaling/v2 has it, others as they are."""
    old = {"targetAverageUtilization", "targetAverageValue", "targetValue"} & set(part)
    target = {name[6].lower() + name[7:]: part[name] for name in old}
    named = {"name": part["metricName"]} if part.get("metricName") else {}
    return {**part, **named, "target": target} if target else part


def _resource(name: str, percent: float) -> dict[str, Any]:
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": name, "target": target}}
