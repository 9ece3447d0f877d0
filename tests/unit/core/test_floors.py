"""Floors without known holes."""

from __future__ import annotations

import pytest

import audit_floors


def test_no_floor_allows_a_version_with_a_known_hole() -> None:
    assert audit_floors.holes() == []


def test_a_floor_that_does_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_floors, "ADVISORIES", {"PyMySQL": ("99.0", "CVE-0000-0")})
    (told,) = audit_floors.holes()
    assert "raise the floor to 99.0" in told
