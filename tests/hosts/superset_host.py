"""Apache Superset (Flask-AppBuilder, SQLAlchemy 1.4) with eventperf inside; run by ``tests/hosts/run.py``."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import scenario

CONFIG = """
import os
SECRET_KEY = "of this run, and long enough for it"
SQLALCHEMY_DATABASE_URI = os.environ["HOST_DATABASE"]
WTF_CSRF_ENABLED = False
TALISMAN_ENABLED = False
RATELIMIT_ENABLED = False
CACHE_CONFIG = {
    "CACHE_TYPE": "RedisCache",
    "CACHE_DEFAULT_TIMEOUT": 300,
    "CACHE_KEY_PREFIX": "superset_",
    "CACHE_REDIS_URL": os.environ["HOST_REDIS"],
}
DATA_CACHE_CONFIG = {**CACHE_CONFIG, "CACHE_KEY_PREFIX": "superset_data_"}
FEATURE_FLAGS = {"TAGGING_SYSTEM": True}
"""


def settle() -> Any:
    """Point Superset at this run's servers, make its tables as its users do, and return the application."""
    config = Path(os.environ["HOST_FOLDER"]) / "superset_config.py"
    config.write_text(CONFIG)
    os.environ |= {"SUPERSET_CONFIG_PATH": str(config), "SUPERSET_HOME": os.environ["HOST_FOLDER"]}
    from superset.app import create_app

    app = create_app()
    if not os.environ.get("HOST_FILLED"):
        from superset.cli.main import superset

        user = ["--username", "admin", "--firstname", "A", "--lastname", "B", "--email", "a@b.c"]
        create = ["fab", "create-admin", *user, "--password", "admin"]
        for arguments in (["db", "upgrade"], create, ["init"]):
            done = app.test_cli_runner().invoke(superset, arguments)
            assert done.exit_code == 0, (arguments, done.output[-2000:], done.exception)
    return app


def fill() -> None:
    """Make datasets, charts, dashboards, queries and a log through Superset's own models."""
    from superset import db, security_manager
    from superset.connectors.sqla.models import SqlaTable, SqlMetric, TableColumn
    from superset.models.core import Database, FavStar, Log
    from superset.models.dashboard import Dashboard
    from superset.models.slice import Slice
    from superset.models.sql_lab import Query, SavedQuery

    draw, now = random.Random(7), dt.datetime(2026, 10, 1)
    role = security_manager.find_role("Gamma")
    people = [security_manager.find_user("admin")]
    people += [
        security_manager.add_user(f"u{n}", "U", f"N{n}", f"u{n}@example.org", role, hashed_password="x")
        for n in range(30)
    ]
    source = Database(database_name="main", sqlalchemy_uri=os.environ["HOST_DATABASE"], expose_in_sqllab=True)
    db.session.add(source)
    db.session.flush()
    datasets, charts, dashboards = [], [], []
    for n in range(60):
        table = SqlaTable(
            table_name=f"sales_{n}", schema="public", database_id=source.id, sql="SELECT 1 AS a"
        )
        table.owners = [draw.choice(people)]
        table.columns = [TableColumn(column_name=f"c{k}", type="INT", groupby=True) for k in range(20)]
        table.metrics = [SqlMetric(metric_name=f"m{k}", expression="COUNT(*)") for k in range(3)]
        datasets.append(table)
    db.session.add_all(datasets)
    db.session.flush()
    for n in range(800):
        table = draw.choice(datasets)
        charts.append(
            Slice(
                slice_name=f"Chart {n}", datasource_id=table.id, datasource_type="table", viz_type="table",
                datasource_name=table.name, params=json.dumps({"viz_type": "table", "n": n}),
                owners=[draw.choice(people)], last_saved_at=now, last_saved_by_fk=people[0].id,
            )
        )  # fmt: skip
    db.session.add_all(charts)
    for n in range(150):
        dashboards.append(  # noqa: PERF401
            Dashboard(
                dashboard_title=f"Dashboard {n}", slug=f"d{n}", published=bool(n % 2), position_json="{}",
                json_metadata="{}", slices=draw.sample(charts, 8), owners=[draw.choice(people)],
            )
        )  # fmt: skip
    db.session.add_all(dashboards)
    db.session.flush()
    db.session.bulk_insert_mappings(
        Log,
        [
            {
                "action": draw.choice(["explore", "dashboard", "log_out"]), "user_id": draw.choice(people).id,
                "dashboard_id": draw.choice(dashboards).id, "slice_id": draw.choice(charts).id, "json": "{}",
                "dttm": now - dt.timedelta(minutes=n), "duration_ms": 7,
            }
            for n in range(60_000)
        ],
    )  # fmt: skip
    for n in range(2_000):
        db.session.add(
            Query(
                client_id=f"q{n:09}", database_id=source.id, user_id=draw.choice(people).id, tab_name="Tab",
                status=draw.choice(["success", "failed"]), sql=f"SELECT {n}", executed_sql=f"SELECT {n}",
                start_time=1.79e12 + n, end_time=1.79e12 + n + 5, rows=n, sql_editor_id=str(n % 90),
            )
        )  # fmt: skip
    for n in range(600):
        db.session.add(
            SavedQuery(
                user_id=people[0].id, db_id=source.id, label=f"Saved {n}", sql="SELECT 1", schema="public"
            )
        )
        db.session.add(FavStar(user_id=people[0].id, class_name="slice", obj_id=charts[n].id, dttm=now))
    db.session.commit()


class Superset(scenario.Host):
    """What the scenario asks of the host."""

    name = "superset"
    queue_url = os.environ["HOST_REDIS"]

    def __init__(self, app: Any) -> None:
        from superset import db

        self.app, self.db, self.migration = app, db, ""

    def pages(self) -> dict[str, Callable[[], str]]:
        from superset.models.dashboard import Dashboard
        from superset.models.slice import Slice

        with self.app.app_context():
            board = self.db.session.query(Dashboard).filter_by(slug="d7").one().id
            chart = self.db.session.query(Slice).filter_by(slice_name="Chart 7").one().id
        client = self.app.test_client()
        login = {"username": "admin", "password": "admin", "provider": "db"}
        answer = client.post("/api/v1/security/login", json=login)
        assert answer.status_code == 200, answer.text
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {answer.json['access_token']}"
        # Without an order a page of equals is whichever rows the plan of the moment meets first.
        name = "order_column:slice_name,order_direction:asc"
        title = "order_column:dashboard_title,order_direction:asc"
        return {
            path: lambda p=path: self._get(client, p)
            for path in (
                f"/api/v1/dashboard/?q=({title})", f"/api/v1/dashboard/?q=(page_size:100,{title})",
                f"/api/v1/dashboard/{board}",
                "/api/v1/dashboard/?q=(filters:!((col:dashboard_title,opr:title_or_slug,value:'7')))",
                f"/api/v1/dashboard/{board}/charts", f"/api/v1/dashboard/{board}/datasets",
                f"/api/v1/chart/?q=({name})", f"/api/v1/chart/?q=(page_size:100,{name})",
                f"/api/v1/chart/{chart}",
                "/api/v1/chart/?q=(filters:!((col:slice_name,opr:chart_all_text,value:'77')))",
                "/api/v1/dataset/", "/api/v1/dataset/7", "/api/v1/dataset/7/related_objects",
                "/api/v1/database/", "/api/v1/query/", "/api/v1/saved_query/", "/api/v1/log/",
                *(f"/api/v1/log/?q=(page:{n},page_size:50)" for n in range(1, 6)),
                "/api/v1/log/recent_activity/?q=(page_size:20)", "/api/v1/dataset/related/owners",
            )
        }  # fmt: skip

    @staticmethod
    def _get(client: Any, path: str) -> str:
        answer = client.get(path)
        text = re.sub(r'(humanized": ?")[^"]*', r"\1", answer.text)  # "2 minutes ago", before rows are sorted
        if answer.is_json:
            text = json.dumps(scenario.ordered(json.loads(text)))
        return f"{answer.status_code}\n{text}"

    @contextmanager
    def ours(self) -> Iterator[None]:
        from superset.extensions import cache_manager

        held = {c: self.app.extensions["cache"][c] for c in (cache_manager.cache, cache_manager.data_cache)}
        for cache, key in (
            (cache_manager.cache, "CACHE_CONFIG"),
            (cache_manager.data_cache, "DATA_CACHE_CONFIG"),
        ):
            mine = {**self.app.config[key], "CACHE_TYPE": "eventperf.contrib.flask_caching.EventPerfCache"}
            cache.init_app(self.app, mine)
        try:
            yield
        finally:
            self.app.extensions["cache"].update(held)

    @contextmanager
    def recording(self) -> Iterator[Any]:
        from eventperf.dbopt import QueryRecorder

        with self.app.app_context():
            recorder = QueryRecorder(self.db, own=["superset"], frames=2)
        with recorder:
            yield recorder

    def counting(self) -> AbstractContextManager[Counter[str]]:
        return scenario.counted(self.engine())

    def engine(self) -> Any:
        with self.app.app_context():
            return self.db.engine

    def migrate(self, advice: Any) -> Callable[[], None]:
        def config() -> Any:
            with self.app.app_context():
                return self.app.extensions["migrate"].migrate.get_config()

        with self.app.app_context():
            self.migration, undo = scenario.alembic_migrated(advice, config)

        def back() -> None:
            with self.app.app_context():
                undo()

        return back

    def drift(self, advice: Any) -> str:
        from flask_appbuilder import Model

        return scenario.alembic_drift(self.engine(), Model.metadata, self.migration)

    def enqueue(self, queues: Any, data: int, *, commit: bool) -> Any:
        from superset.models.core import CssTemplate

        from eventperf.queues.outbox import create_table

        with self.app.app_context():
            create_table(self.db.engine)
            self.db.session.add(CssTemplate(template_name=f"Side {data}", css=""))
            job = queues.enqueue("side", data, session=self.db.session)
            if commit:
                self.db.session.commit()
            else:
                self.db.session.rollback()
        return job

    def deliver(self, queues: Any) -> None:
        from eventperf.queues.outbox import Relay

        with Relay(queues, os.environ["HOST_DATABASE"]) as relay:
            relay.run(burst=True)


if __name__ == "__main__":
    application = settle()
    with application.app_context():
        if not os.environ.get("HOST_FILLED"):
            fill()
    scenario.run(Superset(application))
