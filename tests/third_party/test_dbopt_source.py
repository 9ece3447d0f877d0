"""A slow-query source as a stranger writes it: from ``dbopt.protocols`` and its page of the docs alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from eventperf.dbopt import DatabaseOptimizer, SourceUnavailable
from eventperf.dbopt.protocols import Recorded, Recording
from eventperf.testing.dbopt import StatementSourceSuite


class SpanFile:
    """Spans of a tracing system, one JSON object a line: ``{"db.statement": ..., "ms": ...}``."""

    dialect: str = "sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, since_s: float | None, /) -> Recording:
        try:
            lines = self.path.read_text("utf-8").splitlines()
        except OSError as error:
            raise SourceUnavailable(str(self.path), "let the exporter write it first") from error
        out = Recording(covers=f"the whole of {self.path.name}", rows=())
        out.rows = self._rows(lines, out)
        return out

    def _rows(self, lines: list[str], out: Recording) -> Iterator[Recorded]:
        bad = 0
        for line in lines:
            try:
                span = json.loads(line)
                took = span["ms"] / 1000
                yield Recorded(sql=span["db.statement"], total_s=took, max_s=took)
            except (ValueError, KeyError):
                bad += 1
        if bad:
            out.notes.append(f"{bad} lines are not spans")


class TestSpanFile(StatementSourceSuite):
    @pytest.fixture
    def source(self, tmp_path: Path) -> SpanFile:
        (tmp_path / "spans.jsonl").touch()
        return SpanFile(tmp_path / "spans.jsonl")

    @pytest.fixture
    def unreadable(self, tmp_path: Path) -> SpanFile:
        return SpanFile(tmp_path / "nowhere.jsonl")

    def record(self, source: SpanFile, sql: str, seconds: float) -> None:
        with source.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"db.statement": sql, "ms": 1000 * seconds}) + "\n")

    def test_it_feeds_an_optimizer_and_its_notes_are_told(self, source: SpanFile, tmp_path: Path) -> None:
        engine = create_engine(f"sqlite:///{tmp_path}/shop.sqlite")
        with engine.begin() as db:
            db.exec_driver_sql("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INT, note TEXT)")
            db.exec_driver_sql(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) "
                "INSERT INTO orders (customer, note) SELECT i % 500, 'note' FROM n"
            )
        for n in range(20):
            self.record(source, f"SELECT note FROM orders WHERE customer = {n}", 0.02)
        with source.path.open("a", encoding="utf-8") as file:
            file.write("not a span\n")
        with DatabaseOptimizer(engine, source=source) as optimizer:
            advice = optimizer.advise()
        engine.dispose()
        assert [i.spec.keys[0].name for i in advice.indexes] == ["customer"]
        assert "1 lines are not spans" in advice.warnings
