"""Tables: one with versions for staleness, and an event site's for hits."""

from __future__ import annotations

from django.db import models


class Counter(models.Model):
    """A row whose version grows by one with each commit."""

    version = models.BigIntegerField(default=0)


class Plain(models.Model):
    """What no cache is told to keep."""

    version = models.BigIntegerField(default=0)


class Event(models.Model):
    title = models.CharField(max_length=60)
    category = models.IntegerField()


class Registration(models.Model):
    event = models.ForeignKey(Event, models.CASCADE)
    person = models.ForeignKey(Counter, models.CASCADE)
    status = models.CharField(max_length=20, default="confirmed")


class Arrival(models.Model):
    event = models.ForeignKey(Event, models.CASCADE)
    registration = models.ForeignKey(Registration, models.CASCADE)
