"""Patterns that no index can serve, found in texts alone; for CI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from sqlglot import exp

from eventperf._core.errors import ConfigurationError
from eventperf.dbopt.statements.fingerprint import Fingerprint, is_setting, named, parse
from eventperf.dbopt.statements.lex import bind, split_lines
from eventperf.dbopt.statements.workload import Workload, pieces

_LONG: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One pattern in one statement; ``key`` is stable across literals and line moves."""

    rule: str
    fingerprint: str
    statement: str
    message: str

    @property
    def key(self) -> str:
        """What a baseline file holds."""
        return f"{self.rule} {self.fingerprint}"

    def to_dict(self) -> dict[str, str]:
        """Return plain data for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def lint_workload(workload: Workload) -> list[Finding]:
    """Return findings of all rules; a text that does not parse is a finding of its own."""
    out: list[Finding] = []
    for statement in workload:
        tree = parse(statement.sql, workload.dialect).tree
        out += _findings(statement.fingerprint, tree, statement.error)
    return out


lint = lint_workload


def lint_file(path: str | Path, dialect: str = "sqlite") -> tuple[list[Finding], int]:
    """Return findings of all rules about a script of any size, and how many statements were looked at.

    It is read piece by piece; statements that differ in their values only are looked at once.

    Args:
        path: The script.
        dialect: ``"sqlite"``, ``"postgres"`` or ``"mysql"``.

    Raises:
        ConfigurationError: It cannot be read.
    """
    out: list[Finding] = []
    seen: set[str] = set()
    for part in split_lines(pieces(path), dialect):
        name = named(part, dialect)
        if name.id in seen or is_setting(part):
            continue
        seen.add(name.id)
        # Of a long text the form is read: lists of any length are one value there.
        sql = "".join(t.text for t in part).strip()
        bare = sql if len(sql) < _LONG else name.text.replace("?", ":x")
        parsed = parse.__wrapped__(bind(bare, None, dialect).sql, dialect)
        out += _findings(name, parsed.tree, parsed.error)
    return out, len(seen)


def _findings(name: Fingerprint, tree: Any, error: str | None) -> list[Finding]:
    hits = [("unparsable", error or "cannot be parsed")] if tree is None else _hits(tree)
    return [
        Finding(rule=rule, fingerprint=name.id, statement=name.text, message=message)
        for rule, message in hits
    ]


def read_baseline(path: str | Path) -> frozenset[str]:
    """Return the keys of known findings."""
    try:
        return frozenset(Path(path).read_text(encoding="utf-8").splitlines())
    except OSError as error:
        raise ConfigurationError("--baseline", str(path), f"a readable file ({error.strerror})") from error


def _hits(tree: Any) -> list[tuple[str, str]]:
    """Return each rule that a statement meets, in their order, with the first place's reason; one walk."""
    found: dict[str, str] = {}
    for node in tree.walk():
        kind: Any = type(node)
        for rule in _looked_for(kind):
            if rule not in found:
                message = _RULES[rule](node)
                if message:
                    found[rule] = message
    return [(rule, found[rule]) for rule in _RULES if rule in found]


@cache
def _looked_for(kind: Any) -> tuple[str, ...]:
    return tuple(rule for rule, kinds in _ABOUT.items() if issubclass(kind, kinds))


_COMPARISONS: Final = (exp.EQ, exp.GT, exp.GTE, exp.LT, exp.LTE)


def _wrapped(node: Any) -> str | None:
    if isinstance(node, _COMPARISONS) and node.find_ancestor(exp.Where) is not None:
        for side in (node.left, node.right):
            wrapped = isinstance(side, (exp.Func, exp.Cast)) and side.find(exp.Column) is not None
            if wrapped and side.find(exp.Select, exp.AggFunc) is None:
                return "a function around a column hides it from a plain index: compare the bare column"
    return None


def _arithmetic(node: Any) -> str | None:
    if isinstance(node, _COMPARISONS) and node.find_ancestor(exp.Where) is not None:
        for side, other in ((node.left, node.right), (node.right, node.left)):
            sums = (exp.Add, exp.Sub, exp.Mul, exp.Div)
            if (
                isinstance(side, sums)
                and side.find(exp.Column) is not None
                and other.find(exp.Column) is None
            ):
                return "arithmetic on a column hides it from an index: move it to the other side"
    return None


def _infix(node: Any) -> str | None:
    if isinstance(node, (exp.Like, exp.ILike)):
        pattern = node.expression
        if isinstance(pattern, exp.Literal) and pattern.is_string and pattern.name[:1] in ("%", "_"):
            return "a pattern that begins with a wildcard reads every row: use full-text or trigram search"
    return None


def _not_in(node: Any) -> str | None:
    if (
        isinstance(node, exp.Not)
        and isinstance(node.this, exp.In)
        and node.this.args.get("query") is not None
    ):
        return "NOT IN (SELECT ...) is empty when the subquery holds one NULL: use NOT EXISTS"
    return None


def _offset(node: Any) -> str | None:
    if isinstance(node, exp.Offset):
        value = node.expression
        if not (isinstance(value, exp.Literal) and value.name == "0"):
            return "OFFSET reads and discards what it skips: page by the last key seen"
    return None


def _star(node: Any) -> str | None:
    star = isinstance(node, exp.Select) and any(isinstance(e, exp.Star) for e in node.expressions)
    if star and not isinstance(node.parent, exp.Exists):
        return "SELECT * moves columns nobody asked for, and no covering index can help"
    return None


def _unbounded(node: Any) -> str | None:
    if isinstance(node, (exp.Update, exp.Delete)) and node.args.get("where") is None:
        return "changes every row of the table: add WHERE"
    return None


def _random(node: Any) -> str | None:
    if isinstance(node, exp.Ordered) and isinstance(node.this, exp.Rand):
        return "ORDER BY random() sorts the whole table: pick keys in the application"
    return None


_RULES: Final[dict[str, Callable[[Any], str | None]]] = {
    "wrapped-column": _wrapped,
    "column-arithmetic": _arithmetic,
    "leading-wildcard": _infix,
    "not-in-subquery": _not_in,
    "offset": _offset,
    "select-star": _star,
    "unbounded-change": _unbounded,
    "order-by-random": _random,
}
#: What each rule looks at: most parts of a statement are none of it.
_ABOUT: Final[dict[str, tuple[type, ...]]] = {
    "wrapped-column": _COMPARISONS,
    "column-arithmetic": _COMPARISONS,
    "leading-wildcard": (exp.Like, exp.ILike),
    "not-in-subquery": (exp.Not,),
    "offset": (exp.Offset,),
    "select-star": (exp.Select,),
    "unbounded-change": (exp.Update, exp.Delete),
    "order-by-random": (exp.Ordered,),
}
