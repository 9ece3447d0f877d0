"""What a cluster does by itself: pods follow replicas, start up, become ready, and use CPU."""

from __future__ import annotations

import asyncio
import functools
import uuid

from .rollout import Counts, conditions, spread, template_hash
from .store import Change, Item, Object, Shelf, Store, now


def deployment(
    name: str,
    *,
    replicas: int = 1,
    labels: dict[str, str] | None = None,
    cpu: str = "100m",
    memory: str = "128Mi",
) -> Object:
    """Return a small, valid Deployment body.

    >>> deployment("web", replicas=3)["spec"]["replicas"]
    3
    """
    labels = labels or {"app": name}
    resources = {"requests": {"cpu": cpu, "memory": memory}}
    containers = [{"name": "main", "image": "registry.invalid/app:1", "resources": resources}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
    }


_SCRAPE_S = 15.0
_HISTORY = 10
_BURST = 500  # pods made or ended at one look, as the ReplicaSet controller does it
_REVISION = "deployment.kubernetes.io/revision"


class Workloads:
    """The controllers of the test cluster: keeps pods and ``status`` in step with ``spec.replicas``.

    Args:
        startup_s: Seconds from a pod's creation until it is ready.
        max_pods: Pods there may be; further ones are refused as a ResourceQuota refuses them.
    """

    def __init__(
        self,
        store: Store,
        *,
        startup_s: float,
        loop: asyncio.AbstractEventLoop,
        usage: str | None = None,
        max_pods: int,
    ) -> None:
        self._store, self._startup_s, self._loop, self._usage = store, startup_s, loop, usage
        self._max_pods = max_pods
        self._due: set[tuple[str, tuple[str, str]]] = set()
        self._short: set[tuple[str, tuple[str, str]]] = set()
        self._pods, self._replica_sets = store.shelves["", "pods"], store.shelves["apps", "replicasets"]
        self._deployments = store.shelves["apps", "deployments"]
        for (group, _), shelf in store.shelves.items():
            if group == "apps":
                shelf.listeners.append(functools.partial(self._soon, shelf))
                for key in list(shelf.items):
                    self._look(shelf.resource.kind, key)
        self._owned: dict[tuple[str, str, str], set[str]] = {}
        for pod in self._pods.items.values():
            self._index(pod.obj, add=True)
        self._pods.listeners.append(self._pod_changed)
        if usage is not None:
            loop.call_soon(self._measure)

    def _soon(self, shelf: Shelf, change: Change) -> None:
        if shelf is self._replica_sets and _owner(change.new)[0]:
            return  # its Deployment looks after it
        meta = change.new.obj["metadata"]
        self._look(shelf.resource.kind, (meta.get("namespace", ""), meta["name"]))

    def _look(self, kind: str, key: tuple[str, str]) -> None:
        """Look at a workload at the loop's next turn; once, however much has happened to it until then."""
        if (kind, key) not in self._due:
            self._due.add((kind, key))
            self._loop.call_soon_threadsafe(self._again, kind, key)

    def _measure(self) -> None:
        """Let ``metrics.k8s.io`` have a new sample of each pod that is ready, as a scrape brings them."""
        with self._store.lock:
            for pod in list(self._pods.items.values()):
                self._sample(pod)
        self._loop.call_later(_SCRAPE_S, self._measure)

    def _sample(self, pod: Item, *, gone: bool = False) -> None:
        if self._usage is None:
            return
        shelf = self._store.shelves["metrics.k8s.io", "pods"]
        meta = pod.obj["metadata"]
        old = shelf.items.get((meta["namespace"], meta["name"]))
        if gone or not _is_ready(pod):
            if old is not None:
                self._store.delete(shelf, old)
            return
        body = pod_metrics(pod.obj, self._usage, "64Mi")
        if old is None:
            self._store.create(shelf, meta["namespace"], body)
        else:
            self._store.replace(shelf, old, body)

    def _pod_changed(self, change: Change) -> None:
        self._sample(change.new, gone=change.type == "DELETED")
        if change.old is not None:
            self._index(change.old.obj, add=False)  # its owners may be others now
        if change.type != "DELETED":
            self._index(change.new.obj, add=True)
        if change.type != "DELETED":
            return
        meta = change.new.obj["metadata"]
        for owner in meta.get("ownerReferences") or ():
            self._look(owner["kind"], (meta["namespace"], owner["name"]))
        for kind, key in tuple(self._short):
            self._look(kind, key)  # there is room again

    def _again(self, kind: str, key: tuple[str, str]) -> None:
        """Look again at the workload whose pods these are; a ReplicaSet is looked at by its Deployment."""
        self._due.discard((kind, key))
        with self._store.lock:
            if kind == "ReplicaSet":
                held = self._replica_sets.items.get(key)
                owner = ("", "") if held is None else _owner(held)
                if owner[0]:
                    kind, key = owner[0], (key[0], owner[1])
            shelves = self._store.shelves.values()
            shelf = next((s for s in shelves if s.resource.kind == kind and s.resource.group == "apps"), None)
            if shelf is not None:
                self._reconcile(shelf, key)

    def _index(self, pod: Object, *, add: bool) -> None:
        meta = pod["metadata"]
        for owner in meta.get("ownerReferences") or ():
            names = self._owned.setdefault((owner["kind"], meta["namespace"], owner["name"]), set())
            (names.add if add else names.discard)(meta["name"])

    def _reconcile(self, shelf: Shelf, key: tuple[str, str]) -> None:
        with self._store.lock:
            owner = shelf.items.get(key)
            if owner is not None and shelf is self._replica_sets and _owner(owner)[0]:
                return
            mine = self._mine(shelf, key)
            if owner is None:
                for held in self._sets(key):
                    self._store.delete(self._replica_sets, held)
                for pod in mine[:_BURST]:
                    self._store.delete(self._pods, pod)
                self._short.discard((shelf.resource.kind, key))
                return  # those that went have it look again for the rest
            if shelf.resource.kind == "Deployment":
                self._roll(owner, key)
            else:
                self._fill(shelf, owner, owner.obj["spec"].get("replicas", 1))
            self._status(shelf, key)

    def _fill(self, shelf: Shelf, owner: Item, want: int) -> None:
        meta = owner.obj["metadata"]
        key = (meta["namespace"], meta["name"])
        mine = self._pods_of(shelf.resource.kind, key)
        room = max(0, self._max_pods - len(self._pods.items))
        missing = want - len(mine)
        for _ in range(min(missing, room, _BURST)):
            self._start(shelf, owner)
        if missing > min(room, _BURST) and room:
            self._look(shelf.resource.kind, key)
        (self._short.add if missing > room else self._short.discard)((shelf.resource.kind, key))
        # like the ReplicaSet controller: unready ones go first, then the cheapest
        for pod in sorted(mine, key=_rank)[: min(_BURST, max(0, -missing))]:
            self._store.delete(self._pods, pod)  # and looks again, if there are more

    def _roll(self, owner: Item, key: tuple[str, str]) -> None:
        """Take one step of a rolling update; each pod that becomes ready or goes brings the next."""
        spec, name = owner.obj["spec"], f"{key[1]}-{template_hash(owner.obj)}"
        new = self._replica_sets.items.get((key[0], name))
        held = self._sets(key)
        last = max((_revision(h) for h in held), default=0)
        if new is None and spec.get("paused") and held:
            new = held[-1]
        elif new is None:
            new = self._new_set(owner, name, last + 1)
        elif new is not None and _revision(new) < last:  # one from before is the newest again
            new = self._note(self._replica_sets, new, str(last + 1))
        self._note(self._deployments, owner, str(_revision(new)))
        old = [h for h in held if h.obj["metadata"]["name"] != new.obj["metadata"]["name"]]
        if spec.get("paused"):
            rest = sum(h.obj["spec"]["replicas"] for h in old)
            grown, left = max(0, spec.get("replicas", 1) - rest), [h.obj["spec"]["replicas"] for h in old]
        else:
            grown, left = spread(spec, self._counts(new), [self._counts(h) for h in old])
        for item, want in zip((new, *old), (grown, *left), strict=True):
            if item.obj["spec"]["replicas"] != want:
                body = {**item.obj, "spec": {**item.obj["spec"], "replicas": want}}
                item = self._store.replace(self._replica_sets, item, body)
            self._fill(self._replica_sets, item, want)
            self._count_set(item)
        for item in [h for h in self._sets(key) if not self._counts(h).wanted][:-_HISTORY]:
            self._store.delete(self._replica_sets, item)

    def _note(self, shelf: Shelf, item: Item, revision: str) -> Item:
        """Write down which revision it is, where ``kubectl rollout history`` and ``undo`` look for it."""
        meta = item.obj["metadata"]
        notes = {**(meta.get("annotations") or {}), _REVISION: revision}
        return self._store.replace(shelf, item, {**item.obj, "metadata": {**meta, "annotations": notes}})

    def _counts(self, held: Item) -> Counts:
        meta = held.obj["metadata"]
        pods = self._pods_of("ReplicaSet", (meta["namespace"], meta["name"]))
        return Counts(held.obj["spec"]["replicas"], sum(_is_ready(p) for p in pods))

    def _new_set(self, owner: Item, name: str, revision: int) -> Item:
        meta, spec = owner.obj["metadata"], owner.obj["spec"]
        label = {"pod-template-hash": name.rpartition("-")[2]}
        labels = {**((spec["template"].get("metadata") or {}).get("labels") or {}), **label}
        reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": meta["name"],
                     "uid": meta["uid"], "controller": True, "blockOwnerDeletion": True}  # fmt: skip
        template = {
            **spec["template"],
            "metadata": {**(spec["template"].get("metadata") or {}), "labels": labels},
        }
        chosen = {**spec["selector"], "matchLabels": {**(spec["selector"].get("matchLabels") or {}), **label}}
        body = {
            "metadata": {
                "name": name, "labels": labels, "ownerReferences": [reference],
                "annotations": {"deployment.kubernetes.io/revision": str(revision)},
            },
            "spec": {"replicas": 0, "selector": chosen, "template": template},
        }  # fmt: skip
        return self._store.create(self._replica_sets, meta["namespace"], body)

    def _count_set(self, item: Item) -> None:
        meta = item.obj["metadata"]
        now_there = self._replica_sets.items[meta["namespace"], meta["name"]]
        pods = self._pods_of("ReplicaSet", (meta["namespace"], meta["name"]))
        ready = sum(_is_ready(p) for p in pods)
        status = {
            "replicas": len(pods), "fullyLabeledReplicas": len(pods), "readyReplicas": ready,
            "availableReplicas": ready, "observedGeneration": now_there.obj["metadata"].get("generation", 1),
        }  # fmt: skip
        failure = self._failure("ReplicaSet", (meta["namespace"], meta["name"]))
        if failure is not None:
            held = (now_there.obj.get("status") or {}).get("conditions") or ()
            status["conditions"] = [next((c for c in held if _alike(c, failure)), failure)]
        self._store.replace(self._replica_sets, now_there, {**now_there.obj, "status": status})

    def _failure(self, kind: str, key: tuple[str, str]) -> Object | None:
        """Return the condition of a workload that has got no more pods, or None."""
        if (kind, key) not in self._short:
            return None
        quota = f"requested: pods=1, used: pods={self._max_pods}, limited: pods={self._max_pods}"
        text = f'pods "{key[1]}-" is forbidden: exceeded quota: max-pods, {quota}'
        return {
            "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": text,
            "lastTransitionTime": now(), "lastUpdateTime": now(),
        }  # fmt: skip

    def _sets(self, key: tuple[str, str]) -> list[Item]:
        """Return the ReplicaSets of a Deployment, the oldest first."""
        found = [
            item
            for (namespace, _), item in self._replica_sets.items.items()
            if namespace == key[0] and _owner(item) == ("Deployment", key[1])
        ]
        return sorted(found, key=_revision)

    def _mine(self, shelf: Shelf, key: tuple[str, str]) -> list[Item]:
        if shelf.resource.kind != "Deployment":
            return self._pods_of(shelf.resource.kind, key)
        pods = self._pods_of("Deployment", key)
        for held in self._sets(key):
            pods += self._pods_of("ReplicaSet", (key[0], held.obj["metadata"]["name"]))
        return pods

    def _pods_of(self, kind: str, key: tuple[str, str]) -> list[Item]:
        names = self._owned.get((kind, *key), ())
        return [self._pods.items[key[0], name] for name in sorted(names)]

    def _start(self, shelf: Shelf, owner: Item) -> None:
        meta, template = owner.obj["metadata"], owner.obj["spec"]["template"]
        reference = {"apiVersion": shelf.resource.api_version, "kind": shelf.resource.kind,
                     "name": meta["name"], "uid": meta["uid"], "controller": True}  # fmt: skip
        body = {
            "metadata": {
                "name": f"{meta['name']}-{uuid.uuid4().hex[:10]}",
                "labels": dict((template.get("metadata") or {}).get("labels") or {}),
                "ownerReferences": [reference],
            },
            "spec": template.get("spec") or {},
            "status": {
                "phase": "Pending",
                "startTime": now(),
                "conditions": [{"type": "Ready", "status": "False"}],
            },
        }
        pod = self._store.create(self._pods, meta["namespace"], body)
        name = pod.obj["metadata"]["name"]
        if self._startup_s > 0:
            self._loop.call_later(
                self._startup_s, self._ready, shelf.resource.kind, (meta["namespace"], name), meta["name"]
            )
        else:
            self._ready(shelf.resource.kind, (meta["namespace"], name), meta["name"])

    def _ready(self, kind: str, key: tuple[str, str], owner: str) -> None:
        with self._store.lock:
            pod = self._pods.items.get(key)
            if pod is None:
                return
            ready = {"type": "Ready", "status": "True", "lastTransitionTime": now()}
            status = {**pod.obj["status"], "phase": "Running", "conditions": [ready]}
            self._store.replace(self._pods, pod, {**pod.obj, "status": status})
            self._look(kind, (key[0], owner))

    def _status(self, shelf: Shelf, key: tuple[str, str]) -> None:
        owner = shelf.items.get(key)
        if owner is None:
            return
        pods = self._mine(shelf, key)
        ready = sum(_is_ready(p) for p in pods)
        status: Object = {"replicas": len(pods), "readyReplicas": ready, "availableReplicas": ready}
        if shelf.resource.kind == "Deployment":
            name = f"{key[1]}-{template_hash(owner.obj)}"
            updated = len(self._pods_of("ReplicaSet", (key[0], name)))
            status["updatedReplicas"] = updated
            status["unavailableReplicas"] = max(0, owner.obj["spec"].get("replicas", 1) - ready)
            status["conditions"] = conditions(owner.obj, len(pods), updated, ready)
            failure = self._failure("ReplicaSet", (key[0], name))
            if failure is not None:
                held = (owner.obj.get("status") or {}).get("conditions") or ()
                status["conditions"].append(next((c for c in held if _alike(c, failure)), failure))
        generation = owner.obj["metadata"].get("generation", 1)
        status = {**(owner.obj.get("status") or {}), **status, "observedGeneration": generation}
        self._store.replace(shelf, owner, {**owner.obj, "status": status})


def _alike(one: Object, other: Object) -> bool:
    return all(one.get(part) == other.get(part) for part in ("type", "status", "reason", "message"))


def _revision(held: Item) -> int:
    text = str((held.obj["metadata"].get("annotations") or {}).get(_REVISION, ""))
    return int(text) if text.isascii() and text.isdecimal() else 0


def _owner(item: Item) -> tuple[str, str]:
    """Return kind and name of what controls it."""
    for owner in item.obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            return owner["kind"], owner["name"]
    return "", ""


def _rank(pod: Item) -> tuple[bool, int]:
    annotations = pod.obj["metadata"].get("annotations") or {}
    try:
        cost = int(annotations.get("controller.kubernetes.io/pod-deletion-cost", 0))
    except ValueError:  # as the real one: what is no number is no cost
        cost = 0
    return _is_ready(pod), cost


def _is_ready(pod: Item) -> bool:
    conditions = (pod.obj.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def ready_pod(name: str, owner: Object, *, since: str = "2020-01-01T00:00:00Z") -> Object:
    """Return a pod of ``owner``'s template that has been ready since long ago."""
    template = owner["spec"]["template"]
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": since}
    return {
        "metadata": {"name": name, "labels": template["metadata"]["labels"]},
        "spec": template["spec"],
        "status": {"phase": "Running", "startTime": since, "conditions": [ready]},
    }


def pod_metrics(pod: Object, cpu: str, memory: str, window_s: float = 15.0) -> Object:
    """Return the ``metrics.k8s.io`` object for ``pod``."""
    containers = [
        {"name": c["name"], "usage": {"cpu": cpu, "memory": memory}}
        for c in (pod.get("spec") or {}).get("containers") or ()
    ]
    meta = {k: pod["metadata"][k] for k in ("name", "labels") if k in pod["metadata"]}
    return {"metadata": meta, "timestamp": now(), "window": f"{window_s:g}s", "containers": containers}
