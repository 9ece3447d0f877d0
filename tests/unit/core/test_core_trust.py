"""A URL of a database whose connections are encrypted and do not check who answers is warned of."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest

import eventperf
from eventperf._core.trust import unchecked
from eventperf.dbopt.backends.connect import open_engine
from eventperf.queues.backends.sql.engines import engine_for
from eventperf.queues.outbox import create_table
from eventperf.scaling import AsyncReplicaRouter

sqlalchemy = pytest.importorskip("sqlalchemy")

LAX = [
    "postgresql+psycopg://u:S3cr3t@db.example/x?sslmode=require",
    "postgresql+psycopg://u:S3cr3t@db.example/x?sslmode=verify-ca",
    "postgresql+asyncpg://u:S3cr3t@db.example/x?ssl=require",
    "mysql+pymysql://u:S3cr3t@db.example/x?ssl_ca=a.pem&ssl_check_hostname=false",
    "mysql+pymysql://u:S3cr3t@db.example/x?ssl_cert=a.pem&ssl_key=b.pem",
]
STRICT = [
    "postgresql+psycopg://u:S3cr3t@db.example/x?sslmode=verify-full",
    "postgresql+psycopg://u:S3cr3t@db.example/x",
    "mysql+pymysql://u:S3cr3t@db.example/x?ssl_verify_identity=true&ssl_ca=a.pem",
    "mysql+pymysql://u:S3cr3t@db.example/x",
    "sqlite:///x.db",
]


@pytest.mark.parametrize("url", [*LAX, *STRICT])
def test_the_option_is_named(url: str) -> None:
    parsed = sqlalchemy.engine.make_url(url)
    found = unchecked(parsed.get_backend_name(), parsed.query)
    assert (found is not None) == (url in LAX)
    assert found is None or found.split("=")[0] in url


@pytest.mark.parametrize("url", [LAX[0], STRICT[0]])
def test_engines_that_are_made_of_it_warn_once_and_show_no_password(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("psycopg")
    with caplog.at_level(logging.WARNING):
        open_engine(url, "database").close()
        engine_for(sqlalchemy.engine.make_url(url), 1).dispose()
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == (2 if url in LAX else 0)
    assert all("sslmode=verify-full checks the name" in text and "S3cr3t" not in text for text in told)


def test_the_async_router_and_the_outbox_warn_as_well(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("psycopg")
    lax = LAX[0].replace("db.example", "127.0.0.1:1")
    with caplog.at_level(logging.WARNING):
        AsyncReplicaRouter(lax, [lax])
        with pytest.raises(sqlalchemy.exc.OperationalError):
            create_table(lax)
    told = [r.getMessage() for r in caplog.records if "do not check who answers" in r.getMessage()]
    assert len(told) == 3


def test_no_engine_is_made_of_a_url_unwarned() -> None:
    """Whatever makes an engine stands in a function that warns, or whose caller does."""
    by_others = {"_file_engine", "database_engine", "main"}  # a file; Django's own; the demo's helper
    silent = []
    for path in Path(eventperf.__file__).parent.rglob("*.py"):
        for one in ast.walk(ast.parse(path.read_text())):
            if not isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) or one.name in by_others:
                continue
            called = {
                getattr(c.func, "attr", getattr(c.func, "id", ""))
                for c in ast.walk(one)
                if isinstance(c, ast.Call)
            }
            if called & {"create_engine", "create_async_engine"} and "warn_unchecked" not in called:
                silent.append(f"{path.name}:{one.name}")
    assert silent == []
