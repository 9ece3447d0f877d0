"""A Flask application with a cache and a queue; run as a script it makes a few requests of itself."""

from __future__ import annotations

from typing import Any

from flask import Flask, current_app

from eventperf.cache import CacheManager
from eventperf.contrib.flask import EventPerf
from eventperf.queues import JobContext, QueueManager

ep = EventPerf(cache=CacheManager(), queues=QueueManager("memory://"))  # redis://... in production
EVENTS = {1: "PyCon", 2: "EuroPython"}


@ep.cache.cached(ttl="1m", key="event:{event_id}", tags=["event:{event_id}"])
def load_event(event_id: int) -> dict[str, Any] | None:
    print(f"  database: event {event_id}")
    return {"id": event_id, "name": EVENTS[event_id]} if event_id in EVENTS else None


@ep.queues.job("report_generation")
def report(ctx: JobContext, data: int) -> str:
    return f"{current_app.name}: report of {EVENTS[data]}"


def create_app() -> Flask:
    app = Flask("shop")
    ep.init_app(app)

    @app.get("/events/<int:event_id>")
    def show(event_id: int) -> Any:
        event = load_event(event_id)
        return event or ({"error": "no such event"}, 404)

    @app.put("/events/<int:event_id>/<name>")
    def rename(event_id: int, name: str) -> Any:
        EVENTS[event_id] = name
        ep.cache.invalidate_tags(f"event:{event_id}")
        return {"ok": True}

    @app.post("/events/<int:event_id>/report")
    def enqueue(event_id: int) -> Any:
        return {"job": report.enqueue(event_id).id}, 202

    return app


def main() -> None:
    app = create_app()
    client = app.test_client()
    for path in ("/events/1", "/events/1", "/events/9"):
        response = client.get(path)
        print(response.status_code, response.json)
    client.put("/events/1/PyCon 2027")
    print(client.get("/events/1").json)
    job_id = client.post("/events/1/report").json["job"]
    app.test_cli_runner().invoke(
        args=["eventperf", "worker", "--burst"]
    )  # a process of its own in production
    print(ep.queues.result(job_id))


if __name__ == "__main__":
    main()
