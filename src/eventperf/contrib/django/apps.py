"""The Django application."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class EventPerfConfig(AppConfig):  # type: ignore[misc]
    """Import ``jobs.py`` of every installed application, so that handlers are known everywhere."""

    name = "eventperf.contrib.django"
    label = "eventperf"
    verbose_name = "eventperf"

    def ready(self) -> None:
        """Find the jobs."""
        autodiscover_modules("jobs")
