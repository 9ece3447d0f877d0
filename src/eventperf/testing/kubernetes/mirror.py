"""Events are one collection with two APIs: what is written through the one is read through the other."""

from __future__ import annotations

import functools

from .store import Change, Object, Shelf, Store

# field in events.k8s.io/v1, field in the core API
_FIELDS = (
    ("regarding", "involvedObject"),
    ("related", "related"),
    ("note", "message"),
    ("reason", "reason"),
    ("type", "type"),
    ("action", "action"),
    ("eventTime", "eventTime"),
    ("series", "series"),
    ("reportingController", "reportingComponent"),
    ("reportingInstance", "reportingInstance"),
    ("deprecatedSource", "source"),
    ("deprecatedCount", "count"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
)


def mirror_events(store: Store) -> None:
    """Let the two shelves of events follow each other."""
    new, core = store.shelves["events.k8s.io", "events"], store.shelves["", "events"]
    new.listeners.append(functools.partial(_follow, store, core, 1))
    core.listeners.append(functools.partial(_follow, store, new, 0))


def _follow(store: Store, other: Shelf, side: int, change: Change) -> None:
    if not change.is_mirrored:
        store.mirror(other, change, _seen_from(other, side, change.new.obj))


def _seen_from(other: Shelf, side: int, event: Object) -> Object:
    head = {
        "kind": "Event",
        "apiVersion": other.resource.api_version,
        "metadata": event["metadata"],
    }
    fields = {pair[side]: event[pair[1 - side]] for pair in _FIELDS if pair[1 - side] in event}
    if side == 1 and "source" not in fields and "reportingComponent" in fields:
        fields["source"] = {"component": fields["reportingComponent"]}
    return {**head, **fields}
