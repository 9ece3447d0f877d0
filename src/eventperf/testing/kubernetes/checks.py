"""What a cluster refuses though it can be read: names, workloads, autoscalers. Pure.

Source: Kubernetes' pkg/apis/*/validation; of it what a client of this server can get wrong. ``schemas=True``
checks every field against the published schemas besides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from .resources import Resource
from .selectors import label_matcher, selector_text
from .store import ApiError, Object
from .syntax import (
    Cause,
    config_keys,
    dns_1035,
    dns_label,
    duplicate,
    forbidden,
    invalid,
    label_value,
    labels,
    notes,
    path_part,
    qualified,
    required,
    subdomain,
    unsupported,
)  # fmt: skip

_OPERATORS: Final = ("In", "NotIn", "Exists", "DoesNotExist")
_MOST_BYTES: Final = 1 << 20
_ROLES: Final = ("Role", "ClusterRole")
_NATURAL: Final = "must be greater than or equal to 0"


def refusal(resource: Resource, obj: Object, causes: list[Cause]) -> ApiError:
    """Return 422 with every cause, as the real server words it."""
    name = (obj.get("metadata") or {}).get("name") or ""
    group = f".{resource.group}" if resource.group else ""
    said = str(causes[0]) if len(causes) == 1 else "[" + ", ".join(map(str, causes)) + "]"
    about: Object = {"name": name, "kind": resource.kind, "causes": [cause.row for cause in causes]}
    if resource.group:
        about["group"] = resource.group
    text = f'{resource.kind}{group} "{name}" is invalid: {said}'
    return ApiError(422, "Invalid", text, details=about)


def wrong_with(resource: Resource, obj: Object) -> list[Cause]:
    """Return what is wrong with an object that could be read."""
    found = list(_meta(resource, obj.get("metadata") or {}))
    check = _CHECKS.get((resource.group, resource.plural))
    if check is not None:
        found += check(obj)
    return list(dict.fromkeys(found))


def _meta(resource: Resource, meta: Object) -> Iterator[Cause]:
    rule = subdomain
    if (resource.group, resource.plural) == ("", "namespaces"):
        rule = dns_label
    elif (resource.group, resource.plural) == ("", "services"):
        rule = dns_1035
    elif resource.group == "rbac.authorization.k8s.io":
        rule = path_part
    name = meta.get("name") or (meta.get("generateName") and f"{meta['generateName']}x")
    if not name:
        yield required("metadata.name", "name or generateName is required")
    else:
        yield from rule("metadata.name" if meta.get("name") else "metadata.generateName", name)
    yield from labels("metadata.labels", meta.get("labels") or {})
    yield from notes("metadata.annotations", meta.get("annotations") or {})
    for at, owner in enumerate(meta.get("ownerReferences") or ()):
        for part in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(part):
                yield invalid(f"metadata.ownerReferences[{at}].{part}", "", f"{part} must not be empty")
    for step in meta.get("finalizers") or ():
        yield from qualified("metadata.finalizers", step)


def _selector(field: str, selector: Object) -> Iterator[Cause]:
    yield from labels(f"{field}.matchLabels", selector.get("matchLabels") or {})
    for at, rule in enumerate(selector.get("matchExpressions") or ()):
        place, operator, values = (
            f"{field}.matchExpressions[{at}]",
            rule.get("operator"),
            rule.get("values") or (),
        )
        yield from qualified(f"{place}.key", rule.get("key") or "")
        if operator not in _OPERATORS:
            yield invalid(f"{place}.operator", operator or "", "not a valid selector operator")
        elif operator in ("In", "NotIn") and not values:
            yield required(f"{place}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator not in ("In", "NotIn") and values:
            yield forbidden(
                f"{place}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            )
        for value in values:
            yield from label_value(f"{place}.values", value)


def _natural(field: str, spec: Object, *names: str) -> Iterator[Cause]:
    for name in names:
        if spec.get(name, 0) < 0:
            yield invalid(f"{field}.{name}", spec[name], _NATURAL)


def _workload(obj: Object) -> Iterator[Cause]:
    spec = obj.get("spec") or {}
    yield from _natural("spec", spec, "replicas", "minReadySeconds", "revisionHistoryLimit")
    selector, template = spec.get("selector"), spec.get("template") or {}
    found: list[Cause] = []
    if selector is None:
        found.append(required("spec.selector"))
    else:
        found += _selector("spec.selector", selector)
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            found.append(invalid("spec.selector", selector, "empty selector is invalid for deployment"))
    yield from found
    given = (template.get("metadata") or {}).get("labels") or {}
    matches = None if found or not selector else label_matcher(selector_text(selector))
    if matches is not None and not matches({"metadata": {"labels": given}}):
        text = "`selector` does not match template `labels`"
        yield invalid("spec.template.metadata.labels", given, text)
    yield from labels("spec.template.metadata.labels", given)
    yield from _pod_spec("spec.template.spec", template.get("spec") or {})
    policy = (template.get("spec") or {}).get("restartPolicy", "Always")
    if policy != "Always":
        yield unsupported("spec.template.spec.restartPolicy", policy, ("Always",))


def _deployment(obj: Object) -> Iterator[Cause]:
    yield from _workload(obj)
    spec = obj.get("spec") or {}
    yield from _natural("spec", spec, "progressDeadlineSeconds")
    deadline, ready = spec.get("progressDeadlineSeconds", 600), spec.get("minReadySeconds", 0)
    if 0 <= deadline <= ready:
        yield invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds")
    strategy = spec.get("strategy") or {}
    kind, rolling = strategy.get("type") or "RollingUpdate", strategy.get("rollingUpdate")
    if kind not in ("Recreate", "RollingUpdate"):
        yield unsupported("spec.strategy.type", kind, ("Recreate", "RollingUpdate"))
    elif kind == "Recreate" and rolling is not None:
        text = "may not be specified when strategy `type` is 'Recreate'"
        yield forbidden("spec.strategy.rollingUpdate", text)
    elif rolling:
        yield from _rolling(rolling)


def _rolling(rolling: Object) -> Iterator[Cause]:
    field, sizes = "spec.strategy.rollingUpdate", {}
    for name in ("maxUnavailable", "maxSurge"):
        value = rolling.get(name, "25%")
        if isinstance(value, str) and not re.fullmatch("[0-9]+%", value):
            text = "a valid percent string must be a numeric string followed by an ending '%' "
            yield invalid(
                f"{field}.{name}",
                value,
                text + "(e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
            )
            return
        sizes[name] = int(value[:-1][:9]) if isinstance(value, str) else value
        if sizes[name] < 0:
            yield invalid(f"{field}.{name}", value, _NATURAL)
        if name == "maxUnavailable" and isinstance(value, str) and sizes[name] > 100:
            yield invalid(f"{field}.{name}", value, "must not be greater than 100%")
    if sizes == {"maxUnavailable": 0, "maxSurge": 0}:
        yield invalid(f"{field}.maxUnavailable", 0, "may not be 0 when `maxSurge` is 0")


def _pod(obj: Object) -> Iterator[Cause]:
    yield from _pod_spec("spec", obj.get("spec") or {})


def _pod_spec(field: str, spec: Object) -> Iterator[Cause]:
    if not spec.get("containers"):
        yield required(f"{field}.containers")
    seen: set[str] = set()
    for kind in ("containers", "initContainers"):
        for at, container in enumerate(spec.get(kind) or ()):
            place, name = f"{field}.{kind}[{at}]", container.get("name") or ""
            yield from _container(place, container)
            if name and name in seen:
                yield duplicate(f"{place}.name", name)
            seen.add(name)
    volumes: set[str] = set()
    for at, volume in enumerate(spec.get("volumes") or ()):
        name = volume.get("name") or ""
        if not name:
            yield required(f"{field}.volumes[{at}].name")
        elif name in volumes:
            yield duplicate(f"{field}.volumes[{at}].name", name)
        volumes.add(name)


def _container(place: str, container: Object) -> Iterator[Cause]:
    name = container.get("name") or ""
    if not name:
        yield required(f"{place}.name")
    else:
        yield from dns_label(f"{place}.name", name)
    if not container.get("image"):
        yield required(f"{place}.image")
    for at, port in enumerate(container.get("ports") or ()):
        number = port.get("containerPort", 0)
        if not number:
            yield required(f"{place}.ports[{at}].containerPort")
        elif not 0 < number < 65536:
            yield invalid(
                f"{place}.ports[{at}].containerPort", number, "must be between 1 and 65535, inclusive"
            )
        if port.get("protocol", "TCP") not in ("SCTP", "TCP", "UDP"):
            yield unsupported(f"{place}.ports[{at}].protocol", port["protocol"], ("SCTP", "TCP", "UDP"))
    for at, variable in enumerate(container.get("env") or ()):
        if not variable.get("name"):
            yield required(f"{place}.env[{at}].name")
    for kind in ("limits", "requests"):
        for key, value in ((container.get("resources") or {}).get(kind) or {}).items():
            if str(value).startswith("-"):
                yield invalid(f"{place}.resources.{kind}[{key}]", value, _NATURAL)


def _autoscaler(obj: Object) -> Iterator[Cause]:
    spec = obj.get("spec") or {}
    least, most = spec.get("minReplicas", 1), spec.get("maxReplicas", 0)
    if least < 1:
        yield invalid("spec.minReplicas", least, "must be greater than or equal to 1")
    if most < 1:
        yield invalid("spec.maxReplicas", most, "must be greater than 0")
    if most < least:
        yield invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`")
    about = spec.get("scaleTargetRef") or {}
    for part in ("kind", "name"):
        if not about.get(part):
            yield required(f"spec.scaleTargetRef.{part}")
        else:
            yield from path_part(f"spec.scaleTargetRef.{part}", about[part])
    for at, metric in enumerate(spec.get("metrics") or ()):
        yield from _metric(f"spec.metrics[{at}]", metric)
    for way in ("scaleUp", "scaleDown"):
        rules = (spec.get("behavior") or {}).get(way)
        if rules is not None:
            yield from _rules(f"spec.behavior.{way}", rules)


_SOURCES: Final = {
    "ContainerResource": "containerResource", "External": "external", "Object": "object", "Pods": "pods",
    "Resource": "resource",
}  # fmt: skip


def _metric(place: str, metric: Object) -> Iterator[Cause]:
    kind = metric.get("type") or ""
    if not kind:
        yield required(f"{place}.type", "must specify a metric source type")
        return
    if kind not in _SOURCES:
        yield unsupported(f"{place}.type", kind, tuple(_SOURCES))
        return
    name = _SOURCES[kind]
    source = metric.get(name)
    if source is None:
        yield required(f"{place}.{name}", "must populate information for the given metric source")
        return
    if not (
        source.get("name")
        if name in ("resource", "containerResource")
        else source.get("metric", {}).get("name")
    ):
        yield required(f"{place}.{name}" + (".name" if name.lower().endswith("resource") else ".metric.name"))
    target = source.get("target") or {}
    if not target.get("type"):
        yield required(f"{place}.{name}.target.type", "must specify a metric target type")
    elif target["type"] not in ("Utilization", "Value", "AverageValue"):
        yield unsupported(
            f"{place}.{name}.target.type", target["type"], ("Utilization", "Value", "AverageValue")
        )
    if target.get("averageUtilization", 1) < 1:
        yield invalid(
            f"{place}.{name}.target.averageUtilization",
            target["averageUtilization"],
            "must be greater than 0",
        )
    if not any(k in target for k in ("averageUtilization", "value", "averageValue")):
        text = "must set either a target raw value or a target utilization"
        yield required(f"{place}.averageUtilization", text)


def _rules(place: str, rules: Object) -> Iterator[Cause]:
    window = rules.get("stabilizationWindowSeconds", 0)
    if window < 0:
        yield invalid(f"{place}.stabilizationWindowSeconds", window, "must be greater than or equal to zero")
    elif window > 3600:
        yield invalid(f"{place}.stabilizationWindowSeconds", window, "must be less than or equal to 3600")
    chosen = rules.get("selectPolicy", "Max")
    if chosen not in ("Max", "Min", "Disabled"):
        yield unsupported(f"{place}.selectPolicy", chosen, ("Disabled", "Max", "Min"))
    for at, policy in enumerate(rules.get("policies") or ()):
        field = f"{place}.policies[{at}]"
        if policy.get("type") not in ("Pods", "Percent"):
            yield unsupported(f"{field}.type", policy.get("type") or "", ("Percent", "Pods"))
        if policy.get("value", 0) <= 0:
            yield invalid(f"{field}.value", policy.get("value", 0), "must be greater than zero")
        period = policy.get("periodSeconds", 0)
        if period <= 0:
            yield invalid(f"{field}.periodSeconds", period, "must be greater than zero")
        elif period > 1800:
            yield invalid(f"{field}.periodSeconds", period, "must be less than or equal to 1800")


def _config(obj: Object) -> Iterator[Cause]:
    size = 0
    for name in ("data", "binaryData", "stringData"):
        given = obj.get(name) or {}
        yield from config_keys(name, given)
        size += sum(len(value.encode("utf-8", "replace")) for value in given.values())
    if size > _MOST_BYTES:
        yield Cause("", "FieldValueTooLong", f"Too long: must have at most {_MOST_BYTES} bytes")


def _lease(obj: Object) -> Iterator[Cause]:
    spec = obj.get("spec") or {}
    if spec.get("leaseDurationSeconds", 1) <= 0:
        yield invalid("spec.leaseDurationSeconds", spec["leaseDurationSeconds"], "must be greater than 0")
    if spec.get("leaseTransitions", 0) < 0:
        yield invalid("spec.leaseTransitions", spec["leaseTransitions"], _NATURAL)


def _role(obj: Object) -> Iterator[Cause]:
    for at, rule in enumerate(obj.get("rules") or ()):
        place = f"rules[{at}]"
        if not rule.get("verbs"):
            yield required(f"{place}.verbs", "verbs must contain at least one value")
        if not rule.get("nonResourceURLs"):
            for part, what in (("apiGroups", "api group"), ("resources", "resource")):
                if not rule.get(part):
                    yield required(f"{place}.{part}", f"resource rules must supply at least one {what}")


def _binding(obj: Object) -> Iterator[Cause]:
    about = obj.get("roleRef") or {}
    if about.get("kind") not in _ROLES:
        yield unsupported("roleRef.kind", about.get("kind") or "", _ROLES)
    if not about.get("name"):
        yield required("roleRef.name")
    for at, subject in enumerate(obj.get("subjects") or ()):
        if subject.get("kind") not in ("ServiceAccount", "User", "Group"):
            kinds = ("ServiceAccount", "User", "Group")
            yield unsupported(f"subjects[{at}].kind", subject.get("kind") or "", kinds)
        if not subject.get("name"):
            yield required(f"subjects[{at}].name")


def _new_event(obj: Object) -> Iterator[Cause]:
    """Find what is wrong with an event of the newer API, beyond its schema."""
    for name, longest in (
        ("action", 128),
        ("reason", 128),
        ("reportingInstance", 128),
        ("reportingController", 253),
    ):
        if not 0 < len(obj.get(name) or "") <= longest:
            yield invalid(name, obj.get(name) or "", f"must have between 1 and {longest} characters")
    if len(obj.get("note") or "") > 1024:
        yield invalid("note", obj["note"], "can have at most 1024 characters")
    if obj.get("type") not in ("Normal", "Warning"):
        yield invalid("type", obj.get("type") or "", "must be Normal or Warning")
    if not obj.get("eventTime"):
        yield required("eventTime", "must be specified")
    about = (obj.get("regarding") or {}).get("namespace") or "default"
    if about != (obj.get("metadata") or {}).get("namespace", about):
        yield invalid("regarding.namespace", about, "does not match event.namespace")


_CHECKS: Final[dict[tuple[str, str], Any]] = {
    ("apps", "deployments"): _deployment, ("apps", "statefulsets"): _workload,
    ("apps", "replicasets"): _workload,
    ("", "pods"): _pod, ("autoscaling", "horizontalpodautoscalers"): _autoscaler,
    ("", "configmaps"): _config, ("", "secrets"): _config, ("coordination.k8s.io", "leases"): _lease,
    ("events.k8s.io", "events"): _new_event,
    **{("rbac.authorization.k8s.io", name): _role for name in ("roles", "clusterroles")},
    **{("rbac.authorization.k8s.io", name): _binding for name in ("rolebindings", "clusterrolebindings")},
}  # fmt: skip
