"""The rules, one file a family; each is one object: its name, its condition, its forms."""

from __future__ import annotations

from typing import Final

from . import aggregates, dates, disjunctions, membership, needless, texts, values
from .rule import Rule

RULES: Final[tuple[Rule, ...]] = (
    *disjunctions.RULES,
    *membership.RULES,
    *aggregates.RULES,
    *needless.RULES,
    *values.RULES,
    *dates.RULES,
    *texts.RULES,
)
SIMPLER: Final = frozenset(rule.name for rule in RULES if rule.is_simpler)

__all__ = ["RULES", "SIMPLER", "Rule"]
