"""A SQLAlchemy engine over Django's own connections: its ``DATABASES``, its driver, its session settings."""

from __future__ import annotations

from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from eventperf._core.extras import require

__all__ = ["database_engine"]

_SCHEMES: Final = {
    "psycopg": "postgresql+psycopg",
    "psycopg2": "postgresql+psycopg2",
    "MySQLdb": "mysql+mysqldb",
    "pymysql": "mysql+pymysql",
    "sqlite3": "sqlite",
}


def database_engine(using: str = "default") -> Any:
    """Return an engine for :class:`eventperf.dbopt.DatabaseOptimizer` whose connections Django opens.

    The caller disposes of it. Connections are its own: nothing of a request's transaction is seen.

    Args:
        using: The database's alias.

    Raises:
        ImproperlyConfigured: No such alias, or a database that the optimizer does not know.
    """
    sqlalchemy = require("sqlalchemy", extra="dbopt", needed_by="eventperf.contrib.django.database_engine")
    if using not in connections.settings:
        raise ImproperlyConfigured(f"using: got {using!r}; allowed: {', '.join(connections.settings)}")
    wrapper = connections.create_connection(using)

    def connect() -> Any:
        return wrapper.get_new_connection(wrapper.get_connection_params())

    scheme = _SCHEMES.get(_driver(wrapper))
    if scheme is None:
        raise ImproperlyConfigured(
            f"using: got {using!r} ({wrapper.vendor}); allowed: PostgreSQL, MySQL, SQLite"
        )
    at = wrapper.settings_dict
    name = str(at["NAME"])
    if wrapper.vendor == "sqlite":
        url = sqlalchemy.engine.URL.create(scheme, database=name)
    else:
        url = sqlalchemy.engine.URL.create(
            scheme, database=name, host=at["HOST"] or None, port=int(at["PORT"]) if at["PORT"] else None
        )
    return sqlalchemy.create_engine(url, creator=connect)


def _driver(wrapper: Any) -> str:
    """Return the module whose connections these are: pymysql may stand in for MySQLdb."""
    module = str(getattr(wrapper.Database, "__name__", ""))
    if wrapper.vendor == "sqlite":
        return "sqlite3"
    return module.partition(".")[0] if wrapper.vendor in ("postgresql", "mysql") else ""
