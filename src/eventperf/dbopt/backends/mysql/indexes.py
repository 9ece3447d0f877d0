"""The indexes that information_schema.statistics tells of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from eventperf.dbopt.schema.model import ExistingIndex, IndexSpec, Key


def found_indexes(rows: Iterable[Any], hidden: str) -> dict[str, list[ExistingIndex]]:
    """Return indexes by table; ``hidden`` is what the last column says of one that no plan may use."""
    parts: dict[tuple[str, str], list[Any]] = {}
    for row in rows:
        parts.setdefault((row[0], row[1]), []).append(row)
    out: dict[str, list[ExistingIndex]] = {}
    for (owner, name), group in parts.items():
        keys = tuple(Key(r[3] or "expression", r[4] == "D", r[3] is None, None, r[5]) for r in group)
        unique = not group[0][2]
        method = "btree" if group[0][6] == "BTREE" else str(group[0][6]).lower()
        out.setdefault(owner, []).append(
            ExistingIndex(
                name=name,
                spec=IndexSpec(owner, keys, method=method),
                unique=unique,
                primary=name == "PRIMARY",
                constraint=unique,
                # Hidden by a revert that was killed before it could drop it.
                valid=not (name.startswith("ix_ep_") and group[0][7] == hidden),
            )
        )
    return out
