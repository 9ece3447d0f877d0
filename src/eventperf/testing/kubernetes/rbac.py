"""Who may do what: rules of the roles bound to a user, and the reviews that answer ``kubectl auth can-i``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .resources import REVIEWS
from .store import ApiError, Object, Store

Rule = Mapping[str, Any]
_RBAC = "rbac.authorization.k8s.io"
_ALL: tuple[Rule, ...] = (
    {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
    {"nonResourceURLs": ["*"], "verbs": ["*"]},
)


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks: a user with groups; without a name the one who may do everything."""

    name: str = ""
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to do."""

    verb: str
    group: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


def person(headers: Mapping[str, str]) -> Person:
    """Return whom a request speaks for, as ``kubectl --as`` says it."""
    name = headers.get("impersonate-user", "")
    if not name:
        return Person()
    groups = [g.strip() for g in headers.get("impersonate-group", "").split(",") if g.strip()]
    return Person(name, (*groups, *_groups(name)))


def _groups(name: str) -> tuple[str, ...]:
    if name.startswith("system:serviceaccount:"):
        namespace = name.split(":")[2]
        groups: tuple[str, ...] = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
        return (*groups, "system:authenticated")
    return ("system:authenticated",)


def allows(rules: Iterable[Rule], wish: Wish) -> bool:
    """Tell whether one of the rules allows it."""
    return any(_fits(rule, wish) for rule in rules)


def _fits(rule: Rule, wish: Wish) -> bool:
    if not _has(rule.get("verbs"), wish.verb):
        return False
    if wish.path:
        urls = rule.get("nonResourceURLs") or ()
        return any(u in ("*", wish.path) or (u[-1:] == "*" and wish.path.startswith(u[:-1])) for u in urls)
    names, (_, _, part) = rule.get("resourceNames"), wish.resource.partition("/")
    resources = rule.get("resources")
    return (
        _has(rule.get("apiGroups"), wish.group)
        and (_has(resources, wish.resource) or (bool(part) and f"*/{part}" in (resources or ())))
        and (not names or wish.name in names)
    )


def _has(allowed: Iterable[str] | None, value: str) -> bool:
    return any(a in (value, "*") for a in allowed or ())


def rules_of(store: Store, who: Person, namespace: str) -> list[Rule]:
    """Return the rules of the roles bound to somebody, in a namespace and everywhere."""
    if not who.name or "system:masters" in who.groups:
        return list(_ALL)
    found: list[Rule] = []
    for plural in ("clusterrolebindings", "rolebindings"):
        for (place, _), item in store.shelves[_RBAC, plural].items.items():
            if place in ("", namespace) and any(_is(s, who, place) for s in item.obj.get("subjects") or ()):
                found += _role(store, item.obj["roleRef"], place)
    return found


def _is(subject: Object, who: Person, place: str) -> bool:
    kind, name = subject.get("kind"), subject.get("name", "")
    if kind == "ServiceAccount":
        return who.name == f"system:serviceaccount:{subject.get('namespace') or place}:{name}"
    return name == who.name if kind == "User" else name in who.groups


def _role(store: Store, reference: Object, place: str) -> list[Rule]:
    plural = "roles" if reference["kind"] == "Role" else "clusterroles"
    key = (place if plural == "roles" else "", reference["name"])
    item = store.shelves[_RBAC, plural].items.get(key)
    return list(item.obj.get("rules") or ()) if item is not None else []


def review(
    store: Store, plural: str, body: Object, who: Person, enforced: list[Rule] | None, namespace: str
) -> Object:
    """Return the review with its ``status``.

    Args:
        enforced: The only rules for who may do everything else, where the test says so.
    """
    spec = body.get("spec") or {}
    if not plural.startswith("self"):
        who = Person(spec.get("user") or "?", (*(spec.get("groups") or ()), *_groups(spec.get("user") or "")))
    asked = spec.get("resourceAttributes") or {}
    place = spec.get("namespace") or asked.get("namespace") or namespace
    rules = enforced if enforced is not None and not who.name else rules_of(store, who, place)
    if plural == "selfsubjectrulesreviews":
        if not spec.get("namespace"):
            raise ApiError(400, "BadRequest", "no namespace on request")
        status: Object = {
            "resourceRules": [r for r in rules if "resources" in r],
            "nonResourceRules": [r for r in rules if "nonResourceURLs" in r],
            "incomplete": False,
        }
        return {**body, "status": status}
    other = spec.get("nonResourceAttributes") or {}
    if bool(asked) == bool(other):
        text = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        raise ApiError(422, "Invalid", f"{REVIEWS[plural]} is invalid: spec: Invalid value: {text}")
    part = f"/{asked['subresource']}" if asked.get("subresource") else ""
    wish = Wish(
        asked.get("verb") or other.get("verb", ""), asked.get("group", ""),
        f"{asked.get('resource', '')}{part}", place, asked.get("name", ""), other.get("path", ""),
    )  # fmt: skip
    is_allowed = allows(rules, wish)
    return {**body, "status": {"allowed": is_allowed} if is_allowed else {"allowed": False, "reason": ""}}
