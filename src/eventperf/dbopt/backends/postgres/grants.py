"""The least that advice needs on PostgreSQL."""

from __future__ import annotations

from typing import Any, Final

from eventperf.dbopt.schema.ddl import quote

_WHO: Final = "SELECT current_user, current_setting('is_superuser'), current_database()"
_SCHEMAS: Final = """
SELECT n.nspname FROM pg_namespace n
WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' ORDER BY n.nspname
"""
#: A role of every server from 14 on that reads everything and may nothing else.
_LESSER: Final = """
SELECT 1 FROM pg_roles WHERE rolname = 'pg_read_all_data' AND rolname <> current_user
AND pg_has_role(current_user, oid, 'MEMBER') AND current_setting('is_superuser') = 'on'
"""
_PLACES: Final = """
SELECT set_config('search_path', coalesce(string_agg(quote_ident(s), ', '), ''), true)
FROM unnest(current_schemas(false)) s
"""


def lessen(db: Any) -> None:
    """Let what follows in this transaction read, and nothing more: no writes, no rights of a superuser.

    The second wall: what a statement calls is looked at before (``harmless.harm``). Rules that hide rows are
    kept, and texts are read as they were then.
    """
    db.execute("SET TRANSACTION READ ONLY")
    db.execute("SET LOCAL standard_conforming_strings = on")
    if db.execute(_LESSER).fetchone() is not None:
        db.execute(_PLACES)  # "$user" stays who it was
        db.execute("SET LOCAL row_security = on")
        db.execute("SET LOCAL ROLE pg_read_all_data")


def excess(cursor: Any) -> str | None:
    """Return why the connection's role may do more than it should."""
    user, is_super, _ = cursor.execute(_WHO).fetchone()
    return f"{user} is a superuser" if is_super == "on" else None


def grants(cursor: Any, role: str) -> list[str]:
    """Return the statements that make the role; a password is left to whoever runs them."""
    name, (_, _, database) = quote(role, "postgres"), cursor.execute(_WHO).fetchone()
    schemas = ", ".join(quote(row[0], "postgres") for row in cursor.execute(_SCHEMAS).fetchall())
    out = [
        f"CREATE ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION",
        f"ALTER ROLE {name} SET default_transaction_read_only = on",
        f"GRANT CONNECT ON DATABASE {quote(database, 'postgres')} TO {name}",
        f"GRANT pg_read_all_stats TO {name}",
    ]
    if schemas:
        out += [
            f"GRANT USAGE ON SCHEMA {schemas} TO {name}",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA {schemas} TO {name}",
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schemas} GRANT SELECT ON TABLES TO {name}",
        ]
    return out
