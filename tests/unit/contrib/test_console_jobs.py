"""Jobs on the console: found, looked at and acted on, alone, together or all that match."""

from __future__ import annotations

import logging
import re
from random import Random
from typing import Any

import pytest

from console_asks import CURE, HOSTILE, assert_harmless, everything, get
from eventperf.contrib.console import Console, ConsoleAction, read_only
from eventperf.contrib.console.guard import COOKIE, token_of
from eventperf.contrib.console.parts.minutes import Minutes, _rate
from eventperf.contrib.console.view import listing
from eventperf.contrib.console.web import Request, Response
from eventperf.queues import JobSpec, JobState, Limit, QueueManager
from eventperf.queues.minutes import Interval, Metrics
from eventperf.testing import FakeClock
from eventperf.testing.queues import Station

WHOLE = {"1h": 3_600.0, "6h": 21_600.0, "24h": 86_400.0}


@pytest.fixture
def queues() -> QueueManager:
    found = QueueManager("memory://")

    @found.job("mail", attempts=1)
    def mail(ctx: Any, data: str) -> None:
        if data.startswith("bad"):
            raise ValueError(f"{HOSTILE} {data}")

    for data in ("bad 1", "bad 2", "good", HOSTILE):
        found.enqueue("mail", data, tags=["festival"] if data == "good" else [])
    found.worker().run(burst=True)
    found.enqueue("report", {"secret": "s3cr3t"}, delay="1h")
    return found


def dead(queues: QueueManager) -> list[str]:
    return [job.id for job in queues.jobs(state="failed").jobs]


def send(console: Console, path: str, **form: str | list[str]) -> Response:
    fields = {"csrf": token_of(CURE), "manager": "default", **form}
    headers = {"host": "h", "origin": "https://h", "cookie": f"{COOKIE}={CURE}"}
    given = {k: v if isinstance(v, list) else [v] for k, v in fields.items()}
    return console.respond(Request(method="POST", path=path, base="/ops", form=given, headers=headers))


def ids_on(answer: Response) -> set[str]:
    return set(re.findall(r'name="id" value="(.*?)"', answer.body.decode()))


def test_filters_find_what_they_name(queues: QueueManager) -> None:
    console = Console(queues=queues, may=everything)
    assert ids_on(get(console, "/queues/jobs", state="failed")) == set(dead(queues))
    (good,) = ids_on(get(console, "/queues/jobs", tag="festival"))
    assert queues.job_info(good).state is JobState.COMPLETED
    assert len(ids_on(get(console, "/queues/jobs", type="report"))) == 1
    assert b"No job matches" in get(console, "/queues/jobs", type="nothing").body
    odd = get(console, "/queues/jobs", state="<odd>")
    assert odd.status == 200
    assert b"waiting" in odd.body, "what is allowed"


def test_pages_follow_one_another_to_the_end(queues: QueueManager) -> None:
    for n in range(120):
        queues.enqueue("report", n, queue="low")
    console = Console(queues=queues, may=everything)
    seen: set[str] = set()
    query = {"queue": "low", "state": "waiting"}
    for _ in range(10):
        answer = get(console, "/queues/jobs", **query)
        assert not seen & ids_on(answer)
        seen |= ids_on(answer)
        cursor = re.search(r"cursor=([\w.%-]+)", answer.body.decode())
        if cursor is None:
            break
        query["cursor"] = cursor[1]
    assert len(seen) == 120


def test_the_chosen_jobs_run_again_and_no_other(queues: QueueManager) -> None:
    console = Console(queues=queues, may=everything)
    seen: list[ConsoleAction] = []
    console.on(seen.append)
    first, second = dead(queues)
    answer = send(console, "/queues/jobs", action="job.retry", id=[first])
    assert answer.status == 303
    assert "done=retry&n=1" in dict(answer.headers)["Location"]
    assert queues.job_info(first).state is JobState.WAITING
    assert queues.job_info(second).state is JobState.FAILED
    assert [(e.action, e.count) for e in seen] == [("job.retry", 1)]


def test_all_that_match_are_counted_first_and_touched_when_sure(queues: QueueManager) -> None:
    console = Console(queues=queues, may=everything)
    asked = send(console, "/queues/jobs", all="job.retry", state="failed")
    assert asked.status == 200
    assert b"2 jobs match" in asked.body
    assert len(dead(queues)) == 2
    done = send(console, "/queues/jobs", all="job.retry", state="failed", sure="1")
    assert "n=2" in dict(done.headers)["Location"]
    assert dead(queues) == []


def test_jobs_that_wait_get_another_time_and_others_are_left(queues: QueueManager) -> None:
    console = Console(queues=queues, may=everything)
    (late,) = (job.id for job in queues.jobs(state="delayed").jobs)
    assert b"Reschedule" in get(console, "/queues/job", id=late).body
    assert b"Reschedule" not in get(console, "/queues/job", id=dead(queues)[0]).body
    answer = send(console, "/queues/jobs", action="job.reschedule", id=[late, dead(queues)[0]], delay="0s")
    assert "done=reschedule&n=1" in dict(answer.headers)["Location"]
    assert queues.job_info(late).state is JobState.WAITING
    again = send(console, "/queues/jobs", all="job.reschedule", state="waiting", delay="2h")
    assert b"1 jobs match" in again.body
    assert b'name="delay" value="2h"' in again.body
    assert queues.job_info(late).state is JobState.WAITING, "it asks first"
    send(console, "/queues/jobs", all="job.reschedule", state="waiting", delay="2h", sure="1")
    assert queues.job_info(late).state is JobState.DELAYED
    odd = send(console, "/queues/job", action="job.reschedule", id=[late], delay="soon")
    assert odd.status == 409
    assert b"soon" in odd.body


def test_all_that_match_are_touched_across_queues(queues: QueueManager) -> None:
    queues.enqueue("mail", "bad 3", queue="low")
    queues.worker().run(burst=True)
    console = Console(queues=queues, may=everything)
    assert "n=3" in dict(send(console, "/queues/jobs", all="job.retry", sure="1").headers)["Location"]
    assert dead(queues) == []
    assert "n=4" in dict(send(console, "/queues/jobs", all="job.cancel", sure="1").headers)["Location"]
    assert not queues.jobs(state="waiting").jobs


def test_a_queue_is_emptied_of_one_state_once_that_is_confirmed(queues: QueueManager) -> None:
    console = Console(queues=queues, may=everything)
    form = {"action": "queue.purge", "subject": "normal", "state": "failed"}
    assert b"Delete 2 failed jobs of normal" in send(console, "/queues", **form).body
    assert len(dead(queues)) == 2
    assert "done=purge&n=2" in dict(send(console, "/queues", **form, sure="1").headers)["Location"]
    assert dead(queues) == []
    assert len(queues.jobs(state="completed").jobs) == 2, "other states stay"
    assert b"that are kept" in send(console, "/queues", **{**form, "state": "completed"}).body
    for odd in ({"state": "active"}, {"subject": "no queue"}):
        assert send(console, "/queues", **{**form, **odd}, sure="1").status == 409
    reader = Console(queues=queues, may=read_only)
    assert b"queue.purge" not in get(reader, "/queues").body
    assert send(reader, "/queues", **form, sure="1").status == 403


def test_nothing_chosen_does_nothing(queues: QueueManager) -> None:
    assert send(Console(queues=queues, may=everything), "/queues/jobs", action="job.retry").status == 409


def test_may_is_asked_for_each_job(queues: QueueManager) -> None:
    first, second = dead(queues)
    console = Console(
        queues=queues, may=lambda r, action, subject: action == "view" or subject in (None, first)
    )
    answer = send(console, "/queues/jobs", action="job.retry", id=[first, second])
    assert answer.status == 409
    assert len(dead(queues)) == 2, "all or none"


def test_a_job_s_page_tells_its_tries(queues: QueueManager) -> None:
    page = assert_harmless(get(Console(queues=queues, may=everything), "/queues/job", id=dead(queues)[0]))
    assert "ValueError" in page.text
    assert "Traceback" in page.text
    assert get(Console(queues=queues, may=everything), "/queues/job", id="unknown").status == 404


def test_payloads_are_hidden_unless_allowed(queues: QueueManager) -> None:
    (late,) = (job.id for job in queues.jobs(state="delayed").jobs)
    assert b"s3cr3t" not in get(Console(queues=queues, may=read_only), "/queues/job", id=late).body
    assert b"s3cr3t" in get(Console(queues=queues, may=everything), "/queues/job", id=late).body


def test_payloads_and_errors_stay_text(queues: QueueManager) -> None:
    console = Console(queues=queues, may=everything)
    for job in queues.jobs().jobs:
        assert_harmless(get(console, "/queues/job", id=job.id))
    assert_harmless(get(console, "/queues/jobs"))
    assert_harmless(get(console, "/queues/jobs", text=HOSTILE, tag=HOSTILE))


def test_minutes_are_drawn_and_listed(queues: QueueManager) -> None:
    console = Console(queues=queues, may=everything)
    for span in ("1h", "24h", "nonsense"):
        page = assert_harmless(get(console, "/queues", span=span))
        assert "Jobs a minute" in page.text
        assert "mail" in page.text
    assert "Jobs a minute" in get(console, "/").body.decode()


def test_schedules_say_when_they_come_next_and_limits_what_they_count() -> None:
    clock = FakeClock(time=1_800_000_000.0)
    limits = [Limit(queue="low", concurrency=3), Limit(type="mail", rate=100, per="1m", per_key=True)]
    north = QueueManager("memory://", limits=limits)
    north.job("mail")(lambda ctx, data: None)
    north.cron("nightly <b>", "30 3 * * *", "mail", queue="low", timezone="Europe/Berlin")
    north.cron("often", "5m", "mail")
    north.enqueue("mail", None, queue="low")
    south = QueueManager("memory://")
    console = Console(queues={"north": north, "south": south}, may=everything, clock=clock)
    page = assert_harmless(get(console, "/queues/rules", **{"in": "north"}))
    assert [attrs["datetime"] for name, attrs in page.tags if name == "time"] == [
        "2027-01-15T08:05:00.000+00:00", "2027-01-15T08:10:00.000+00:00", "2027-01-15T08:15:00.000+00:00",
        "2027-01-16T02:30:00.000+00:00", "2027-01-17T02:30:00.000+00:00", "2027-01-18T02:30:00.000+00:00",
    ]  # fmt: skip
    for text in ("nightly <b>", "30 3 * * * (Europe/Berlin)", "every 5 min", "3 at once", "100 in 1 min"):
        assert text in page.text
    links = [attrs["href"] for name, attrs in page.tags if name == "a"]
    assert "/ops/queues/rules?in=south" in links
    assert (
        "This process declares no schedule" in get(console, "/queues/rules", **{"in": "south"}).body.decode()
    )
    assert get(console, "/queues/rules", **{"in": "west"}).status == 404
    assert "/ops/queues/rules?in=north" in get(console, "/queues").body.decode()


def test_workers_are_shown_with_load_and_version(queues: QueueManager) -> None:
    console = Console(queues=queues, may=everything)
    assert b"No worker is alive" in get(console, "/queues/workers").body
    about = {"host": HOSTILE, "pid": 7, "version": "v1"}
    first = Station(queues, "report", name="w1", about=about)
    Station(queues, "mail", name="w2", about={"version": "v2"})
    queues.enqueue("report", 1)
    (lease,) = first.take(1)
    page = assert_harmless(get(console, "/queues/workers"))
    assert "Workers of several versions run: v1 (1), v2 (1)" in page.text
    assert re.search(r"w1\s*critical, high, low, normal\s*1\s*1,000\s*0%", page.text)
    assert "<script>alert(1)</script>" in page.text
    assert b"/ops/queues/workers?in=default" in get(console, "/queues").body
    first.end(lease)


def test_who_may_not_see_payloads_learns_nothing_of_them_in_other_ways() -> None:
    """Not by searching, not from errors, tracebacks, log lines or headers."""
    queues = QueueManager("memory://")

    @queues.job("typed", attempts=1)
    def typed(ctx: Any, data: dict[str, str]) -> None:
        logging.getLogger("shop").warning("charging %s", data["card"])
        raise ValueError(f"no such card: {data['card']}")

    order = {"card": "4111-SECRET"}
    typed.enqueue(order, headers={"authorization": "Bearer 4111-SECRET"})
    queues.worker().run(burst=True)
    queues.enqueue("typed", order, queue="low", delay="1h")
    shy, seeing = (Console(queues=queues, may=may) for may in (read_only, everything))
    (job,) = dead(queues)
    for path, query in (("/queues/jobs", {}), ("/queues/job", {"id": job}), ("/", {}), ("/queues", {})):
        page = assert_harmless(get(shy, path, **query))
        assert "SECRET" not in page.text, path
    assert "ValueError" in get(shy, "/queues/job", id=job).body.decode(), "its kind is no secret"
    page = assert_harmless(get(seeing, "/queues/job", id=job))
    for text in ("no such card: 4111-SECRET", "charging 4111-SECRET", "Bearer 4111-SECRET", "Traceback"):
        assert text in page.text
    for guess in ("4111", "4112"):
        answer = get(shy, "/queues/jobs", text=guess)
        assert ids_on(answer) == set()
        assert b"for those who may see payloads" in answer.body
        assert job not in answer.body.decode()
    assert job in get(seeing, "/queues/jobs", text="4111").body.decode()
    blind = Console(queues=queues, may=lambda r, action, subject: action in ("view", "job.cancel"))
    assert send(blind, "/queues/jobs", all="job.cancel", text="4111", sure="1").status == 409
    assert len(queues.jobs(state="delayed").jobs) == 1


def test_a_job_names_what_it_comes_after_and_what_comes_after_it(queues: QueueManager) -> None:
    console = Console(queues=queues, may=everything)
    *first, last = queues.batch([JobSpec(type="report")] * 60, then=JobSpec(type=HOSTILE[:20]))
    page = assert_harmless(get(console, "/queues/job", id=last.id))
    shown = {attrs["href"] for name, attrs in page.tags if name == "a" and "id=" in (attrs["href"] or "")}
    assert shown == {f"/ops/queues/job?in=default&id={job.id}" for job in first[:50]}
    assert "The first 50 of 60" in page.text
    assert "Runs once all of these have ended" in page.text
    back = assert_harmless(get(console, "/queues/job", id=first[0].id))
    assert f"/ops/queues/job?in=default&id={last.id}" in [a.get("href") for _, a in back.tags]
    assert "What comes after it" in back.text
    assert "Comes after" not in back.text, "it comes after nobody"


def test_many_children_are_bounded_and_gone_parents_are_said(queues: QueueManager) -> None:
    parent = queues.enqueue("report")
    children = [queues.enqueue("report", after=[parent]) for _ in range(55)]
    console = Console(queues=queues, may=everything)
    assert "The first 50; there are more." in assert_harmless(get(console, "/queues/job", id=parent.id)).text
    assert parent.cancel()
    assert queues.delete(parent.id) == 1
    assert "no longer kept" in assert_harmless(get(console, "/queues/job", id=children[0].id)).text


def test_a_job_is_deleted_once_that_is_confirmed_and_told(queues: QueueManager) -> None:
    console = Console(queues=queues, may=everything)
    heard: list[ConsoleAction] = []
    console.on(heard.append, ConsoleAction)
    gone, stays = dead(queues)
    form = {"id": gone, "action": "job.delete", "subject": gone}
    question = send(console, "/queues/job", **form)
    assert "Delete 1 jobs for good?" in assert_harmless(question).text
    assert dead(queues) == [gone, stays]
    assert not heard, "asking is no deed"
    answer = send(console, "/queues/job", **form, sure="1")
    assert dict(answer.headers)["Location"] == "/ops/queues/jobs?done=delete&n=1&in=default"
    assert dead(queues) == [stays]
    assert [(e.action, e.subject, e.count, e.outcome) for e in heard] == [("job.delete", gone, 1, "done")]


def test_chosen_jobs_are_deleted_and_those_that_wait_are_left_and_said(queues: QueueManager) -> None:
    console = Console(queues=queues, may=everything)
    (waits,) = [job.id for job in queues.jobs(state="delayed").jobs]
    chosen = [*dead(queues), waits]
    question = send(console, "/queues/jobs", id=chosen, action="job.delete")
    assert ids_on(question) == set(chosen)
    answer = send(console, "/queues/jobs", id=chosen, action="job.delete", sure="1")
    told = get(console, "/queues/jobs", done="delete", n="2", left="1")
    assert dict(answer.headers)["Location"] == "/ops/queues/jobs?done=delete&n=2&left=1&in=default"
    assert "2 jobs were deleted. 1 were left: they wait or run" in assert_harmless(told).text
    assert dead(queues) == []
    assert queues.job_info(waits).state is JobState.DELAYED


@pytest.mark.parametrize(
    ("action", "state", "n"),
    [("job.delete", "", 4), ("job.delete", "completed", 2), ("job.retry", "", 2), ("job.cancel", "", 1)],
)
def test_all_that_match_are_those_in_a_state_for_it(
    queues: QueueManager, action: str, state: str, n: int
) -> None:
    console = Console(queues=queues, may=everything)
    question = send(console, "/queues/jobs", all=action, state=state)
    assert f">{n} jobs match" in question.body.decode()
    before = sum(len(queues.jobs(state=s).jobs) for s in ("failed", "completed", "cancelled"))
    answer = send(console, "/queues/jobs", all=action, state=state, sure="1")
    assert f"n={n}&in" in dict(answer.headers)["Location"]
    if action == "job.delete":
        left = sum(len(queues.jobs(state=s).jobs) for s in ("failed", "completed", "cancelled"))
        assert left == before - n


def test_a_state_in_which_nothing_can_be_done_is_said(queues: QueueManager) -> None:
    console = Console(queues=queues, may=everything)
    answer = send(console, "/queues/jobs", all="job.delete", state="delayed", sure="1")
    assert answer.status == 409
    assert "only ended jobs (completed, dead or cancelled) can be deleted" in assert_harmless(answer).text
    assert len(queues.jobs(state="delayed").jobs) == 1


def test_deleting_needs_a_permission_of_its_own(queues: QueueManager) -> None:
    console = Console(queues=queues, may=lambda request, action, subject: action != "job.delete")
    assert b'value="job.delete"' not in get(console, "/queues/jobs").body
    (gone, _) = dead(queues)
    assert b"job.delete" not in get(console, "/queues/job", id=gone).body
    assert send(console, "/queues/job", id=gone, action="job.delete", sure="1").status == 403
    assert len(dead(queues)) == 2


def test_minutes_are_read_once_for_all_open_pages(
    queues: QueueManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    metrics = queues.metrics
    monkeypatch.setattr(queues, "metrics", lambda since, step: (asked.append(since), metrics(since, step))[1])
    clock = FakeClock()
    console = Console(queues=queues, may=everything, clock=clock)
    for path, query in (
        ("/", {}),
        ("/queues", {}),
        ("/queues", {"span": "24h"}),
        ("/queues", {"span": "24h"}),
    ):
        assert get(console, path, **query).status == 200
    assert asked == ["1h", "24h"]
    clock.advance(6)
    get(console, "/queues")
    get(console, "/queues", span="24h")
    (*_, last) = asked
    assert asked[:2] == ["1h", "24h"], "a day is read once a minute"
    assert isinstance(last, float), "and of an hour what came since"
    assert last < 180


def test_each_type_is_counted_by_itself_however_often_it_is_looked_at() -> None:
    queues = QueueManager("memory://")
    for kind, many in (("mail", 3), ("ticket", 4)):
        queues.job(kind)(lambda ctx, data: None)
        queues.enqueue_many(kind, range(many))
    queues.worker().run(burst=True)
    console = Console(queues=queues, may=everything)
    for path in ("/", "/queues", "/queues"):
        page = assert_harmless(get(console, path))
    table = page.text[page.text.index("By queue and type") :]
    assert re.search(r"normalticket4000.*normalmail3000", table, re.DOTALL), "failed, retried, crashed too"


def test_a_queue_is_drawn_by_its_types_when_it_is_asked_for() -> None:
    queues = QueueManager("memory://")
    for kind, queue in (("mail", "normal"), (HOSTILE[:40], "normal"), ("badge", "low")):
        queues.job(kind)(lambda ctx, data: None)
        queues.enqueue(kind, 1, queue=queue)
    queues.worker().run(burst=True)
    console = Console(queues={"north": queues, "south": QueueManager("memory://")}, may=everything)
    legends = r"<rect [^>]*class=\"b\d\"[^>]*/><text[^>]*>(.*?)</text>"
    whole = get(console, "/queues").body.decode()
    assert set(re.findall(legends, whole)) == {"normal", "low"}
    assert "/ops/queues?in=north&amp;queue=normal&amp;span=1h" in whole
    one = get(console, "/queues", queue="normal", **{"in": "north"})
    assert_harmless(one)
    assert {"mail", "badge"} & set(re.findall(legends, one.body.decode())) == {"mail"}
    assert "badge" not in one.body.decode(), "nor in the table"
    assert "/ops/queues?in=north&amp;queue=normal&amp;span=24h" in one.body.decode()
    for odd in ({"in": "south", "queue": "normal"}, {"in": "north", "queue": "none"}):
        assert set(re.findall(legends, get(console, "/queues", **odd).body.decode())) == {"normal", "low"}


def test_a_row_that_does_not_fit_its_headings_is_no_table() -> None:
    with pytest.raises(ValueError, match="zip"):
        listing("figures", ["name", "count", "share"], [("a", 1)])


def test_enter_in_the_field_of_a_time_gives_that_time_and_does_not_cancel(queues: QueueManager) -> None:
    page = assert_harmless(get(Console(queues=queues, may=everything), "/queues/jobs"))
    form = page.tags[max(n for n, (name, _) in enumerate(page.tags) if name == "form") :]
    first = next(attributes for name, attributes in form if name == "button")
    assert first["value"] == "job.reschedule", "a browser takes the first button"


def test_minutes_that_are_over_are_kept_as_a_whole_look_would_find_them() -> None:
    clock, dice = FakeClock(time=1_800_000_007.0), Random(5)
    queues = QueueManager("memory://", clock=clock)
    for kind in ("mail", "ticket"):
        queues.job(kind, attempts=1)(lambda ctx, data: 1 / dice.randrange(3))
    seen = Minutes(queues, clock)
    for _ in range(60):
        queues.enqueue_many(dice.choice(("mail", "ticket")), range(dice.randrange(4)))
        clock.advance(dice.choice((3, 20, 70, 400, 2_000)))
        queues.worker().run(burst=True)
        for span in ("1h", "6h", "24h"):
            found = seen.of(span)
            if found.until == clock.time():  # read just now
                back_s = found.until - found.since
                assert WHOLE[span] <= back_s <= WHOLE[span] + found.step_s + 60
                again = queues.metrics(since=back_s - found.step_s, step=found.step_s)
                assert again.since == found.since + found.step_s, "a store may keep no more than a day"
                assert again.intervals == [one for one in found.intervals if one.at >= again.since], span
    clock.advance(90_000)
    assert seen.of("24h").intervals == []


def test_the_open_minute_is_no_dip() -> None:
    interval = Interval(at=600.0, queue="q", type="t", completed=30)
    half = Metrics(since=600.0, until=630.0, step_s=60.0, intervals=[interval])
    assert _rate(interval, 600.0, half) == 60.0
