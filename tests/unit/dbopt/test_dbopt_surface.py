"""What a user touches: limits, reports, events, commands, and what an application hands over."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import ForeignKey, create_engine, text
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    relationship,
    scoped_session,
    sessionmaker,
)

from eventperf.cli.main import main
from eventperf.dbopt import (
    Advice,
    AdviceMismatch,
    Advised,
    ApplyReport,
    DatabaseOptimizer,
    IndexChanged,
    Limits,
    QueryRecorder,
)
from eventperf.dbopt.backends.connect import open_engine
from eventperf.dbopt.schema import engines
from eventperf.errors import ConfigurationError


class Base(DeclarativeBase):
    pass


class Owner(Base):
    __tablename__ = "owner"
    id: Mapped[int] = mapped_column(primary_key=True)
    pets: Mapped[list[Pet]] = relationship()


class Pet(Base):
    __tablename__ = "pet"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"))
    kind: Mapped[int]


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/app.db"
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    with engine.begin() as db:
        db.execute(text("INSERT INTO owner (id) VALUES (:i)"), [{"i": n} for n in range(200)])
        rows = [{"o": n % 200, "k": n % 500} for n in range(6_000)]
        db.execute(text("INSERT INTO pet (owner_id, kind) VALUES (:o, :k)"), rows)
    engine.dispose()
    return url


def recorded(url: str) -> Any:
    engine = create_engine(url)
    with QueryRecorder(engine) as recorder, engine.connect() as db:
        for n in range(20):
            db.execute(text("SELECT id FROM pet WHERE kind = :k ORDER BY id"), {"k": n}).all()
    engine.dispose()
    return recorder.workload()


def test_a_loop_that_the_orm_tells_weighs_one_statement_a_transaction(url: str) -> None:
    engine = create_engine(url)
    with QueryRecorder(engine) as recorder, Session(engine) as session:
        for owner in session.query(Owner).limit(100):
            len(owner.pets)
        for n in range(10):
            session.execute(text("SELECT count(*) FROM pet WHERE kind = :k"), {"k": n})
    workload = recorder.workload()
    lazy = next(s for s in workload if "FROM pet" in s.sql and "owner_id" in s.sql)
    core = next(s for s in workload if "count(*)" in s.sql)
    assert (lazy.calls, lazy.looped) == (100, 99)
    assert core.looped == 0, "no ORM says that this loop is not meant"
    assert [n for n in workload.notes if "N+1" in n and "selectinload(Owner.pets)" in n]
    again = workload.snapshot()
    assert again[lazy.fingerprint.id].looped == 99
    advice = DatabaseOptimizer(engine).advise(workload)
    assert advice.indexes[0].spec.columns[0] == "kind", str(advice)


def test_looped_executions_survive_a_file(url: str, tmp_path: Path) -> None:
    from eventperf.dbopt import Workload

    out = Workload("sqlite")
    out.add("SELECT 1 FROM t WHERE a = 2", calls=50, looped=45)
    out.save(tmp_path / "w.json")
    (read,) = Workload.load(tmp_path / "w.json")
    assert read.alone == pytest.approx(0.1)


def test_every_object_that_has_an_engine_is_taken(url: str) -> None:
    engine = create_engine(url)
    maker = sessionmaker(engine)
    with engine.connect() as connection, maker() as session:
        scoped = scoped_session(maker)
        for given in (engine, session, scoped, connection, SimpleNamespace(engine=engine)):
            recorder = QueryRecorder(given)
            assert recorder.dialect == "sqlite"
            recorder.close()
            assert DatabaseOptimizer(given).health() is not None
        scoped.remove()
    engine.dispose()


@pytest.mark.parametrize(
    ("made_with", "told"),
    [
        ({}, []),
        ({"connect_args": {"ssl": object(), "connect_timeout": 3}}, ["connect_timeout, ssl"]),
        ({"async_creator": lambda: None}, ["creator="]),
    ],
)
def test_what_an_engine_connects_with_beside_its_url_is_missed_aloud(
    made_with: dict[str, Any], told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    asyncio_engines = pytest.importorskip("sqlalchemy.ext.asyncio")
    pytest.importorskip("aiomysql")
    engine = asyncio_engines.create_async_engine(
        "mysql+aiomysql://u:secret@h/db?charset=utf8mb4", **made_with
    )
    open_engine(engine, "engine").close()
    assert [record.message.split("without ")[1].split(":")[0] for record in caplog.records] == told
    assert "secret" not in caplog.text


@pytest.mark.parametrize("version", ["1.3.24", "0.9"])
def test_an_sqlalchemy_that_is_too_old_is_refused_with_its_cure(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "require", lambda *a, **k: SimpleNamespace(__version__=version))
    with pytest.raises(ConfigurationError, match=rf"{version}.*pip install .sqlalchemy>="):
        DatabaseOptimizer("sqlite://")
    with pytest.raises(ConfigurationError, match="for QueryRecorder"):
        QueryRecorder(SimpleNamespace(dialect=SimpleNamespace(name="sqlite")))


@pytest.mark.parametrize("given", ["pet", [""], [3]])
def test_tables_are_given_as_a_list_of_names(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="exclude"):
        Limits(exclude=given)


def test_listeners_hear_of_advice_and_of_each_index(url: str) -> None:
    seen: list[Any] = []
    with DatabaseOptimizer(url) as optimizer:
        stop = optimizer.on(seen.append)
        only: list[Any] = []
        optimizer.on(only.append, IndexChanged)
        advice = optimizer.advise(recorded(url))
        optimizer.apply(advice)  # a dry run changes nothing and tells nothing
        report = optimizer.apply(advice, dry_run=False)
        optimizer.revert(report)
        stop()
        optimizer.apply(advice, dry_run=False, verify=False)
    assert isinstance(seen[0], Advised)
    assert [e.outcome for e in seen[1:]] == ["created", "reverted"]
    assert [e.outcome for e in only] == ["created", "reverted", "created"]
    assert only[0].table == "pet"


def test_revert_from_the_command_line(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with DatabaseOptimizer(url) as optimizer:
        optimizer.advise(recorded(url)).save(tmp_path / "plan.json")
    recorded(url).save(tmp_path / "w.json", values=True)
    assert main(["db", "apply", url, str(tmp_path / "plan.json"), "--yes", "--json"]) == 0
    (tmp_path / "report.json").write_text(capsys.readouterr().out)
    assert main(["db", "revert", url, str(tmp_path / "report.json")]) == 0
    assert "Nothing was changed" in capsys.readouterr().out
    assert main(["db", "revert", url, str(tmp_path / "report.json"), "--yes"]) == 0
    assert "1 reverted" in capsys.readouterr().out
    assert main(["db", "revert", url, "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reverted"] == []


def test_advise_leaves_out_what_it_is_told_to(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(url).save(tmp_path / "w.json")
    command = ["db", "advise", url, "--workload", str(tmp_path / "w.json"), "--json"]
    assert main([*command, "--exclude", "pet"]) == 0
    assert json.loads(capsys.readouterr().out)["indexes"] == []
    assert main([*command, "--include", "p?t", "--include", "owner"]) == 0
    assert len(json.loads(capsys.readouterr().out)["indexes"]) == 1


def test_sqlite_needs_no_grants(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "grants", url]) == 0
    assert "no roles" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"dry_run": false, "warnings": [], "created": [{"name": 1}]}', "nonsense"]
)
def test_a_file_that_is_no_report_is_refused_whole(content: str, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(content)
    with pytest.raises(AdviceMismatch):
        ApplyReport.load(file)
    with pytest.raises(ConfigurationError):
        ApplyReport.load(tmp_path / "none.json")


def test_measuring_a_statement_that_writes_changes_nothing(url: str) -> None:
    """A recorded text may call anything: on a file SQLite refuses to write while we read."""
    engine = create_engine(url)
    dialect = DatabaseOptimizer(engine).dialect
    from eventperf.dbopt import Sample

    assert dialect.measure([Sample("DELETE FROM pet", ())], runs=1, timeout_s=1) is None
    with engine.connect() as db:
        assert db.execute(text("SELECT count(*) FROM pet")).scalar() == 6_000
    with engine.begin() as db:  # the application writes on the same connections as before
        db.execute(text("DELETE FROM pet WHERE id = 1"))
    engine.dispose()


def test_the_page_shows_sizes_and_what_statements_read(url: str, tmp_path: Path) -> None:
    with DatabaseOptimizer(url) as optimizer:
        advice = optimizer.advise(recorded(url))
    page = advice.to_html()
    assert "6,000" in page
    assert "new indexes" in page
    advice.save(tmp_path / "plan.json")
    assert Advice.load(tmp_path / "plan.json").tables["pet"][0] == 6_000


def stack(*files: str) -> Any:
    """Return frames as the interpreter has them, the first file's the nearest."""
    frame = None
    for line, name in reversed(list(enumerate(files, 1))):
        frame = SimpleNamespace(f_code=SimpleNamespace(co_filename=name), f_lineno=line, f_back=frame)
    return frame


def test_no_library_stands_between_a_statement_and_the_application() -> None:
    import json.encoder
    import string

    import sqlalchemy

    from eventperf.cache import keys
    from eventperf.dbopt.statements.callers import Callers

    ours, library = keys.__file__, pytest.__file__
    files = (sqlalchemy.__file__, ours, string.__file__, library, json.encoder.__file__, "/srv/shop/views.py")
    assert Callers().find(stack(*files)) == (("/srv/shop/views.py", 6),)
    assert Callers().find(stack(*files[:-1])) == ((library, 4),), "nothing else: the nearest installed code"
    assert Callers(own=["pytest"]).find(stack(*files)) == ((library, 4),)
    assert Callers(own=["pytest"], frames=2).find(stack(*files)) == ((library, 4), ("/srv/shop/views.py", 6))
    assert Callers(own=["pytest"], skip=["pytest"]).find(stack(*files)) == (("/srv/shop/views.py", 6),)
    with pytest.raises(ConfigurationError, match="own"):
        QueryRecorder(dialect="sqlite", own="shop")
