"""The pages about moving in: each old call runs against the old library, each new one against ours."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

PAGES = Path(__file__).parents[3] / "docs/how-to"
CELL = re.compile(r"`([^`]*)`")
Rows = list[tuple[str, str, list[str]]]


def rows(page: str, section: str) -> Rows:
    """Return old call, new call and what they answer (one text, or one for each)."""
    text = (PAGES / page).read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    lines = [line.strip(" |").split(" | ") if line.startswith("|") else [] for line in text.splitlines()]
    cells = [[CELL.findall(cell) for cell in line] for line in lines if len(line) >= 2]
    return [(one[0][0], one[1][0], one[2] if len(one) > 2 else []) for one in cells if one[0]]


async def told(code: str, names: dict[str, Any]) -> Any:
    """Run one call in ``names``, awaited where it says so; return its answer."""
    try:
        made = compile(code, code, "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError:
        made = compile(code, code, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    answer = eval(made, names)
    return await answer if asyncio.iscoroutine(answer) else answer


def needs(name: str) -> Any:
    """Import an old library; in CI its absence is a failure."""
    if os.environ.get("CI"):
        return __import__(name)
    return pytest.importorskip(name)


async def walk(found: Rows, old: dict[str, Any], new: dict[str, Any], url: Callable[[str], str]) -> None:
    """Run every line: the old calls one after another, then the new ones."""
    assert len(found) > 5
    for place, names in ((0, old), (1, new)):
        for line in found:
            code, answers = line[place], line[2]
            answer = await told(url(code), names)
            if answers:
                assert repr(answer) == answers[place if len(answers) > 1 else 0], code


def test_calls_of_django_redis_are_answered_alike(redis_url: str) -> None:
    needs("django_redis")
    from datetime import datetime, timedelta

    from django.conf import settings

    if not settings.configured:
        settings.configure()
    from django.core.cache import caches
    from django.test import override_settings
    from django_redis import get_redis_connection

    for backend in ("django_redis.cache.RedisCache", "eventperf.contrib.django.cache.EventPerfCache"):
        where = {"BACKEND": backend, "LOCATION": redis_url, "KEY_PREFIX": f"a[*{time.monotonic_ns()}"}
        with override_settings(CACHES={"default": where}):
            names = {
                "cache": caches["default"], "datetime": datetime, "timedelta": timedelta,
                "get_redis_connection": get_redis_connection,
            }  # fmt: skip
            get_redis_connection("default").delete("seen")
            for line in rows("migrating-cache.md", "From django-redis"):
                code = line["eventperf" in backend]
                answer = asyncio.run(told(code, names))
                if line[2]:
                    assert repr(answer) == line[2][0], f"{backend}: {code}"
