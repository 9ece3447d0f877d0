"""The caches of ``bench_follow``, each configured as its documentation says, in a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

NAMES = (
    "none", "django-cacheops", "cacheops keep_fresh", "django-cachalot",
    "eventperf", "eventperf + journal", "eventperf + journal + memory",
)  # fmt: skip
TTL_S = 600
SETTINGS = {
    "none": "every query goes to the database: the control",
    "django-cacheops": "CACHEOPS = {'follow_site.*': {'ops': 'all', 'timeout': 600}}; "
    "bulk updates by invalidated_update()",
    "cacheops keep_fresh": "the same without ops; functions by @cached_as(querysets, keep_fresh=True)",
    "django-cachalot": "its defaults, CACHES: django.core.cache.backends.redis.RedisCache",
    "eventperf": "EVENTPERF_FOLLOW, CacheManager(redis, l1=None, ttl=600, timeout='5s'), "
    "depends(*row(...)) in the loader",
    "eventperf + journal": "the same, and one reader of the change journal for all tables",
    "eventperf + journal + memory": "the same with process memory, which follows others within milliseconds",
}
MORE = 1_000_000
"""What a write that is rolled back adds to a version."""

Writer = Callable[[int, int], Any]


class Cache:
    """One of them: how it reads a version, and the writes that it claims to follow."""

    def __init__(self, name: str, database: dict[str, Any], redis: str) -> None:
        self.name, self.redis = name, redis
        self.is_ours = name.startswith("eventperf")
        self.has_journal = "journal" in name
        self.manager: Any = None
        configure(name, database, redis)

    def open(self) -> None:
        """Make what a process needs for itself; called after a fork."""
        if self.is_ours:
            from eventperf.cache import CacheManager
            from eventperf.contrib.django import follow

            memory = {} if self.name.endswith("memory") else {"l1": None}
            self.manager = CacheManager(self.redis, namespace="follow", ttl=TTL_S, timeout="5s", **memory)
            follow(self.manager)
        self.version = self._reading()

    def close(self) -> None:
        """End what ``open`` made."""
        from django.db import connections

        connections.close_all()
        if self.manager is not None:
            self.manager.close()

    def _reading(self) -> Callable[[int], int]:
        from follow_site.models import Counter

        def version(pk: int) -> int:
            return int(Counter.objects.get(pk=pk).version)

        if self.is_ours:
            from eventperf.cache import depends, row

            def ours(pk: int) -> int:
                depends(*row(Counter, pk))
                return version(pk)

            return self.manager.cached(ours)  # type: ignore[no-any-return]
        if self.name == "cacheops keep_fresh":
            from cacheops import cached_as

            def fresh(pk: int) -> int:
                @cached_as(Counter.objects.filter(pk=pk), keep_fresh=True)
                def one() -> int:
                    return int(Counter.objects.nocache().get(pk=pk).version)

                return int(one())

            return fresh
        return version

    def function(self, loader: Callable[..., Any], samples: Callable[..., Any], *key: int) -> Any:
        """Call a page: a cached function where the library has them, else its queries are cached."""
        if self.name == "cacheops keep_fresh":
            from cacheops import cached_as

            kept = cached_as(*samples(*key), keep_fresh=True, extra=(loader.__name__, key))
            return kept(lambda: loader(*key))()
        return loader(*key)

    def writers(self) -> dict[str, Writer]:
        """Return the kinds of writes that it claims to follow, in one process of Django's."""
        kinds: dict[str, Writer] = {"save": save, "rollback": rolled_back}
        if "cacheops" in self.name:
            kinds["bulk update"] = invalidated_update
        else:
            kinds |= {"bulk update": bulk_update, "raw SQL": raw}
        return kinds


def configure(name: str, database: dict[str, Any], redis: str) -> None:
    """Set Django up."""
    import django
    from django.conf import settings

    apps = ["follow_site"]
    more: dict[str, Any] = {}
    if "cacheops" in name:
        apps.insert(0, "cacheops")
        ops = "all" if name == "django-cacheops" else ()
        kept = ("counter", "event", "registration", "arrival")
        more["CACHEOPS_REDIS"] = redis
        more["CACHEOPS"] = {f"follow_site.{model}": {"ops": ops, "timeout": TTL_S} for model in kept}
    elif name == "django-cachalot":
        apps.insert(0, "cachalot")
        more["CACHES"] = {
            "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": redis}
        }
        more["CACHALOT_UNCACHABLE_TABLES"] = frozenset(("django_migrations", "follow_site_plain"))
    elif name != "none":
        apps.append("eventperf.contrib.django")
    settings.configure(
        DATABASES={"default": database}, INSTALLED_APPS=apps, SECRET_KEY="x", USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField", **more,
    )  # fmt: skip
    django.setup()


# -- writes ----------------------------------------------------------------------------------------------


def save(pk: int, version: int) -> None:
    from django.db import transaction
    from follow_site.models import Counter

    with transaction.atomic():
        one = Counter.objects.select_for_update().get(pk=pk)
        one.version = version
        one.save()


class Undo(Exception):
    """Rolls back."""


def rolled_back(pk: int, version: int) -> None:
    from django.db import transaction

    try:
        with transaction.atomic():
            save(pk, version + MORE)
            raise Undo
    except Undo:
        return


def bulk_update(pk: int, version: int) -> None:
    from follow_site.models import Counter

    Counter.objects.filter(pk=pk).update(version=version)


def invalidated_update(pk: int, version: int) -> None:
    from follow_site.models import Counter

    Counter.objects.filter(pk=pk).invalidated_update(version=version)


def raw(pk: int, version: int) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("UPDATE follow_site_counter SET version = %s WHERE id = %s", [version, pk])


class Foreign:
    """Another program: a connection of its own, of which Django knows nothing."""

    def __init__(self, conninfo: str) -> None:
        import psycopg

        self._connection = psycopg.connect(conninfo, autocommit=True)

    def __call__(self, pk: int, version: int) -> None:
        self._connection.execute("UPDATE follow_site_counter SET version = %s WHERE id = %s", [version, pk])

    def close(self) -> None:
        self._connection.close()


def count_queries(counts: list[int]) -> None:
    """Count the statements of this thread's connection in ``counts[0]``."""
    from django.db import connection

    def counted(execute: Any, *rest: Any) -> Any:
        counts[0] += 1
        return execute(*rest)

    connection.execute_wrappers.append(counted)


def cpu_us(action: Callable[[], object], times: int) -> float:
    """Return CPU microseconds of one call."""
    began = time.process_time()
    for _ in range(times):
        action()
    return (time.process_time() - began) / times * 1e6
