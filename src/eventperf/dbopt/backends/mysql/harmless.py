"""Which recorded statements may be run on MySQL and MariaDB."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from eventperf.dbopt.statements.calls import calls
from eventperf.dbopt.statements.harmless import listed

_VIEWS: Final = (
    "SELECT table_name, view_definition FROM information_schema.views "
    "WHERE table_schema NOT IN ('sys', 'mysql', 'performance_schema', 'information_schema')"
)
_FUNCTIONS: Final = "SELECT routine_name FROM information_schema.routines WHERE routine_schema <> 'sys'"


def harm(rows: Callable[[str], list[Any]], sql: str) -> str | None:
    """Return why a statement is not run; ``None`` when it may be.

    Args:
        rows: Asks the server.
        sql: The statement.
    """
    own = {str(row[0]).lower() for row in rows(_FUNCTIONS)}
    views = [(str(name).lower(), str(text or "")) for name, text in rows(_VIEWS)]
    known, fresh, words = set[str](), [sql], set[str]()
    while fresh:
        reason = listed(fresh, "mysql")
        if reason is not None:
            return f"of a view that it reads: {reason}" if known else reason
        known.update(fresh)
        found = [calls(t, "mysql") for t in fresh]
        if theirs := own & {n.lower() for f in found for n in f.called}:
            return f"it calls {min(theirs)}, which is not a function of the server itself"
        words |= {w.lower() for f in found for w in f.words}
        if "sys" in words:
            return "it reads the schema sys, whose views call functions"
        fresh = [t for n, t in views if n in words and t not in known]
    return None
