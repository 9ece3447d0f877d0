"""Loaded for every collected path: fixtures of the real servers."""

from __future__ import annotations

pytest_plugins = ["server_fixtures"]
