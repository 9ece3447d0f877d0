"""The Django application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils.module_loading import autodiscover_modules

from eventperf.cache.transactions import watch

if TYPE_CHECKING:  # Django ships no types
    AppConfig = object
else:
    from django.apps import AppConfig


class EventPerfConfig(AppConfig):
    """Import ``jobs.py`` of every installed application, so that handlers are known everywhere."""

    name = "eventperf.contrib.django"
    label = "eventperf"
    verbose_name = "eventperf"

    def ready(self) -> None:
        """Find the jobs; notice writes, for cached reads inside transactions; follow the database."""
        from .following import follow_settings  # late: its models are ready now

        watch()
        follow_settings()
        autodiscover_modules("jobs")
