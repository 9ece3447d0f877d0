"""What ties a subquery to the query around it."""

from __future__ import annotations

from typing import NamedTuple

from sqlglot import exp

from eventperf.dbopt.rewrites.tree import Node, Owner, is_local, owner, sources, table_of, where
from eventperf.dbopt.rewrites.trust import same_kind
from eventperf.dbopt.schema.model import Schema


class Link(NamedTuple):
    """One condition that ties a subquery to the query around it: ``inner = outer``."""

    inner: Node
    outer: Node
    inside: Owner
    outside: Owner


def links(inner: Node, schema: Schema) -> tuple[list[Link], list[Node]] | None:
    """Split a subquery's conditions into equalities with the query around it, and its own.

    Returns:
        ``None`` when it depends on the outside in any other way, or is not tied to it at all.
    """
    outer = inner.find_ancestor(exp.Select)
    if any(table_of(source, schema) is None for _, source, _ in sources(inner)):
        return None
    tied: list[Link] = []
    own: list[Node] = []
    for term in where(inner):
        if is_local(term, inner, schema):
            own.append(term)
            continue
        left, right = (term.left.unnest(), term.right.unnest()) if isinstance(term, exp.EQ) else (None, None)
        if not isinstance(left, exp.Column) or not isinstance(right, exp.Column):
            return None
        one, two = owner(left, schema), owner(right, schema)
        if one is None or two is None:
            return None
        if one.select is not inner:
            left, right, one, two = right, left, two, one
        if one.select is not inner or two.select is not outer or not same_kind(one, two, schema):
            return None
        tied.append(Link(left, right, one, two))
    elsewhere = [v for k, v in inner.args.items() if k not in ("where", "expressions")]
    for part in elsewhere:
        for node in part if isinstance(part, list) else [part]:
            if hasattr(node, "find_all") and not is_local(node, inner, schema):
                return None
    return (tied, own) if tied else None
