"""Which recorded statements may be run on SQLite."""

from __future__ import annotations

from typing import Any, Final

from eventperf.dbopt.statements.calls import calls
from eventperf.dbopt.statements.harmless import listed
from eventperf.dbopt.statements.lex import tokens

_VIEWS: Final = (
    "SELECT name, sql FROM sqlite_master WHERE type = 'view' "
    "UNION ALL SELECT name, sql FROM sqlite_temp_master WHERE type = 'view'"
)


def harm(db: Any, sql: str) -> str | None:
    """Return why a statement is not run; ``None`` when it may be."""
    reason = listed([sql], "sqlite")
    if reason is not None:
        return reason
    views = [(name.lower(), text) for name, text in db.execute(_VIEWS).fetchall()]
    words, known = {w.lower() for w in calls(sql, "sqlite").words}, set[str]()
    while fresh := [(n, t) for n, t in views if n in words and t not in known]:
        for _, text in fresh:
            known.add(text)
            body = _body(text)
            reason = listed([body], "sqlite")
            if reason is not None:
                return f"of a view that it reads: {reason}"
            words |= {w.lower() for w in calls(body, "sqlite").words}
    return None


def _body(text: str) -> str:
    """Return the query of ``CREATE VIEW name(columns) AS query``."""
    parts = tokens(text, "sqlite")
    at = next((n for n, t in enumerate(parts) if t.kind == "word" and t.text.lower() == "as"), 0)
    return "".join(t.text for t in parts[at + 1 :])
