"""zou (an animation studio's API, Flask-SQLAlchemy) with eventperf inside; run by ``tests/hosts/run.py``."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from urllib.parse import urlsplit

import scenario

PROJECTS, SHOTS, ASSETS = 2, 200, 150


def settle() -> Any:
    """Point zou at this run's servers, make its tables as its users do, and return the application."""
    at, redis = urlsplit(os.environ["HOST_DATABASE"]), urlsplit(os.environ["HOST_REDIS"])
    os.environ |= {
        "SECRET_KEY": "of this run",
        "DB_HOST": at.hostname or "",
        "DB_PORT": str(at.port),
        "DB_USERNAME": at.username or "",
        "DB_PASSWORD": at.password or "",
        "DB_DATABASE": at.path[1:],
        "KV_HOST": redis.hostname or "",
        "KV_PORT": str(redis.port),
        "PREVIEW_FOLDER": os.environ["HOST_FOLDER"],
        "TMP_DIR": os.environ["HOST_FOLDER"],
    }
    from alembic import command

    command.upgrade(alembic_config(), "head")
    from zou.app import app

    return app


def alembic_config() -> Any:
    """Return what ``zou upgrade-db`` works with."""
    from zou.cli import _get_alembic_config

    return _get_alembic_config()


def fill() -> None:
    """Make three productions with thousands of rows through zou's own models."""
    from zou.app import db
    from zou.app.commands import commands_service
    from zou.app.models.comment import Comment
    from zou.app.models.entity import Entity, EntityLink
    from zou.app.models.entity_type import EntityType
    from zou.app.models.event import ApiEvent
    from zou.app.models.news import News
    from zou.app.models.notification import Notification
    from zou.app.models.person import Person
    from zou.app.models.project import Project
    from zou.app.models.project_status import ProjectStatus
    from zou.app.models.task import Task
    from zou.app.models.task_status import TaskStatus
    from zou.app.models.task_type import TaskType
    from zou.app.models.time_spent import TimeSpent
    from zou.app.utils import auth

    commands_service.init_data()
    draw, today = random.Random(7), dt.date(2026, 10, 1)
    password = auth.encrypt_password("admin-password")
    people = [
        Person(first_name=f"P{n}", last_name="Person", email=f"p{n}@example.org", password=password)
        for n in range(80)
    ]
    people[0].role = "admin"
    db.session.add_all(people)
    db.session.commit()
    is_open = ProjectStatus.get_by(name="Open")
    shot, sequence = EntityType.get_by(name="Shot"), EntityType.get_by(name="Sequence")
    assets = [t for t in EntityType.query.all() if t.name not in ("Shot", "Sequence", "Episode", "Edit")]
    statuses = TaskStatus.query.all()
    kinds = {
        "Shot": TaskType.query.filter_by(for_entity="Shot").all(),
        "Asset": TaskType.query.filter_by(for_entity="Asset").all(),
    }

    def store(rows: list[Any]) -> list[Any]:
        db.session.add_all(rows)
        db.session.flush()
        return rows

    for number in range(PROJECTS):
        project = store([Project(name=f"Film {number}", project_status_id=is_open.id)])[0]
        project.team = draw.sample(people, 30)
        sequences = store(
            [Entity(name=f"S{n:02}", project_id=project.id, entity_type_id=sequence.id) for n in range(10)]
        )
        shots = store(
            [
                Entity(
                    name=f"SH{n:04}", project_id=project.id, entity_type_id=shot.id, nb_frames=n,
                    parent_id=sequences[n % 10].id, data={"fps": 25},
                )
                for n in range(SHOTS)
            ]
        )  # fmt: skip
        things = store(
            [
                Entity(name=f"A{n:04}", project_id=project.id, entity_type_id=draw.choice(assets).id)
                for n in range(ASSETS)
            ]
        )
        store(
            [
                EntityLink(entity_in_id=shot.id, entity_out_id=asset.id, nb_occurences=1)
                for shot in shots
                for asset in draw.sample(things, 3)
            ]
        )
        tasks = store(
            [
                Task(
                    name="main", project_id=project.id, entity_id=entity.id, task_type_id=kind.id,
                    task_status_id=draw.choice(statuses).id, assigner_id=people[0].id,
                    due_date=dt.datetime(2026, 10, 1) + dt.timedelta(days=draw.randrange(90)),
                    assignees=[draw.choice(project.team)],
                )
                for entity, name in [*((s, "Shot") for s in shots), *((a, "Asset") for a in things)]
                for kind in kinds[name][:4]
            ]
        )  # fmt: skip
        comments = store(
            [
                Comment(
                    object_id=task.id, object_type="Task", text="A remark. " * 5,
                    person_id=draw.choice(people).id, task_status_id=draw.choice(statuses).id,
                )
                for task in tasks
                for _ in range(2)
            ]
        )  # fmt: skip
        store(
            [News(author_id=c.person_id, comment_id=c.id, task_id=c.object_id, change=True) for c in comments]
        )
        store(
            [
                Notification(
                    person_id=draw.choice(people[:5]).id, author_id=c.person_id, comment_id=c.id,
                    task_id=c.object_id, type="comment", read=draw.random() < 0.8,
                )
                for c in comments[::2]
            ]
        )  # fmt: skip
        store(
            [
                TimeSpent(
                    duration=60.0, date=today + dt.timedelta(days=n % 20), task_id=task.id,
                    person_id=task.assignees[0].id,
                )
                for n, task in enumerate(tasks)
            ]
        )  # fmt: skip
        store(
            [
                ApiEvent(
                    name=draw.choice(["task:update", "comment:new", "shot:new"]), user_id=people[0].id,
                    project_id=project.id, data={"n": n},
                )
                for n in range(2_000)
            ]
        )  # fmt: skip
        db.session.commit()


class Zou(scenario.Host):
    """What the scenario asks of the host."""

    name = "zou"
    queue_url = os.environ["HOST_DATABASE"]

    def __init__(self, app: Any) -> None:
        from zou.app import db

        self.app, self.db, self.migration = app, db, ""

    def pages(self) -> dict[str, Callable[[], str]]:
        from zou.app.models.entity import Entity
        from zou.app.models.project import Project
        from zou.app.models.task import Task

        with self.app.app_context():
            project = Project.get_by(name="Film 1").id
            shot = Entity.get_by(name="SH0007", project_id=project).id
            task = Task.get_by(entity_id=shot).id
        client = self.app.test_client()
        answer = client.post("/auth/login", json={"email": "p0@example.org", "password": "admin-password"})
        assert answer.status_code == 200, answer.text
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {answer.json['access_token']}"
        return {
            path: lambda p=path: self._get(client, p)
            for path in (
                "/data/user/context", "/data/projects/open", "/data/persons", "/data/user/tasks",
                f"/data/shots/with-tasks?project_id={project}",
                f"/data/assets/with-tasks?project_id={project}",
                f"/data/projects/{project}/shots", f"/data/projects/{project}/tasks",
                f"/data/projects/{project}/entity-links", f"/data/projects/{project}/news",
                f"/data/projects/{project}/team", f"/data/shots/{shot}", f"/data/shots/{shot}/tasks",
                f"/data/shots/{shot}/assets", f"/data/tasks/{task}/comments", f"/data/tasks/{task}/full",
                "/data/user/notifications", "/data/events/last?limit=100", "/data/tasks/open-tasks",
                f"/export/csv/projects/{project}/shots.csv", f"/data/projects/{project}/concepts",
                f"/data/projects/{project}/schedule-items/task-types",
            )
        }  # fmt: skip

    @staticmethod
    def _get(client: Any, path: str) -> str:
        answer = client.get(path)
        text = answer.text
        if answer.is_json:
            text = json.dumps(scenario.ordered(json.loads(text)))
        return f"{answer.status_code}\n{text}"

    @contextmanager
    def ours(self) -> Iterator[None]:
        from zou.app.utils import cache

        theirs = self.app.extensions["cache"][cache.cache]
        mine = {
            "CACHE_TYPE": "eventperf.contrib.flask_caching.EventPerfCache",
            "CACHE_REDIS_URL": os.environ["HOST_REDIS"],
        }
        cache.cache.init_app(self.app, config={**self.app.config, **mine})
        try:
            yield
        finally:
            self.app.extensions["cache"][cache.cache] = theirs

    @contextmanager
    def recording(self) -> Iterator[Any]:
        from eventperf.dbopt import QueryRecorder

        with self.app.app_context():
            recorder = QueryRecorder(self.db, own=["zou"], frames=2)
        with recorder:
            yield recorder

    def counting(self) -> AbstractContextManager[Counter[str]]:
        return scenario.counted(self.engine())

    def engine(self) -> Any:
        with self.app.app_context():
            return self.db.engine

    def migrate(self, advice: Any) -> Callable[[], None]:
        self.migration, back = scenario.alembic_migrated(advice, alembic_config)
        return back

    def drift(self, advice: Any) -> str:
        return scenario.alembic_drift(self.engine(), self.db.metadata, self.migration)

    def enqueue(self, queues: Any, data: int, *, commit: bool) -> Any:
        from zou.app.models.department import Department

        with self.app.app_context():
            self.db.session.add(Department(name=f"Side {data}", color="#000000"))
            job = queues.enqueue("side", data, session=self.db.session)
            if commit:
                self.db.session.commit()
            else:
                self.db.session.rollback()
        return job


if __name__ == "__main__":
    application = settle()
    with application.app_context():
        if not os.environ.get("HOST_FILLED"):
            fill()
    scenario.run(Zou(application))
