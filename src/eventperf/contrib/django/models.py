"""What the admin site lists: queues, which have no table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models

if TYPE_CHECKING:  # Django ships no types
    Model = object
else:
    Model = models.Model


class Queue(Model):
    """A queue of the manager that ``EVENTPERF_QUEUES`` names; here for its permissions.

    ``view`` lets people look at counts and dead jobs, ``change`` lets them replay, pause and purge.
    """

    name: Any = models.CharField(max_length=200, primary_key=True)

    class Meta:
        """No table is made, and none is asked."""

        app_label = "eventperf"
        managed = False
        default_permissions: tuple[str, ...] = ("view", "change")
        verbose_name = "queue"
        verbose_name_plural = "queues"
