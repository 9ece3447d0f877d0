"""The change journal: what any program commits is told to the caches that follow the database.

A table, and triggers that write to it within the transaction of each change (:mod:`.making`); a
:class:`Journal` reads it and drops the tags that ``follows=`` uses, whoever wrote and whoever was killed.
"""

from __future__ import annotations

from .reader import Journal

__all__ = ["Journal"]
