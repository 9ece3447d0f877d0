"""Server-side apply: what becomes of an object, and of the list of who manages it. Pure.

Source: Kubernetes' documentation of server-side apply; structured-merge-diff.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .fields import Fields, changed, fields_of, merged, packed, spelled, unpacked, value_at, without
from .store import ApiError, Object, now

BEFORE = "before-first-apply"


@dataclass(frozen=True, slots=True)
class Entry:
    """One manager's fields."""

    manager: str
    operation: str
    subresource: str
    version: str
    time: str
    fields: Fields

    @property
    def key(self) -> tuple[str, str, str]:
        return self.manager, self.operation, self.subresource

    def __str__(self) -> str:
        part = f' with subresource "{self.subresource}"' if self.subresource else ""
        return f'"{self.manager}"{part}' + (f" using {self.version}" if self.operation == "Update" else "")


def entries_of(obj: Object) -> list[Entry]:
    """Read ``metadata.managedFields``."""
    return [
        Entry(
            e.get("manager", ""), e.get("operation", "Update"), e.get("subresource", ""),
            e.get("apiVersion", ""), e.get("time", ""), unpacked(e.get("fieldsV1") or {}),
        )
        for e in obj["metadata"].get("managedFields") or ()
    ]  # fmt: skip


def managed(obj: Object, entries: list[Entry]) -> Object:
    """Return ``obj`` with what ``entries`` say; managers of nothing are left out."""
    rows = []
    for entry in entries:
        if entry.fields:
            row = {
                "manager": entry.manager, "operation": entry.operation, "apiVersion": entry.version,
                "time": entry.time, "fieldsType": "FieldsV1", "fieldsV1": packed(entry.fields),
            }  # fmt: skip
            rows.append({**row, "subresource": entry.subresource} if entry.subresource else row)
    meta = {k: v for k, v in obj["metadata"].items() if k != "managedFields"}
    return {**obj, "metadata": {**meta, "managedFields": rows} if rows else meta}


def updated(old: Object | None, new: Object, manager: str, version: str, subresource: str = "") -> Object:
    """Return ``new`` with what ``manager`` has changed as its own; who managed it before manages it no more.

    An object that nobody manages stays so: the server begins with a creation or the first apply. A client may
    write the list itself, as kubectl does when it moves from one kind of apply to the other.
    """
    kept_by_client = bool((new.get("metadata") or {}).get("managedFields"))
    if old is not None and not kept_by_client and not old["metadata"].get("managedFields"):
        return new
    differs, gone = changed({} if old is None else old, new)
    entries = [] if old is None else entries_of(new if kept_by_client else old)
    if not differs and not gone:
        return managed(new, entries)
    own = Entry(manager, "Update", subresource, version, now(), differs)
    kept = []
    for entry in entries:
        if entry.key == own.key:
            own = replace(own, fields=(entry.fields | differs) - gone)
        else:
            kept.append(replace(entry, fields=entry.fields - differs - gone))
    return managed(new, [*kept, own])


def applied(
    live: Object | None, wanted: Object, manager: str, version: str, *, force: bool, has_status: bool
) -> Object:
    """Return what the object is after ``manager`` has applied ``wanted``.

    Raises:
        ApiError: 409, others manage fields that it would change, and ``force`` was not asked for.
    """
    if has_status:  # a part of its own
        wanted = {key: value for key, value in wanted.items() if key != "status"}
    own = Entry(manager, "Apply", "", version, now(), fields_of(wanted))
    if live is None:
        return managed(wanted, [own])
    entries = entries_of(live)
    if not entries:
        entries = [Entry(BEFORE, "Update", "", version, now(), fields_of(live))]
    before = next((e for e in entries if e.key == own.key), None)
    others = [e for e in entries if e.key != own.key]
    differs = frozenset(p for p in own.fields if value_at(live, p) != value_at(wanted, p))
    clashes = [(other, path) for other in others for path in sorted(other.fields & differs)]
    if clashes and not force:
        raise _conflict(clashes)
    others = [replace(e, fields=e.fields - differs) for e in others]
    held = frozenset[tuple[str, ...]]().union(*(e.fields for e in others))
    dropped = frozenset() if before is None else before.fields - own.fields - held
    # what holds something that somebody has a part in stays
    inside = {path[:end] for path in held | own.fields for end in range(1, len(path))}
    left = [p for p in dropped if (p[:-1] if p[-1] == "." else p) not in inside]
    result = without(merged(live, wanted), left)
    if before is not None and before.fields == own.fields and result == live:
        own = before  # nothing happened, and the time says so
    return managed(result, [*others, own])


def _conflict(clashes: list[tuple[Entry, tuple[str, ...]]]) -> ApiError:
    said = {f"conflict with {entry}": list[str]() for entry, _ in clashes}
    for entry, path in clashes:
        said[f"conflict with {entry}"].append(spelled(path))
    number = len(clashes)
    if number == 1:
        text = f"Apply failed with 1 conflict: {next(iter(said))}: {said.popitem()[1][0]}"
    else:
        lines = [f"{head}:\n" + "\n".join(f"- {p}" for p in paths) for head, paths in said.items()]
        text = f"Apply failed with {number} conflicts: " + "\n".join(lines)
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {entry}", "field": spelled(path)}
        for entry, path in clashes
    ]
    return ApiError(409, "Conflict", text, details={"causes": causes})
