"""Advice as its users handle it: printed, stored, read back, written as a script, a page or a migration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from eventperf._core.errors import ConfigurationError
from eventperf._core.files import private

from .errors import AdviceMismatch
from .findings import DropAdvice, Findings, IndexAdvice, PartitionAdvice, RewriteAdvice, Served
from .output.alembic import alembic
from .output.django import django
from .output.page import advice_page
from .output.report import text_table
from .output.script import script
from .schema.ddl import create_index_sql, quote, quote_table
from .schema.engines import ENGINES
from .schema.model import IndexSpec
from .schema.vetting import vetted
from .statements.lex import without_values

FORMAT = "eventperf-advice-1"


@dataclass(slots=True, kw_only=True)
class Advice(Findings):
    """Everything advised for one workload; print it for a table."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; :meth:`from_dict` reads it back. No parameter values are in it."""
        out: dict[str, Any] = {"format": FORMAT}
        for name in ("dialect", "proof", "gain", "explains", "seconds", "is_complete", "since", "statements"):
            out[name] = getattr(self, name)
        out["indexes"] = [_index_dict(i) for i in self.indexes]
        for name in ("drops", "rewrites", "partitions"):
            out[name] = [asdict(item) for item in getattr(self, name)]
        for row in out["rewrites"]:
            row["after"] = row["after"] and without_values(row["after"], self.dialect)
        out["level"], out["copied"], out["trial"] = self.level, list(self.copied), self.trial
        out["tables"] = {name: list(facts) for name, facts in self.tables.items()}
        out["unserved"], out["warnings"] = dict(self.unserved), list(self.warnings)
        return out

    def save(self, path: str | Path) -> None:
        """Write :meth:`to_dict` as JSON, for review and a later ``apply``."""
        with open(path, "w", encoding="utf-8", opener=private) as file:
            file.write(json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Advice:
        """Read a plan file.

        Raises:
            ConfigurationError: No such file.
            AdviceMismatch: Not a plan file of this library.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigurationError("path", str(path), f"a readable plan file ({error.strerror})") from error
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise AdviceMismatch(f"{path} is not JSON: {error}") from error
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Advice:
        """Build from :meth:`to_dict`'s data.

        A plan is data from outside: its statements are written anew from what they are said to do.

        Raises:
            AdviceMismatch: Not a plan, or one with a part that this library does not understand.
        """
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise AdviceMismatch(
                f"not a plan of format {FORMAT}: write one with `eventperf db advise --json`"
            )
        known = ("dialect", "proof", "gain", "explains", "seconds", "is_complete", "since", "statements")
        try:
            out = cls(**{name: data[name] for name in known})
            out.indexes = [_index_from(row, out.dialect) for row in data["indexes"]]
            out.drops = [_drop_from(row, out.dialect) for row in data["drops"]]
            out.rewrites = [RewriteAdvice(**{**r, "callers": tuple(r["callers"])}) for r in data["rewrites"]]
            out.partitions = [_partition_from(row) for row in data["partitions"]]
            out.level, out.copied = data.get("level", "estimated"), list(data.get("copied", ()))
            out.trial = data.get("trial", "")
            sizes = data.get("tables", {}).items()
            out.tables = {str(name): (int(rows), int(held)) for name, (rows, held) in sizes}
            out.unserved, out.warnings = dict(data.get("unserved", {})), list(data.get("warnings", ()))
            _check_types(out)
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            if isinstance(error, AdviceMismatch):
                raise
            raise AdviceMismatch(f"the plan is incomplete, or not one: {error}") from error
        return out

    def to_sql(self, *, drops: bool = False) -> str:
        """Return a script for people who apply by hand; drops are comments unless asked for."""
        return script(self, drops=drops)

    def to_html(self) -> str:
        """Return one self-contained page."""
        return advice_page(self)

    def to_migration(self, kind: Literal["django", "alembic"], **options: Any) -> str:
        """Return a migration file for Django or Alembic.

        Args:
            kind: Which tool.
            options: ``app_label``, ``dependency``, ``models`` (table to model name) and ``fields`` (table and
                column to field name) for Django, which ``eventperf.contrib.django.migration_options`` finds;
                ``revision`` and ``down_revision`` for Alembic.
        """
        if kind == "django":
            return django(self, **options)
        if kind == "alembic":
            return alembic(self, **options)
        raise ConfigurationError("kind", kind, "django or alembic")

    def __str__(self) -> str:
        return text_table(self)


_NUMBER = (int, float)
_PLAIN: Mapping[str, tuple[type, ...]] = {"str": (str,), "int": _NUMBER, "float": _NUMBER, "bool": (bool,)}


def _check_types(item: Any) -> None:
    """Refuse a part of a plan whose fields are not of their types: reports and scripts rely on them."""
    for each in fields(item):
        value, kind = getattr(item, each.name), str(each.type)
        if (kind.startswith("tuple[") and isinstance(value, tuple)) or kind.startswith("list["):
            for one in value:
                if is_dataclass(one):
                    _check_types(one)
                elif kind.endswith(("[str]", "[str, ...]")) and not isinstance(one, str):
                    raise TypeError(f"{each.name} holds {one!r:.80}, no text")
        if kind == "dict[str, str]" and not all(isinstance(t, str) for pair in value.items() for t in pair):
            raise TypeError(f"{each.name} holds what is no text")
        is_word = kind == "Level" or kind.startswith("Literal[")
        wanted = _PLAIN.get("str" if is_word else kind.removesuffix(" | None"))
        if value is None and kind.endswith("None"):
            continue
        if wanted is not None and not (
            isinstance(value, wanted) and (type(value) is bool) == (wanted == (bool,))
        ):
            raise TypeError(f"{each.name} is {value!r:.80}, no {kind}")


def _index_dict(index: IndexAdvice) -> dict[str, Any]:
    out = {
        name: getattr(index, name)
        for name in ("name", "sql", "reason", "gain", "size_bytes", "write_cost", "proof", "level", "speedup")
    }
    out["spec"] = index.spec.to_dict()
    out["serves"] = [asdict(s) for s in index.serves]
    out["rejected"] = [list(r) for r in index.rejected]
    return out


def _index_from(row: Mapping[str, Any], dialect: str) -> IndexAdvice:
    serves = tuple(Served(**{**s, "callers": tuple(s["callers"])}) for s in row["serves"])
    spec = vetted(IndexSpec.from_dict(row["spec"]), dialect)
    return IndexAdvice(
        **{
            **row,
            "spec": spec,
            "sql": create_index_sql(spec, row["name"], dialect, concurrently=True),
            "serves": serves,
            "rejected": tuple((a, b) for a, b in row["rejected"]),
        }
    )


def _drop_from(row: Mapping[str, Any], dialect: str) -> DropAdvice:
    names = {"index": quote(row["name"], dialect), "table": quote_table(row["table"], dialect)}
    return DropAdvice(**{**row, "sql": ENGINES[dialect].drop_index.format(**names)})


def _partition_from(row: Mapping[str, Any]) -> PartitionAdvice:
    return PartitionAdvice(
        **{
            **row,
            "ddl": tuple(row["ddl"]),
            "prunes": tuple((a, b) for a, b in row["prunes"]),
            "reads_all": tuple(row["reads_all"]),
            "breaks": tuple(row["breaks"]),
        }
    )


__all__ = [
    "Advice",
    "DropAdvice",
    "IndexAdvice",
    "PartitionAdvice",
    "RewriteAdvice",
    "Served",
]
