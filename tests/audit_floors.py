"""The floors of pyproject.toml against advisories: the oldest version that an extra allows has no known hole.

Runs offline, as a test and in ``nox -s audit``, which also asks a registry about what is installed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
ADVISORIES = {
    # package: (first version without it, advisory), the newest that concerns us
    "redis": ("4.5.5", "CVE-2023-28858, CVE-2023-28859: answers of another request after a cancelled one"),
    "PyMySQL": ("1.1.1", "CVE-2024-36039: keys of a dict as parameters are not escaped"),
    "django": ("5.2.12", "CVE-2026-25673; before it CVE-2026-1207, -1287, -1312 and CVE-2025-64460"),
    "flask": ("3.1.3", "CVE-2026-27205: a session without Vary: Cookie; CVE-2025-47278 (3.1.1)"),
    "werkzeug": ("3.1.6", "CVE-2026-27199, -21860, CVE-2025-66221: names of devices in paths"),
    "jinja2": ("3.1.6", "CVE-2025-27516: the sandbox lets a filter out"),
    "urllib3": ("2.6.3", "CVE-2026-21441, CVE-2025-66418, -66471: answers that inflate without end"),
    "grpcio": ("1.66.2", "CVE-2024-11407, CVE-2024-7246: headers of one client reach another"),
    "gunicorn": ("23.0", "CVE-2024-6827, CVE-2024-1135: smuggled requests (tests alone)"),
    "starlette": ("1.3.1", "CVE-2026-54282, -54283; before them CVE-2025-62727 (0.49.1)"),
    "sqlalchemy": ("1.3.0", "CVE-2019-7164, CVE-2019-7548: order_by and group_by"),
}  # fmt: skip
_FLOOR = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*>=\s*([0-9.]+)")


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def floors() -> dict[str, str]:
    """Return the lowest version that any extra, or group for the tests, allows, by package."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("[tool.")[0]
    found: dict[str, str] = {}
    for name, version in _FLOOR.findall("\n".join(re.findall(r'"([^"]*)"', project))):
        known = found.get(name, version)
        found[name] = min(known, version, key=_version)
    return found


def holes() -> list[str]:
    """Return a sentence for each floor that lies below an advisory."""
    found = floors()
    return [
        f"{name}>={found[name]} allows a version with {what}: raise the floor to {fixed}"
        for name, (fixed, what) in ADVISORIES.items()
        if _version(found[name]) < _version(fixed)
    ]


if __name__ == "__main__":
    sys.exit("\n".join(holes()) or 0)
