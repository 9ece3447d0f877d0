"""Which rows a statement of Django's wrote, where it says so beyond doubt; else every row of its table."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any, Final

from django.apps import apps

from eventperf.cache.following import (
    all_tags,
    any_link,
    any_row,
    linked,
    links_of,
    plain_name,
    row,
    table_tags,
)

_NAME: Final = r'(?:"[^"]+"|`[^`]+`)'
_INSERT: Final = re.compile(
    r"INSERT (?:OR IGNORE |IGNORE )?INTO (NAME) \((NAME(?:, NAME)*)\) VALUES "
    r"(\((?:%s, )*%s\)(?:, \((?:%s, )*%s\))*)"
    r"(?: ON CONFLICT DO NOTHING)?(?: RETURNING NAME\.(NAME))?".replace("NAME", _NAME)
)
_BY_KEY: Final = re.compile(
    r"(?:UPDATE (NAME) SET (?P<set>(?:(?!WHERE|').)+)|DELETE FROM (NAME)) "
    r"WHERE (NAME)\.(NAME) (?:= %s|IN \((?:%s, )*%s\))".replace("NAME", _NAME)
)
_MOST: Final = 50
"""Rows of one statement that are told one by one."""


def written(
    tables: Iterable[str] | None, statement: str, params: Any, many: bool, cursor: Any
) -> tuple[str, ...]:
    """Return the tags of what a writing statement changed."""
    if not many and isinstance(params, (tuple, list)):
        for shape, told in ((_INSERT, _inserted), (_BY_KEY, _by_key)):
            if (found := shape.fullmatch(statement)) is not None:
                return tuple(dict.fromkeys(told(found, params, cursor) or all_tags(tables)))
    return tuple(all_tags(tables))


@functools.lru_cache(1)
def _models() -> dict[str, Any]:
    """Return the models by table; of a table that several describe, whose foreign keys may differ, none."""
    found: dict[str, list[Any]] = {}
    for model in apps.get_models(include_auto_created=True):
        if not model._meta.proxy:
            found.setdefault(plain_name(model._meta.db_table), []).append(model)
    return {table: models[0] for table, models in found.items() if len(models) == 1}


def _inserted(found: re.Match[str], params: Any, cursor: Any) -> list[str] | None:
    table, columns = plain_name(found[1]), [name[1:-1] for name in found[2].split(", ")]
    model, width = _models().get(table), len(columns)
    count = len(params) // width
    if model is None or count > _MOST or count * width != len(params) or found[3].count("%s") != len(params):
        return None
    key = model._meta.pk.column
    tags = table_tags([table])
    if key in columns:
        tags += [_key_tag(table, params[at * width + columns.index(key)]) for at in range(count)]
    else:
        tags += [_key_tag(table, value) for value in _given(cursor, count, found[4], key)]
    for column in set(links_of(model).values()):
        if column not in columns:
            tags.append(any_link(table))
            continue
        for at in range(count):
            value = params[at * width + columns.index(column)]
            if value is not None:
                tags.append(linked(table, column, value) if _is_number(value) else any_link(table))
    return tags


def _by_key(found: re.Match[str], params: Any, cursor: Any) -> list[str] | None:
    name, column = found[1] or found[3], found[5][1:-1]
    table = plain_name(name)
    model, count = _models().get(table), found[0].count("%s") - (found["set"] or "").count("%s")
    if model is None or found[4] != name or column != model._meta.pk.column or count > _MOST:
        return None
    if found["set"] and f'"{column}"' in found["set"].replace("`", '"'):
        return None  # a key that changes, or that is reckoned with
    keys = [_key_tag(table, value) for value in params[len(params) - count :]]
    return [*table_tags([table]), *keys, any_link(table)]


def _key_tag(table: str, value: Any) -> str:
    return row(table, value)[0] if _is_number(value) else any_row(table)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _given(cursor: Any, count: int, returned: str | None, key: str) -> list[Any]:
    """Return the keys that the server gave, where its driver tells them before they are fetched."""
    unknown: list[Any] = [None]
    result = getattr(getattr(cursor, "cursor", None), "pgresult", None)
    if result is None or returned is None or returned[1:-1] != key or result.ntuples != count:
        return unknown
    try:
        return [int(result.get_value(at, 0)) for at in range(count)]
    except (TypeError, ValueError):  # keys of another kind, or in a form for machines
        return unknown
