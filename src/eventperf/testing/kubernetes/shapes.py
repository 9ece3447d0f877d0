"""What a body must be to be read at all: types of the fields that this server or its clients look at. Pure.

As the real server reads JSON into its structures: ``null`` is a field that is not there, a value of another
type is refused by its path. Fields that are not in these tables stay as they are; ``schemas=True`` checks
them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

Shape = Any
"""``"text"``, ``"int32"`` and so on; a :class:`Struct`; ``[shape]`` for a list; ``{"": shape}`` for a map."""

_INT = {"int32": 2**31 - 1, "int64": 2**63 - 1}
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)")
_QUANTITY: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?")
_GO: Final[dict[str, str]] = {
    "text": "string", "time": "v1.Time", "fields": "v1.FieldsV1", "quantity": "resource.Quantity",
    "int or text": "intstr.IntOrString",
}  # fmt: skip


class Misfit(ValueError):
    """A value that cannot be read into its field."""


@dataclass(frozen=True, slots=True)
class Struct:
    """A structure by its name in Go and the fields that are looked at."""

    name: str
    fields: dict[str, Shape]


def read_as(kind: str, api_version: str, obj: dict[str, Any]) -> dict[str, Any]:
    """Return ``obj`` as the real server reads it: without ``null`` where a field may be absent.

    Raises:
        Misfit: Something has another type than its field; the text is the real server's.
    """
    shape = Struct(kind, _KINDS.get((kind, api_version.partition("/")[0]), {"metadata": META}))
    found: dict[str, Any] = _read(shape, obj, shape.name, "", "")
    return found


def _read(shape: Shape, value: Any, owner: str, path: str, name: str) -> Any:
    if isinstance(shape, Struct):
        if not isinstance(value, dict):
            raise _misfit(value, owner, path, f"v1.{shape.name}")
        known = shape.fields
        read = {
            key: _read(known[key], inner, shape.name, f"{path}.{key}" if path else key, key)
            if key in known and inner is not None else inner
            for key, inner in value.items()
        }  # fmt: skip
        return {key: inner for key, inner in read.items() if inner is not None or key not in known}
    if isinstance(shape, list):
        if not isinstance(value, list):
            raise _misfit(value, owner, path, f"[]{_go(shape[0])}")
        return [_read(shape[0], _zero(shape[0]) if v is None else v, owner, path, name) for v in value]
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            raise _misfit(value, owner, path, f"map[string]{_go(shape[''])}")
        return {
            k: _read(shape[""], _zero(shape[""]) if v is None else v, owner, path, name)
            for k, v in value.items()
        }
    _check(shape, value, owner, path)
    return value


def _check(shape: str, value: Any, owner: str, path: str) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if shape in _INT:
        fits = isinstance(value, int) and is_number and -_INT[shape] - 1 <= value <= _INT[shape]
    elif shape == "int or text":
        fits = isinstance(value, str) or (isinstance(value, int) and is_number and abs(value) < 2**31)
    elif shape == "quantity":
        if isinstance(value, str) and not _QUANTITY.fullmatch(value):
            raise Misfit(f"{path}: quantities must match the regular expression '{_QUANTITY.pattern}'")
        fits = isinstance(value, str) or is_number
    elif shape == "time":
        if isinstance(value, str) and not _TIME.fullmatch(value):
            raise Misfit(
                f'parsing time {json.dumps(value)} as "2006-01-02T15:04:05Z07:00": cannot parse {path}'
            )
        fits = isinstance(value, str)
    elif shape == "fields":
        fits = isinstance(value, dict) and _are_fields(value)
    else:
        fits = isinstance(value, bool if shape == "bool" else str)
    if not fits:
        raise _misfit(value, owner, path, _go(shape))


def _are_fields(value: dict[str, Any]) -> bool:
    """Tell whether it is a set of managed fields."""
    for step, inner in value.items():
        if not isinstance(inner, dict):
            return False
        if step[:2] in ("k:", "v:"):
            try:
                read = json.loads(step[2:])
            except ValueError:
                return False
            if step[0] == "k" and not isinstance(read, dict):
                return False
        elif step != "." and not step.startswith("f:"):
            return False
        if not _are_fields(inner):
            return False
    return True


def _zero(shape: Shape) -> Any:
    if isinstance(shape, (Struct, dict)):
        return {}
    return [] if isinstance(shape, list) else {"text": "", "bool": False}.get(shape, 0)


def _go(shape: Shape) -> str:
    if isinstance(shape, Struct):
        return f"v1.{shape.name}"
    if isinstance(shape, list):
        return f"[]{_go(shape[0])}"
    if isinstance(shape, dict):
        return f"map[string]{_go(shape[''])}"
    return _GO.get(shape, str(shape))


def _misfit(value: Any, owner: str, path: str, wanted: str) -> Misfit:
    if isinstance(value, bool):
        what = "bool"
    elif isinstance(value, (int, float)):
        what = f"number {value}" if wanted.startswith(("int3", "int6")) else "number"
    else:
        names: dict[type, str] = {str: "string", list: "array", dict: "object"}
        what = names.get(type(value), "null")
    where = f"Go struct field {owner}.{path}" if path else "Go value"
    return Misfit(f"json: cannot unmarshal {what} into {where} of type {wanted}")


_TEXTS = {"": "text"}
_MANAGED = Struct("ManagedFieldsEntry", {
    "manager": "text", "operation": "text", "apiVersion": "text", "time": "time", "fieldsType": "text",
    "fieldsV1": "fields", "subresource": "text",
})  # fmt: skip
_OWNER = Struct("OwnerReference", {
    "apiVersion": "text", "kind": "text", "name": "text", "uid": "text", "controller": "bool",
    "blockOwnerDeletion": "bool",
})  # fmt: skip
META = Struct("ObjectMeta", {
    "name": "text", "generateName": "text", "namespace": "text", "uid": "text", "resourceVersion": "text",
    "generation": "int64", "creationTimestamp": "time", "deletionTimestamp": "time", "labels": _TEXTS,
    "annotations": _TEXTS, "finalizers": ["text"], "ownerReferences": [_OWNER], "managedFields": [_MANAGED],
})  # fmt: skip
_EXPRESSION = Struct("LabelSelectorRequirement", {"key": "text", "operator": "text", "values": ["text"]})
_SELECTOR = Struct("LabelSelector", {"matchLabels": _TEXTS, "matchExpressions": [_EXPRESSION]})
_CONDITION = Struct("Condition", {
    "type": "text", "status": "text", "reason": "text", "message": "text", "lastTransitionTime": "time",
    "lastUpdateTime": "time",
})  # fmt: skip
_RESOURCES = Struct("ResourceRequirements", {"requests": {"": "quantity"}, "limits": {"": "quantity"}})
_PORT = Struct("ContainerPort", {
    "name": "text", "containerPort": "int32", "hostPort": "int32", "protocol": "text", "hostIP": "text",
})  # fmt: skip
_CONTAINER = Struct("Container", {
    "name": "text", "image": "text", "command": ["text"], "args": ["text"], "workingDir": "text",
    "ports": [_PORT], "resources": _RESOURCES, "restartPolicy": "text", "imagePullPolicy": "text",
    "env": [Struct("EnvVar", {"name": "text", "value": "text"})],
    "volumeMounts": [Struct("VolumeMount", {"name": "text", "mountPath": "text", "readOnly": "bool"})],
})  # fmt: skip
_POD_SPEC = Struct("PodSpec", {
    "containers": [_CONTAINER], "initContainers": [_CONTAINER], "ephemeralContainers": [_CONTAINER],
    "volumes": [Struct("Volume", {"name": "text"})], "nodeName": "text", "nodeSelector": _TEXTS,
    "restartPolicy": "text", "serviceAccountName": "text", "hostNetwork": "bool", "priority": "int32",
    "terminationGracePeriodSeconds": "int64", "activeDeadlineSeconds": "int64", "resources": _RESOURCES,
})  # fmt: skip
_TEMPLATE = Struct("PodTemplateSpec", {"metadata": META, "spec": _POD_SPEC})
_ROLLING = Struct("RollingUpdateDeployment", {"maxSurge": "int or text", "maxUnavailable": "int or text"})
_COUNTS: dict[str, Shape] = dict.fromkeys(
    ("replicas", "readyReplicas", "availableReplicas", "updatedReplicas", "unavailableReplicas",
     "fullyLabeledReplicas", "currentReplicas", "desiredReplicas"), "int32",
)  # fmt: skip


def _workload(kind: str, **more: Shape) -> dict[str, Shape]:
    spec = {
        "replicas": "int32",
        "minReadySeconds": "int32",
        "selector": _SELECTOR,
        "template": _TEMPLATE,
        **more,
    }
    status = {**_COUNTS, "observedGeneration": "int64", "conditions": [_CONDITION]}
    return {"metadata": META, "spec": Struct(f"{kind}Spec", spec), "status": Struct(f"{kind}Status", status)}


_METRIC_TARGET = Struct("MetricTarget", {
    "type": "text", "value": "quantity", "averageValue": "quantity", "averageUtilization": "int32",
})  # fmt: skip
_IDENTIFIER = Struct("MetricIdentifier", {"name": "text", "selector": _SELECTOR})
_REFERENCE = Struct("CrossVersionObjectReference", {"kind": "text", "name": "text", "apiVersion": "text"})
_METRIC = Struct("MetricSpec", {
    "type": "text",
    "resource": Struct("ResourceMetricSource", {"name": "text", "target": _METRIC_TARGET}),
    "containerResource": Struct(
        "ContainerResourceMetricSource", {"name": "text", "container": "text", "target": _METRIC_TARGET}
    ),
    "pods": Struct("PodsMetricSource", {"metric": _IDENTIFIER, "target": _METRIC_TARGET}),
    "external": Struct("ExternalMetricSource", {"metric": _IDENTIFIER, "target": _METRIC_TARGET}),
    "object": Struct(
        "ObjectMetricSource",
        {"metric": _IDENTIFIER, "target": _METRIC_TARGET, "describedObject": _REFERENCE},
    ),
})  # fmt: skip
_POLICY = Struct("HPAScalingPolicy", {"type": "text", "value": "int32", "periodSeconds": "int32"})
_RULES = Struct("HPAScalingRules", {
    "stabilizationWindowSeconds": "int32", "selectPolicy": "text", "policies": [_POLICY],
    "tolerance": "quantity",
})  # fmt: skip
_HPA_SPEC = Struct("HorizontalPodAutoscalerSpec", {
    "scaleTargetRef": _REFERENCE, "minReplicas": "int32", "maxReplicas": "int32", "metrics": [_METRIC],
    "behavior": Struct("HorizontalPodAutoscalerBehavior", {"scaleUp": _RULES, "scaleDown": _RULES}),
})  # fmt: skip
_ABOUT = Struct("ObjectReference", {
    "kind": "text", "namespace": "text", "name": "text", "uid": "text", "apiVersion": "text",
    "resourceVersion": "text", "fieldPath": "text",
})  # fmt: skip
_EVENT: dict[str, Shape] = {
    "metadata": META, "regarding": _ABOUT, "involvedObject": _ABOUT, "related": _ABOUT,
    **dict.fromkeys(("note", "message", "reason", "type", "action", "reportingController",
                     "reportingComponent", "reportingInstance"), "text"),
    "eventTime": "time", "count": "int32", "firstTimestamp": "time", "lastTimestamp": "time",
}  # fmt: skip
_RULE = Struct("PolicyRule", {
    "verbs": ["text"], "apiGroups": ["text"], "resources": ["text"], "resourceNames": ["text"],
    "nonResourceURLs": ["text"],
})  # fmt: skip
_SUBJECT = Struct("Subject", {"kind": "text", "name": "text", "namespace": "text", "apiGroup": "text"})
_BINDING: dict[str, Shape] = {
    "metadata": META, "subjects": [_SUBJECT],
    "roleRef": Struct("RoleRef", {"kind": "text", "name": "text", "apiGroup": "text"}),
}  # fmt: skip
_ROLE: dict[str, Shape] = {"metadata": META, "rules": [_RULE]}
_RIGHTS = {
    name: "text"
    for name in ("namespace", "verb", "group", "version", "resource", "subresource", "name", "path")
}
_REVIEW: dict[str, Shape] = {
    "metadata": META,
    "spec": Struct("SubjectAccessReviewSpec", {
        "user": "text", "groups": ["text"], "uid": "text", "namespace": "text",
        "resourceAttributes": Struct("ResourceAttributes", _RIGHTS),
        "nonResourceAttributes": Struct("NonResourceAttributes", _RIGHTS),
    }),
}  # fmt: skip
_CRD_VERSION = Struct("CustomResourceDefinitionVersion", {
    "name": "text", "served": "bool", "storage": "bool",
    "schema": Struct("CustomResourceValidation", {"openAPIV3Schema": Struct("JSONSchemaProps", {})}),
    "subresources": Struct("CustomResourceSubresources", {
        "status": Struct("CustomResourceSubresourceStatus", {}),
        "scale": Struct("CustomResourceSubresourceScale", {
            "specReplicasPath": "text", "statusReplicasPath": "text", "labelSelectorPath": "text",
        }),
    }),
    "additionalPrinterColumns": [Struct("CustomResourceColumnDefinition", {
        "name": "text", "type": "text", "jsonPath": "text", "priority": "int32",
    })],
})  # fmt: skip
_CRD_SPEC = Struct("CustomResourceDefinitionSpec", {
    "group": "text", "scope": "text", "versions": [_CRD_VERSION],
    "names": Struct("CustomResourceDefinitionNames", {
        "plural": "text", "singular": "text", "kind": "text", "listKind": "text", "shortNames": ["text"],
        "categories": ["text"],
    }),
})  # fmt: skip
_POD_STATUS = Struct("PodStatus", {"phase": "text", "startTime": "time", "conditions": [_CONDITION]})
_KINDS: dict[tuple[str, str], dict[str, Shape]] = {
    ("Deployment", "apps"): _workload(
        "Deployment", paused="bool", revisionHistoryLimit="int32", progressDeadlineSeconds="int32",
        strategy=Struct("DeploymentStrategy", {"type": "text", "rollingUpdate": _ROLLING}),
    ),
    ("StatefulSet", "apps"): _workload("StatefulSet", serviceName="text", revisionHistoryLimit="int32"),
    ("ReplicaSet", "apps"): _workload("ReplicaSet"),
    ("Pod", "v1"): {"metadata": META, "spec": _POD_SPEC, "status": _POD_STATUS},
    ("HorizontalPodAutoscaler", "autoscaling"): {
        "metadata": META, "spec": _HPA_SPEC,
        "status": Struct("HorizontalPodAutoscalerStatus", {**_COUNTS, "conditions": [_CONDITION]}),
    },
    ("Scale", "autoscaling"): {
        "metadata": META, "spec": Struct("ScaleSpec", {"replicas": "int32"}),
        "status": Struct("ScaleStatus", {"replicas": "int32", "selector": "text"}),
    },
    ("ConfigMap", "v1"): {"metadata": META, "data": _TEXTS, "binaryData": _TEXTS, "immutable": "bool"},
    ("Secret", "v1"): {
        "metadata": META, "data": _TEXTS, "stringData": _TEXTS, "immutable": "bool", "type": "text",
    },
    ("Service", "v1"): {"metadata": META, "spec": Struct("ServiceSpec", {
        "selector": _TEXTS, "type": "text", "clusterIP": "text",
        "ports": [Struct("ServicePort", {
            "name": "text", "port": "int32", "targetPort": "int or text", "protocol": "text",
        })],
    })},
    ("Lease", "coordination.k8s.io"): {"metadata": META, "spec": Struct("LeaseSpec", {
        "holderIdentity": "text", "leaseDurationSeconds": "int32", "leaseTransitions": "int32",
        "acquireTime": "time", "renewTime": "time",
    })},
    ("Event", "v1"): _EVENT, ("Event", "events.k8s.io"): _EVENT,
    **{(k, "rbac.authorization.k8s.io"): _ROLE for k in ("Role", "ClusterRole")},
    **{(k, "rbac.authorization.k8s.io"): _BINDING for k in ("RoleBinding", "ClusterRoleBinding")},
    **{(k, "authorization.k8s.io"): _REVIEW for k in (
        "SelfSubjectAccessReview", "SubjectAccessReview", "LocalSubjectAccessReview",
        "SelfSubjectRulesReview",
    )},
    ("Namespace", "v1"): {
        "metadata": META, "spec": Struct("NamespaceSpec", {"finalizers": ["text"]}),
        "status": Struct("NamespaceStatus", {"phase": "text"}),
    },
    ("EndpointSlice", "discovery.k8s.io"): {
        "metadata": META, "addressType": "text",
        "endpoints": [Struct("Endpoint", {"addresses": ["text"], "conditions": Struct("EndpointConditions", {
            "ready": "bool", "serving": "bool", "terminating": "bool",
        })})],
        "ports": [Struct("EndpointPort", {"name": "text", "port": "int32", "protocol": "text"})],
    },
    ("CustomResourceDefinition", "apiextensions.k8s.io"): {
        "metadata": META, "spec": _CRD_SPEC,
        "status": Struct("CustomResourceDefinitionStatus", {"conditions": [_CONDITION]}),
    },
    **{(kind, "metrics.k8s.io"): {
        "metadata": META, "timestamp": "time", "window": "text", "usage": {"": "quantity"},
        "containers": [Struct("ContainerMetrics", {"name": "text", "usage": {"": "quantity"}})],
    } for kind in ("PodMetrics", "NodeMetrics")},
}  # fmt: skip
