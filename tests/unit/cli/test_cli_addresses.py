"""An address with a password need not stand in the command line, and is not shown when it leads nowhere."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from eventperf.cli.addresses import OPTIONS, resolve
from eventperf.cli.main import main

URL = "sqlite:///jobs.db?password=hunter2"


def told(value: object, option: str = "url") -> object:
    args = argparse.Namespace(**{option: value})
    resolve(args)
    return getattr(args, option)


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("APP_URL", f" {URL}\n")
    (tmp_path / "url").write_text(f"{URL}\n")
    (tmp_path / "cli_places.py").write_text(
        "from sqlalchemy import create_engine\n"
        f"class settings:\n    URL = {URL!r}\n    NUMBER = 7\n"
        "engine = create_engine('postgresql+psycopg://u:hunter2@h/d')\n"
    )


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_with_an_address_takes_it_from_elsewhere(option: str) -> None:
    assert told("env:APP_URL", option) == URL
    assert told("file:url", option) == URL
    assert told(URL, option) == URL
    assert told(None, option) is None
    if option != "log":  # a file may be called so
        assert told("cli_places:settings.URL", option) == URL


def test_lists_of_addresses_too() -> None:
    assert told(["env:APP_URL", "redis://h"], "cache") == [URL, "redis://h"]


def test_an_engine_of_the_application_names_its_database() -> None:
    pytest.importorskip("psycopg")
    assert told("cli_places:engine") == "postgresql+psycopg://u:hunter2@h/d"


@pytest.mark.parametrize(
    "value",
    ["env:NOT_SET", "file:not-there", "file:many", "cli_places:nothing", "cli_places:settings.NUMBER"],
)
def test_what_leads_nowhere_is_one_sentence(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("many").write_text(f"{URL} {URL}")
    assert main(["db", "health", value]) == 2
    said = capsys.readouterr().err
    assert "hunter2" not in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("command", [["db", "health"], ["queue", "status"], ["cache", "ping"]])
def test_what_is_no_address_is_not_shown(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_URL", "hunter2")
    Path("url").write_text("hunter2\n")
    for place in ("env:APP_URL", "file:url"):
        assert main([*command, place]) == 2
        said = capsys.readouterr().err
        assert place in said
        assert "hunter2" not in said


def test_an_argument_too_many_shows_no_token(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "redis://hunter2@h"]) == 2
    assert "hunter2" not in capsys.readouterr().err


def test_commands_use_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_URL", "sqlite:///jobs.db")
    assert main(["queue", "schema", "env:APP_URL"]) == 0
    assert main(["db", "health", "env:APP_URL"]) == 0
    assert "eventperf_jobs" in capsys.readouterr().out
    Path("url").write_text("sqlite:///jobs.db\n")
    assert main(["queue", "status", "file:url"]) == 0
