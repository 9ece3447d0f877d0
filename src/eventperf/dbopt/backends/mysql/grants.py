"""The least that advice needs on MySQL and MariaDB."""

from __future__ import annotations

import re
from typing import Any

from eventperf.dbopt.schema.ddl import quote


def excess(rows: Any) -> str | None:
    """Return why the connection's user may do more than it should, from its grants."""
    texts = [str(row[0]) for row in rows("SHOW GRANTS")]
    everything = any(re.match(r"GRANT (ALL PRIVILEGES|.*\bSUPER\b).* ON \*\.\*", t) for t in texts)
    return f"{rows('SELECT CURRENT_USER()')[0][0]} may do everything" if everything else None


def grants(rows: Any, role: str) -> list[str]:
    """Return the statements that make the user; a password is left to whoever runs them."""
    text = role.replace("\\", "\\\\").replace("'", "''")
    name, database = f"'{text}'@'%'", quote(rows("SELECT DATABASE()")[0][0], "mysql")
    return [
        f"CREATE USER {name}",
        f"GRANT SELECT, SHOW VIEW ON {database}.* TO {name}",
        f"GRANT SELECT ON performance_schema.* TO {name}",
        f"GRANT SELECT ON mysql.slow_log TO {name}",
    ]
