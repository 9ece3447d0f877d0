"""fractal-server (bio-imaging workflows on FastAPI, async SQLModel) with eventperf inside; run by ``run.py``.

It has no cache of its own: in its place stand the HTTP cache in front of it and a cached read that
follows its database.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import scenario

PROJECTS, WORKFLOWS, TASKS, DATASETS, JOBS = 25, 4, 12, 8, 60
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
STATUSES = ["done", "done", "failed", "submitted"]


def settle() -> Any:
    """Point fractal-server at this run's servers, make its tables by its own command, and return it."""
    at = urlsplit(os.environ["HOST_DATABASE"])
    os.environ |= {
        "POSTGRES_HOST": at.hostname or "",
        "POSTGRES_PORT": str(at.port),
        "POSTGRES_USER": at.username or "",
        "POSTGRES_DB": at.path[1:],
        "JWT_SECRET_KEY": "of this run, and long enough for HS256",
        "JWT_EXPIRE_SECONDS": "36000",
        "FRACTAL_LOGGING_LEVEL": "40",
    }
    from fractal_server.__main__ import set_db

    set_db()
    from fractal_server.main import app

    return app


def alembic_config() -> Any:
    """Return what ``fractalctl set-db`` works with."""
    import fractal_server
    from alembic.config import Config

    return Config(str(Path(fractal_server.__file__).parent / "alembic.ini"))


def fill() -> None:
    """Make 25 projects with thousands of rows through fractal-server's own models."""
    from fractal_server.app.db import get_sync_db
    from fractal_server.app.models import LinkUserGroup, LinkUserProjectV2, UserGroup, UserOAuth
    from fractal_server.app.models.v2 import (
        DatasetV2,
        HistoryRun,
        HistoryUnit,
        JobV2,
        Profile,
        ProjectV2,
        Resource,
        TaskGroupV2,
        TaskV2,
        WorkflowTaskV2,
        WorkflowV2,
    )
    from pwdlib import PasswordHash
    from pwdlib.hashers.bcrypt import BcryptHasher

    draw = random.Random(7)
    hashed = PasswordHash((BcryptHasher(),)).hash("password")
    with next(get_sync_db()) as db:

        def store(rows: list[Any]) -> list[Any]:
            db.add_all(rows)
            db.flush()
            return rows

        (resource,) = store(
            [
                Resource(
                    type="local", name="Local", jobs_local_dir="/j", tasks_local_dir="/t",
                    jobs_poll_interval=0,
                    tasks_python_config={"default_version": PYTHON, "versions": {PYTHON: sys.executable}},
                )
            ]
        )  # fmt: skip
        (profile,) = store([Profile(resource_id=resource.id, resource_type="local", name="Local")])
        people = store(
            [
                UserOAuth(
                    email=f"p{n}@example.org", hashed_password=hashed, is_verified=True, is_superuser=n == 0,
                    profile_id=profile.id, project_dirs=[f"/data/{n}"], slurm_accounts=[],
                )
                for n in range(200)
            ]
        )  # fmt: skip
        groups = store([UserGroup(name=f"Group {n}") for n in range(10)])
        store([LinkUserGroup(user_id=p.id, group_id=g.id) for p in people for g in draw.sample(groups, 3)])
        packages = store(
            [
                TaskGroupV2(
                    user_id=draw.choice(people).id, resource_id=resource.id, origin="pypi", version="1.0.0",
                    pkg_name=f"package-{n}", user_group_id=draw.choice(groups).id,
                )
                for n in range(120)
            ]
        )  # fmt: skip
        tasks = store(
            [
                TaskV2(
                    name=f"Task {n}", type="parallel", command_parallel="true", version="1.0.0",
                    taskgroupv2_id=group.id, tags=[], category="Image Processing",
                )
                for group in packages
                for n in range(8)
            ]
        )  # fmt: skip
        images = [{"zarr_url": f"/z/{n}", "attributes": {}, "types": {}} for n in range(20)]
        for number in range(PROJECTS):
            (project,) = store([ProjectV2(name=f"Project {number}", resource_id=resource.id)])
            store(
                [
                    LinkUserProjectV2(
                        project_id=project.id, user_id=p.id, is_owner=n == 0, is_verified=True,
                        permissions="r" if n else "rwx",
                    )
                    for n, p in enumerate([people[0], *draw.sample(people[1:], 12)])
                ]
            )  # fmt: skip
            flows = store([WorkflowV2(name=f"Flow {n}", project_id=project.id) for n in range(WORKFLOWS)])
            steps = store(
                [
                    WorkflowTaskV2(
                        workflow_id=flow.id, order=n, task_type="parallel", task_id=task.id, type_filters={}
                    )
                    for flow in flows
                    for n, task in enumerate(draw.sample(tasks, TASKS))
                ]
            )
            sets = store(
                [
                    DatasetV2(
                        name=f"Set {n}", project_id=project.id, zarr_dir=f"/zarr/{number}/{n}", history=[],
                        images=images,
                    )
                    for n in range(DATASETS)
                ]
            )  # fmt: skip
            born = "2026-10-01T10:00:00+00:00"
            dump = {"id": project.id, "name": project.name, "timestamp_created": born}
            jobs = []
            for n in range(JOBS):
                flow, data = draw.choice(flows), sets[n % DATASETS]
                inner = {"project_id": project.id, "timestamp_created": born}
                jobs.append(
                    JobV2(
                        project_id=project.id, workflow_id=flow.id, dataset_id=data.id,
                        user_email=draw.choice(people).email, first_task_index=0, last_task_index=3,
                        status=draw.choice(STATUSES[:3]), project_dump=dump, attribute_filters={},
                        type_filters={}, log="A line of a log. " * 20,
                        workflow_dump={"id": flow.id, "name": flow.name, **inner},
                        dataset_dump={"id": data.id, "name": data.name, "zarr_dir": data.zarr_dir, **inner},
                    )
                )  # fmt: skip
            store(jobs)
            runs = store(
                [
                    HistoryRun(
                        dataset_id=draw.choice(sets).id, workflowtask_id=draw.choice(steps).id, job_id=job.id,
                        task_id=draw.choice(tasks).id, workflowtask_dump={}, task_group_dump={},
                        status=draw.choice(STATUSES[:3]), num_available_images=20,
                    )
                    for job in jobs
                    for _ in range(2)
                ]
            )  # fmt: skip
            store(
                [
                    HistoryUnit(history_run_id=run.id, logfile="/log", status=run.status, zarr_urls=["/z/1"])
                    for run in runs
                    for _ in range(2)
                ]
            )
        db.commit()


class Fractal(scenario.Host):
    """What the scenario asks of the host."""

    name = "fractal"
    queue_url = os.environ["HOST_DATABASE"]

    def __init__(self, app: Any, client: Any) -> None:
        from fractal_server.app.db import DB

        self.app, self.client, self.db, self.migration = app, client, DB, ""
        self.served = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve the application, or what stands before it at the moment: on one event loop for all."""
        await self.served(scope, receive, send)

    def pages(self) -> dict[str, Callable[[], str]]:
        from fractal_server.app.models.v2 import DatasetV2, JobV2, ProjectV2, WorkflowV2
        from sqlmodel import select

        with next(self.db.get_sync_db()) as db:
            project = db.scalars(select(ProjectV2.id).where(ProjectV2.name == "Project 7")).one()
            flow = db.scalars(select(WorkflowV2.id).where(WorkflowV2.project_id == project)).first()
            data = db.scalars(select(DatasetV2.id).where(DatasetV2.project_id == project)).first()
            job = db.scalars(select(JobV2.id).where(JobV2.project_id == project)).first()
        form = {"username": "p0@example.org", "password": "password"}
        token = self.client.post("/auth/token/login/", data=form).json()["access_token"]
        mine = {"Authorization": f"Bearer {token}"}
        at, both = f"/api/v2/project/{project}", f"workflow_id={flow}&dataset_id={data}"
        out: dict[str, Callable[[], str]] = {
            path: lambda p=path: self._get(p, {}) for path in ("/api/alive/", "/openapi.json")
        }
        for path in (
            "/auth/current-user/", "/auth/users/", "/auth/group/", "/api/v2/project/", f"{at}/",
            f"{at}/access/", f"{at}/dataset/", f"{at}/dataset/{data}/", f"{at}/dataset/{data}/history/",
            f"{at}/workflow/", f"{at}/workflow/{flow}/", f"{at}/workflow/{flow}/job/",
            f"{at}/workflow/{flow}/version-update-candidates/", f"{at}/job/", f"{at}/job/{job}/",
            f"{at}/status/?{both}", "/api/v2/job/", "/api/v2/task/", "/api/v2/task-group/",
            f"/admin/v2/job/?project_id={project}", "/admin/v2/task/?category=Segmentation",
            "/admin/v2/job/?user_email=p7@example.org&status=failed",
        ):  # fmt: skip
            out[path] = lambda p=path: self._get(p, mine)
        return out

    def _get(self, path: str, headers: dict[str, str]) -> str:
        answer = self.client.get(path, headers=headers)
        text = answer.text
        if answer.headers.get("content-type") == "application/json":
            text = json.dumps(scenario.ordered(answer.json()))
        return f"{answer.status_code}\n{text}"

    @contextmanager
    def ours(self) -> Iterator[None]:
        from eventperf.cache import CacheManager
        from eventperf.contrib.http import HttpCacheMiddleware

        with CacheManager(os.environ["HOST_REDIS"], namespace="fractal") as cache:
            self.served = HttpCacheMiddleware(self.app, cache, ttl="60s")
            try:
                yield
                stats = cache.stats()
                assert stats.stores == 2 <= stats.hits, stats  # the two that need no login, no other
                self._follows(cache)
            finally:
                self.served = self.app

    def _follows(self, cache: Any) -> None:
        """A cached read of its tables is forgotten after a commit of its own endpoints, and only then."""
        from fractal_server.app.models.v2 import ProjectV2
        from sqlmodel import func, select

        from eventperf.contrib.sqlalchemy import follow

        engine, loads = self.db.engine_async(), []

        @cache.cached(ttl="5m", key="projects", follows=[ProjectV2])
        async def projects() -> int:
            loads.append(1)
            async with self.db._async_session_maker() as session:
                return int((await session.execute(select(func.count(ProjectV2.id)))).scalar_one())

        def read() -> int:
            return int(self.client.portal.call(projects))

        form = {"username": "p0@example.org", "password": "password"}
        token = self.client.post("/auth/token/login/", data=form).json()["access_token"]
        mine = {"Authorization": f"Bearer {token}"}
        stop = follow(cache, engine)
        try:
            before = read()
            assert read() == before
            assert len(loads) == 1
            refused = self.client.post("/api/v2/project/", json={"name": ""}, headers=mine)
            assert refused.status_code == 422, refused.text
            assert (read(), len(loads)) == (before, 1)
            made = self.client.post("/api/v2/project/", json={"name": "Followed"}, headers=mine)
            assert made.status_code == 201, made.text
            assert read() == before + 1
            gone = self.client.delete(f"/api/v2/project/{made.json()['id']}/", headers=mine)
            assert gone.status_code == 204, gone.text
            assert read() == before
        finally:
            stop()

    @contextmanager
    def recording(self) -> Iterator[Any]:
        from eventperf.dbopt import QueryRecorder

        with QueryRecorder(self.db.engine_async(), own=["fractal_server"], frames=2) as recorder:
            yield recorder

    def counting(self) -> AbstractContextManager[Counter[str]]:
        return scenario.counted(self.db.engine_async().sync_engine)

    def engine(self) -> Any:
        return self.db.engine_async()

    def migrate(self, advice: Any) -> Callable[[], None]:
        self.migration, back = scenario.alembic_migrated(advice, alembic_config)
        return back

    def drift(self, advice: Any) -> str:
        from sqlmodel import SQLModel

        return scenario.alembic_drift(self.db.engine_sync(), SQLModel.metadata, self.migration)

    def enqueue(self, queues: Any, data: int, *, commit: bool) -> Any:
        from fractal_server.app.models import UserGroup

        async def write() -> Any:
            async with self.db._async_session_maker() as session:
                session.add(UserGroup(name=f"Side {data}"))
                job = await queues.aenqueue("side", data, session=session)
                await (session.commit() if commit else session.rollback())
                return job

        return self.client.portal.call(write)


if __name__ == "__main__":
    from starlette.testclient import TestClient

    application = settle()
    if not os.environ.get("HOST_FILLED"):
        fill()
    host = Fractal(application, None)
    with TestClient(host) as host.client:
        scenario.run(host)
