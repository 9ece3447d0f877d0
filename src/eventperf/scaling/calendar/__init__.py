"""Dated events that draw load: lists, functions, cron expressions and files of them."""

from __future__ import annotations

from .entries import AFTER_S, BEFORE_S, MOST_ENTRIES, Calendar

__all__ = ["AFTER_S", "BEFORE_S", "MOST_ENTRIES", "Calendar"]
