"""What a migration of advised indexes has to know about a Django app."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.migrations.loader import MigrationLoader

__all__ = ["migration_options"]


def migration_options(app_label: str, using: str = "default", *, packages: bool = False) -> dict[str, Any]:
    """Return the options of ``advice.to_migration("django", **options)`` for one app.

    Args:
        app_label: The app whose tables get indexes.
        using: The database whose migrations count.
        packages: Also say what tables other apps have, so that advice on those is written too, in SQL.

    Returns:
        ``app_label``, its last migration as ``dependency``, ``models`` by table, ``fields`` by table
        and column, and with ``packages`` as ``others`` the tables of other apps with their last migration.

    Raises:
        ImproperlyConfigured: The app has no migrations, or several last ones that were not merged.
    """
    graph = MigrationLoader(connections[using]).graph
    leaves = graph.leaf_nodes(app_label)
    if len(leaves) != 1:
        cure = "makemigrations --merge" if leaves else f"makemigrations {app_label}"
        said = f"{app_label}: got {len(leaves)} last migrations; allowed: exactly one"
        raise ImproperlyConfigured(f"{said}: run {cure} first")
    others = {
        m._meta.db_table: theirs[0]
        for m in apps.get_models()
        if packages
        and m._meta.app_label != app_label
        and len(theirs := graph.leaf_nodes(m._meta.app_label)) == 1
    }
    models = [m for m in apps.get_app_config(app_label).get_models() if m._meta.managed and not m._meta.proxy]
    fields = {
        m._meta.db_table: {f.column: f.name for f in m._meta.local_fields if f.column and f.column != f.name}
        for m in models
    }
    return {
        "app_label": app_label,
        "dependency": leaves[0][1],
        "models": {m._meta.db_table: m.__name__ for m in models},
        "fields": fields,
        "others": others,
    }
