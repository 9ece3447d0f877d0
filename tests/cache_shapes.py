"""Classes that cache tests store, importable by name."""

from __future__ import annotations

from dataclasses import dataclass, make_dataclass


@dataclass
class Seat:
    row: int
    place: str


def make_other() -> type:
    """Return a later release's ``Seat``, with another field."""
    fields = [("row", int), ("place", str), ("price", int)]
    return make_dataclass("Seat", fields, namespace={"__module__": __name__})
