"""Engines by the names that SQLAlchemy and URLs have for them."""

from __future__ import annotations

from typing import Final

#: From SQLAlchemy's name of an engine to the name of its SQL here.
DIALECTS: Final = {"sqlite": "sqlite", "postgresql": "postgres", "mysql": "mysql", "mariadb": "mysql"}
