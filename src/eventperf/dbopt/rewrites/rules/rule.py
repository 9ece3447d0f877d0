"""What a rule is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from eventperf.dbopt.rewrites.tree import Form, Node
from eventperf.dbopt.schema.model import Schema


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to write statements better.

    Attributes:
        name: What it is called in advice.
        condition: When both forms give the same rows, in words.
        forms: Yields every form that it knows for a statement; checks the condition.
        is_simpler: Its forms are worth having at the same price: they are shorter, or let an index serve.
    """

    name: str
    condition: str
    forms: Callable[[Any, Schema], Iterator[Form]]
    is_simpler: bool = False


def replacing(better: Node) -> Callable[[Node], None]:
    """Return a change that puts ``better`` in the place of a node."""

    def change(node: Node) -> None:
        node.replace(better)

    return change
