"""The console: who may look and act, what a page may carry, and what a broken part does to the rest."""

from __future__ import annotations

import argparse
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from console_asks import HOSTILE, Elements, assert_harmless, everything, get, post
from eventperf.cache import CacheManager, Loaded
from eventperf.cli import console as command
from eventperf.contrib.console import Console, ConsoleAction, read_only, staff_only
from eventperf.contrib.console.guard import COOKIE
from eventperf.contrib.console.parts.loads import Loads
from eventperf.contrib.console.web import Request
from eventperf.dbopt import DatabaseOptimizer, QueryRecorder, Workload
from eventperf.dbopt.changes.report import ApplyReport
from eventperf.dbopt.findings import IndexAdvice
from eventperf.dbopt.schema.model import IndexSpec, Key
from eventperf.errors import ConfigurationError, StoreUnavailable
from eventperf.queues import QueueManager
from eventperf.scaling import (
    Alert,
    AutoScaler,
    CallableMetrics,
    DecisionLog,
    LatencyPolicy,
    ScalingDecision,
    SimulatedTarget,
    TargetTracking,
)
from eventperf.testing import FakeClock


def scaler(rps: float = 300.0) -> AutoScaler:
    web = SimulatedTarget(replicas=2)
    return AutoScaler(web, CallableMetrics(rps=lambda: rps), TargetTracking(rps=50), max_replicas=10)


@pytest.mark.parametrize("may", [None, True, "staff"])
def test_it_refuses_to_be_built_without_an_answer_to_who_may(may: Any) -> None:
    with pytest.raises(ConfigurationError, match="may"):
        Console(may=may)


def test_a_no_to_view_shows_nothing_of_any_part() -> None:
    queues = QueueManager("memory://", namespace="secret-tenant")
    console = Console(queues=queues, may=lambda request, action, subject: False)
    for path in ("/", "/queues", "/nope"):
        answer = get(console, path)
        assert answer.status == 403
        assert b"secret-tenant" not in answer.body


@pytest.mark.parametrize("answer", [1, "yes", None, object()])
def test_only_true_is_a_yes(answer: Any) -> None:
    assert get(Console(may=lambda *a: answer), "/").status == 403


def test_a_raising_may_is_a_no(caplog: pytest.LogCaptureFixture) -> None:
    def may(request: Any, action: str, subject: str | None) -> bool:
        raise RuntimeError("database is down")

    assert get(Console(may=may), "/").status == 403
    assert "taken as a no" in caplog.text


def test_read_only_shows_and_does_nothing() -> None:
    queues, cache = QueueManager("memory://"), CacheManager()
    cache.set("greeting", "hello secret")
    console = Console(queues=queues, cache=cache, scaler=scaler(), may=read_only)
    for path in ("/", "/queues", "/cache", "/scaling"):
        page = assert_harmless(get(console, path))
        assert not [t for t in page.tags if t[0] == "form" and t[1].get("method") == "post"]
    assert b"hello secret" not in get(console, "/cache", key="greeting", **{"in": cache.namespace}).body
    for path, action in (
        ("/queues", "queue.pause"),
        ("/cache", "cache.invalidate"),
        ("/scaling", "scaling.freeze"),
    ):
        assert post(console, path, action=action, subject="normal", manager="default").status == 403
    assert not any(s.paused for s in queues.status())


@pytest.mark.parametrize(
    ("user", "may"),
    [((True, True), True), ((True, False), False), ((False, True), False), (None, False)],
)
def test_staff_only_asks_the_host_for_active_staff(user: tuple[bool, bool] | None, may: bool) -> None:
    class Native:
        pass

    native = Native()
    if user is not None:
        native.user = type("User", (), {"is_staff": user[0], "is_active": user[1]})()  # type: ignore[attr-defined]
    assert staff_only(native, "job.retry", "1") is may
    assert staff_only({"user": getattr(native, "user", None)}, "view", None) is may


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({"origin": "https://evil.example"}, None),
        ({"origin": "null"}, None),
        ({"origin": "", "referer": "https://evil.example/ops/queues"}, None),
        ({"origin": ""}, None),
        ({"origin": "", "sec-fetch-site": "cross-site"}, None),
        ({"origin": "https://ops.example.evil.example"}, None),
        ({"cookie": ""}, None),
        ({"cookie": f"{COOKIE}={'a' * 48}"}, None),
        ({}, "0" * 64),
        ({}, ""),
        ({}, "\udcff"),
    ],
)
def test_a_form_from_elsewhere_does_nothing(headers: dict[str, str], token: str | None) -> None:
    queues = QueueManager("memory://")
    console = Console(queues=queues, may=everything)
    form = {"action": "queue.pause", "subject": "normal", "manager": "default"}
    if token is not None:
        form["csrf"] = token
    assert post(console, "/queues", headers, **form).status == 403
    assert not any(s.paused for s in queues.status())


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "", "referer": "https://ops.example/ops/"},
        {"origin": "", "sec-fetch-site": "same-origin"},
    ],
)
def test_a_form_of_its_own_page_does_what_it_says_and_is_told(headers: dict[str, str]) -> None:
    queues = QueueManager("memory://")
    console = Console(queues=queues, may=everything)
    seen: list[ConsoleAction] = []
    console.on(seen.append, ConsoleAction)
    form = {"action": "queue.pause", "subject": "normal", "manager": "default"}
    answer = post(console, "/queues", headers, **form)
    assert answer.status == 303
    assert dict(answer.headers)["Location"].startswith("/ops/queues?done=pause")
    assert [s.paused for s in queues.status() if s.name == "normal"] == [True]
    (event,) = seen
    assert (event.action, event.subject, event.outcome) == ("queue.pause", "normal", "done")


def test_the_audit_hears_of_what_was_refused_too(caplog: pytest.LogCaptureFixture) -> None:
    console = Console(queues=QueueManager("memory://"), may=read_only)
    seen: list[ConsoleAction] = []
    console.on(seen.append)
    with caplog.at_level(logging.INFO, "eventperf.console"):
        post(console, "/queues", action="queue.pause", subject="a\nb", manager="default")
    assert [(e.action, e.outcome) for e in seen] == [("queue.pause", "forbidden")]
    assert len(caplog.records) == 1
    assert "\n" not in caplog.records[0].getMessage()


def forgets(request: Any) -> str:
    raise LookupError("no session")


@pytest.mark.parametrize(
    ("who", "told"), [(None, "unknown"), (lambda request: "ada", "ada"), (forgets, "unknown")]
)
def test_the_host_says_who_did_it(who: Any, told: str) -> None:
    console = Console(queues=QueueManager("memory://"), may=everything, who=who)
    seen: list[ConsoleAction] = []
    console.on(seen.append)
    post(console, "/queues", action="queue.pause", subject="low", manager="default")
    assert [event.who for event in seen] == [told], "a who() that fails keeps nobody's deed from being told"
    with pytest.raises(ConfigurationError, match="who"):
        Console(may=everything, who="ada")  # type: ignore[arg-type]


def whole_console(folder: Path, may: Any) -> Console:
    """Return a console with every part, and something in each."""
    queues, cache = QueueManager("memory://"), CacheManager(namespace="site")
    queues.job("mail", attempts=1)(lambda ctx, data: 1 / 0)
    queues.enqueue("mail", {"card": "SECRET"}, id="one")
    queues.worker().run(burst=True)
    cache.set("k", "SECRET")
    engine = create_engine(f"sqlite:///{folder}/shop.db")
    recorder = QueryRecorder(engine)
    with engine.connect() as db:
        db.execute(text("SELECT name FROM sqlite_master WHERE name = 'SECRET'")).all()
    web = scaler()
    web.tick()
    optimizer = DatabaseOptimizer(engine, source=recorder)
    return Console(queues=queues, cache=cache, optimizer=optimizer, scaler={"web": web}, may=may)


DEEDS: dict[str, tuple[str, dict[str, str]]] = {
    "queue.pause": ("/queues", {"subject": "low", "manager": "default"}),
    "queue.resume": ("/queues", {"subject": "low", "manager": "default"}),
    "queue.purge": ("/queues", {"subject": "normal", "manager": "default", "state": "failed", "sure": "1"}),
    "job.retry": ("/queues/jobs", {"manager": "default", "id": "one"}),
    "job.cancel": ("/queues/jobs", {"manager": "default", "id": "one"}),
    "job.reschedule": ("/queues/jobs", {"manager": "default", "id": "one", "delay": "1h"}),
    "job.delete": ("/queues/jobs", {"manager": "default", "id": "one", "sure": "1"}),
    "cache.invalidate": ("/cache", {"subject": "site", "by": "key", "what": "k"}),
    "database.advise": ("/database", {"subject": "advice"}),
    "database.apply": ("/database", {"subject": "advice"}),
    "scaling.freeze": ("/scaling", {"subject": "web"}),
    "scaling.unfreeze": ("/scaling", {"subject": "web"}),
}


@pytest.mark.parametrize("allowed", DEEDS)
def test_one_permission_is_one_deed(allowed: str, tmp_path: Path) -> None:
    console = whole_console(tmp_path, lambda request, action, subject: action in ("view", allowed))
    assert {action for part in console._parts.values() for action in part.actions} == DEEDS.keys()
    told = [
        attributes["value"] for path in ("/queues", "/queues/jobs", "/cache", "/database", "/scaling")
        for _, attributes in assert_harmless(get(console, path)).tags if attributes.get("value") in DEEDS
    ]  # fmt: skip
    assert set(told) <= {allowed}, "no form for anything else"
    for action, (path, form) in DEEDS.items():
        status = post(console, path, action=action, **form).status
        assert (status == 403) is (action != allowed), (action, status)


@pytest.mark.parametrize(
    ("action", "path", "query"),
    [
        ("view.payload", "/queues/job", {"id": "one"}),
        ("view.value", "/cache", {"in": "site", "key": "k"}),
        ("view.sql", "/database", {}),
    ],
)
def test_what_users_typed_is_seen_by_the_one_permission_for_it(
    action: str, path: str, query: dict[str, str], tmp_path: Path
) -> None:
    others = {"view", "view.payload", "view.value", "view.sql", *DEEDS} - {action}
    blind = whole_console(tmp_path, lambda request, asked, subject: asked in others)
    seeing = whole_console(tmp_path, lambda request, asked, subject: asked in ("view", action))
    assert b"SECRET" not in get(blind, path, **query).body
    assert b"SECRET" in get(seeing, path, **query).body


def test_every_answer_forbids_what_a_page_does_not_need() -> None:
    console = Console(may=everything)
    for path in ("/", "/nope", "/console.css", "/console.js"):
        headers = dict(get(console, path).headers)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_host_whose_middleware_sends_the_policy_may_have_that_alone() -> None:
    """pretix raises an error for a policy that names ``base-uri``: all pages of the console were a 500."""
    for path in ("/", "/nope", "/console.js"):
        headers = dict(get(Console(may=everything, policy=False), path).headers)
        assert "Content-Security-Policy" not in headers
        assert headers["X-Frame-Options"] == "DENY", "the rest stays"


def test_what_users_typed_stays_text_on_every_page() -> None:
    queues, cache = QueueManager("memory://", namespace="n"), CacheManager()
    cache.set("k", {HOSTILE: HOSTILE})
    odd = scaler()
    odd.metrics = CallableMetrics(rps=lambda: (_ for _ in ()).throw(RuntimeError(HOSTILE)))
    odd.tick()
    console = Console(
        queues={HOSTILE: queues}, cache={HOSTILE: cache}, scaler={HOSTILE: odd}, title=HOSTILE, may=everything
    )
    for path, query in (
        ("/", {}), ("/queues", {}), ("/cache", {"in": HOSTILE, "key": "k"}),
        ("/cache", {"key": HOSTILE, "in": HOSTILE}),
        ("/scaling", {}), (f"/{HOSTILE}", {}), ("/", {"done": HOSTILE, "n": HOSTILE}),
    ):  # fmt: skip
        page = assert_harmless(get(console, path, **query))
        assert "<script>alert(1)</script>" in page.text


def test_a_part_that_fails_leaves_the_others_standing() -> None:
    class Down(CacheManager):
        def stats(self) -> Any:
            raise StoreUnavailable("no answer from redis:6379")

    console = Console(queues=QueueManager("memory://"), cache=Down(), may=everything)
    answer = get(console, "/")
    assert answer.status == 200
    assert b"no answer from redis:6379" in answer.body
    assert b"critical" in answer.body
    assert get(console, "/cache").status == 503


def test_a_pattern_is_counted_before_anything_goes() -> None:
    cache = CacheManager()
    for n in range(5):
        cache.set(f"user:{n}", n)
    console = Console(cache=cache, may=everything)
    form = {"action": "cache.invalidate", "subject": cache.namespace, "by": "pattern", "what": "user:*"}
    asked = post(console, "/cache", **form)
    assert asked.status == 200
    assert b"5 entries" in asked.body
    assert cache.get("user:3") == 3
    assert post(console, "/cache", sure="1", **form).status == 303
    assert cache.get("user:3") is None


def test_the_keys_that_cost_most_to_load_are_named_to_those_who_may_see_values() -> None:
    cache = CacheManager()
    console = Console(cache=cache, may=everything)
    for _ in range(3):
        cache.delete("dear")
        cache.get_or_load("dear", list)
    with pytest.raises(ZeroDivisionError):
        cache.get_or_load(HOSTILE, lambda: 1 / 0)
    page = assert_harmless(get(console, "/cache"))
    assert re.search(r"dear\s*3\s*0", page.text)
    assert "<script>alert(1)</script>" in page.text
    shy = Console(cache=cache, may=lambda r, action, s: action == "view")
    cache.get_or_load("private", lambda: 1)
    assert b"private" not in get(shy, "/cache").body


def test_what_a_cache_loads_is_kept_bounded_and_the_dearest_stay() -> None:
    loads = Loads(cache := CacheManager())
    core_hooks = cache._core.hooks
    core_hooks.emit(Loaded("dearest", 60.0))
    for n in range(10_000):
        core_hooks.emit(Loaded(f"cheap {n}", 0.001))
    assert len(loads._known) <= 2_000
    assert "dearest" in loads._known


def test_a_scaler_is_frozen_and_let_go_and_the_overview_says_so() -> None:
    web = scaler()
    console = Console(scaler={"web": web}, may=everything)
    assert post(console, "/scaling", action="scaling.freeze", subject="web").status == 303
    assert web.frozen
    web.tick()
    assert b"is frozen" in get(console, "/").body
    post(console, "/scaling", action="scaling.unfreeze", subject="web")
    assert not web.frozen


def test_a_log_of_a_scaler_elsewhere_can_be_looked_at_only() -> None:
    web = scaler()
    web.tick()
    console = Console(scaler={"web": web.log}, may=everything)
    page = get(console, "/scaling").body.decode()
    assert "2 → 6" in page
    assert "Freeze" not in page
    assert post(console, "/scaling", action="scaling.freeze", subject="web").status == 409


def test_targets_of_one_log_are_named_and_can_be_chosen() -> None:
    web = scaler()
    web.tick()
    one = next(iter(web.log))
    console = Console(scaler={"day": [one, replace(one, target="api")]}, may=everything)
    page = get(console, "/scaling").body.decode()
    assert f"<td>{one.target}</td>" in page
    assert "<td>api</td>" in page
    assert page.count("<pre>") == 2
    assert "?target=api" in page
    alone = get(console, "/scaling", target="api").body.decode()
    assert "<td>api</td>" in alone
    assert f"<td>{one.target}</td>" not in alone
    overview = get(console, "/").body.decode()
    assert ">api<" in overview
    assert f">{one.target}<" in overview


def test_a_log_that_is_not_there_yet_is_said_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "none.jsonl"
    parser = argparse.ArgumentParser()
    command.configure(parser)
    console = command.build(parser.parse_args(["--scale-log", str(path)]))
    assert "is not there" in capsys.readouterr().err
    page = get(console, "/scaling")
    assert page.status == 200
    assert "is not there" in page.body.decode()


def test_several_managers_of_one_name_are_told_apart() -> None:
    console = Console(queues=[QueueManager("memory://"), QueueManager("memory://")], may=everything)
    page = get(console, "/queues").body.decode()
    assert re.findall(r"<h2>(.*?)</h2>", page) == ["default", "default 2"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(method: str) -> None:
    answer = Console(may=everything).respond(Request(method=method, path="/", base=""))
    assert answer.status == 405


@pytest.mark.parametrize("given", [object(), ["redis://localhost"], {"a": None}])
@pytest.mark.parametrize("argument", ["queues", "cache", "scaler"])
def test_a_manager_that_is_none_is_named(argument: str, given: Any) -> None:
    with pytest.raises(ConfigurationError, match=argument):
        Console(may=everything, **{argument: given})


def test_loops_are_named_with_their_line_and_statements_with_what_they_cost_lately(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    with engine.begin() as db:
        db.execute(text("CREATE TABLE visits (id INTEGER PRIMARY KEY, page INT)"))
    recorder, clock = QueryRecorder(engine), FakeClock()
    optimizer = DatabaseOptimizer(engine, source=recorder)
    console = Console(optimizer=optimizer, may=everything, clock=clock)

    def visits(times: int) -> None:
        with engine.connect() as db:
            for n in range(times):
                db.execute(text("SELECT id FROM visits WHERE page = :p"), {"p": n}).all()

    visits(15)
    first = assert_harmless(get(console, "/database"))
    assert Path(__file__).name in first.text
    assert "mean of the last" not in first.text
    clock.advance(60)
    visits(15)
    assert "mean of the last 1 min" in assert_harmless(get(console, "/database")).text
    shy = Console(optimizer=optimizer, may=read_only)
    assert "SELECT id FROM" not in Elements(get(shy, "/database").body.decode()).text.partition("Loops")[2]


def test_a_whole_advice_is_shown_to_those_who_may_see_values_and_compared_with_the_one_before(
    tmp_path: Path,
) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    with engine.begin() as db:
        db.execute(text("CREATE TABLE visits (id INTEGER PRIMARY KEY, page INT, at INT)"))
        db.execute(text("INSERT INTO visits (page, at) VALUES (:p, 1)"), [{"p": n} for n in range(2000)])
        db.execute(text("ANALYZE"))
    optimizer = DatabaseOptimizer(engine, source=Workload("sqlite"))
    console, shy = (Console(optimizer=optimizer, may=may) for may in (everything, read_only))
    part = console._parts["/database"]
    workload = Workload("sqlite")
    workload.add("SELECT at FROM visits WHERE page = 4711")
    for known in (Workload("sqlite"), workload):
        part._advice.append((0.0, optimizer.advise(known)))  # type: ignore[attr-defined]
    page = assert_harmless(get(console, "/database"))
    assert "visits (page" in page.text
    assert re.search(r"(measured|planned|estimated)\s*new\s*CREATE INDEX", page.text)
    whole = assert_harmless(get(console, "/database/advice", n="0"))
    assert "Planner cost of the queries" in whole.text
    assert "No index is worth adding" in get(console, "/database/advice", n="1").body.decode()
    shy._parts["/database"]._advice = part._advice  # type: ignore[attr-defined]
    assert b"Planner cost" not in get(shy, "/database/advice", n="0").body
    for odd in ("2", "-1", "x", "²", "9" * 5000):
        assert get(console, "/database/advice", n=odd).status == 404


def test_the_value_of_a_partial_index_is_a_literal_too(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    advice = DatabaseOptimizer(engine, source=Workload("sqlite")).advise()
    spec = IndexSpec("visits", (Key("at"),), where="page = 'SECRET'")
    index = IndexAdvice(
        name="ix", spec=spec, sql="CREATE INDEX ix ON visits (at) WHERE page = 'SECRET'", gain=0.5,
        size_bytes=1, write_cost=0.0, reason="", proof="planned",
    )  # fmt: skip
    advice.indexes = [index]
    report = ApplyReport(dry_run=False, planned=["WHERE page = 'SECRET'"])
    for may, shown in ((everything, True), (read_only, False)):
        console = Console(optimizer=DatabaseOptimizer(engine, source=Workload("sqlite")), may=may)
        part: Any = console._parts["/database"]
        part._advice, part._report = [(0.0, advice)], (0.0, report)
        part._work.error = "ValueError: SECRET"
        assert (b"SECRET" in get(console, "/database").body) is shown


def shadowed(at: float, after: int, *, dry_run: bool, target: str = "web") -> ScalingDecision:
    return ScalingDecision(
        at=at, target=target, before=1, wanted=after, after=after, reason="load", dry_run=dry_run
    )


def test_a_shadow_is_drawn_beside_what_ran_and_told_in_a_table() -> None:
    clock, log, trial = FakeClock(time=1_800_000_000.0), DecisionLog(), DecisionLog()
    for n in range(60):
        at = clock.time() - 60 * (60 - n)
        log.write(shadowed(at, 4, dry_run=False))
        log.write(shadowed(at, 2, dry_run=True))
        trial.write(shadowed(at, 8, dry_run=True))
        trial.write(shadowed(at, 99, dry_run=True, target="another"))
    scalers: Any = {"live": log, HOSTILE: trial}
    console = Console(scaler=scalers, may=everything, clock=clock)
    page = assert_harmless(get(console, "/scaling"))
    assert "shadow: dry run" in page.text, "in the legend"
    assert "shadow: <script>" in page.text, "of another scaler, as text"
    table = page.text[page.text.index("What the shadow would have run") :]
    assert "replica-hours in 59 min3.92.07.9" in table
    assert "428" in table, "replicas of what ran and of both shadows at one time"
    assert "another" not in table[: table.index("Decisions that changed")]
    overview = get(console, "/").body.decode()
    assert "shadow: dry run" in overview
    assert "<dt>web</dt><dd>4</dd>" in overview, "what ran, not a shadow's wish"


def test_a_forecast_is_drawn_at_the_time_it_was_for() -> None:
    clock, rate = FakeClock(time=1_800_000_000.0), {"rps": 300.0}
    policy = LatencyPolicy(capacity_rps=50, startup="75s")
    target, metrics = SimulatedTarget(8, name="web", clock=clock), CallableMetrics(rps=lambda: rate["rps"])
    web = AutoScaler(target, metrics, policy, max_replicas=40, clock=clock)
    trial = AutoScaler(target, metrics, policy, max_replicas=40, clock=clock, dry_run=True, log=DecisionLog())
    for _ in range(20):
        rate["rps"] += 5
        made, _ = web.tick(), trial.tick()
        clock.advance(15)
    assert made.forecast is not None
    assert made.forecast[0] == 75
    assert made.forecast[1] > rate["rps"], "it grows, and some doubt is covered"
    assert ScalingDecision.from_json(made.to_json()) == made
    console = Console(scaler={"live": web, HOSTILE: trial}, may=everything, clock=clock)
    page = get(console, "/scaling")
    text = assert_harmless(page).text
    assert "forecast: made ready for" in text
    assert "forecast of the shadow: <script>" in text
    body = page.body.decode()
    load = body[body.index("<h3>Load</h3>") :]
    lines = re.findall(r'<polyline class="s([12])" points="(.*?)"', load)
    assert [number for number, _ in lines[:2]] == ["1", "2"]
    past = re.findall(r'<polyline class="a0" points="(.*?)"', load)[0].split()
    assert float(lines[0][1].split()[-1].split(",")[0]) > float(past[-1].split(",")[0]), "it is ahead"
    plain = AutoScaler(SimulatedTarget(2), metrics, TargetTracking(rps=50), max_replicas=10, clock=clock)
    assert "forecast" not in plain.tick().to_json(), "nothing foresaw anything"
    assert "made ready for" not in get(Console(scaler=plain, may=everything), "/scaling").body.decode()


def test_a_shadow_alone_is_drawn_as_what_it_decides() -> None:
    clock, log = FakeClock(time=1_800_000_000.0), DecisionLog()
    for n in range(3):
        log.write(shadowed(clock.time() - 60 * (3 - n), 5, dry_run=True))
    text = assert_harmless(get(Console(scaler=log, may=everything, clock=clock), "/scaling")).text
    assert "asked for" in text
    assert "shadow:" not in text
    assert "(dry run)" in text or "Decisions that changed" in text


def test_a_log_s_file_is_read_on_not_anew(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    with DecisionLog(path, steady=True) as log:
        for n in range(2_500):
            log.write(shadowed(float(n), n, dry_run=False))
        found = command.FileLog(str(path))
        assert [d.after for d in found] == list(range(500, 2_500)), "the newest"
        log.write(shadowed(2_500.0, 7, dry_run=False))
    with path.open("a") as file:
        file.write('{"torn": ')
    assert [d.after for d in found][-2:] == [2_499, 7]
    with path.open("a") as file:
        file.write("}\n" + shadowed(1.0, 9, dry_run=False).to_json() + "\n")
    assert [d.after for d in found][-2:] == [7, 9], "what cannot be read is left out"
    path.rename(tmp_path / "old.jsonl")
    assert list(found) == []
    path.write_text(shadowed(1.0, 3, dry_run=False).to_json() + "\n")
    assert [d.after for d in found] == [3], "a file that took its place is read from its beginning"


def test_alerts_of_a_scaler_are_listed_newest_first() -> None:
    web = scaler()
    console = Console(scaler=web, may=everything)
    web.tick()
    assert "None was raised here" in assert_harmless(get(console, "/scaling")).text
    for n in range(60):
        web.hooks.emit(Alert(kind="pinned_at_max", target="web", text=f"{HOSTILE} {n}", at=1e9 + n))
    web.hooks.emit(Alert(kind="pinned_at_max", target="web", text="below", at=2e9, recovered=True))
    text = assert_harmless(get(console, "/scaling")).text
    listed = text[text.index("The newest that this process raised") :]
    assert listed.index("overbelow") < listed.index("alert(1)")
    assert listed.count("pinned_at_max") == 50


def test_a_cache_s_course_is_drawn_from_readings_of_its_pages() -> None:
    clock, cache = FakeClock(), CacheManager()
    console = Console(cache=cache, may=everything, clock=clock)
    assert "Hit ratio while" not in assert_harmless(get(console, "/cache")).text
    for n in range(4):
        for _ in range(3):
            cache.get_or_load(f"k{n}", lambda: 1)
        clock.advance(20)
        get(console, "/cache")
    for path in ("/cache", "/"):
        text = assert_harmless(get(console, path)).text
        assert "Hit ratio while this was looked at" in text
        assert "Loads while this was looked at" in text
    body = get(console, "/cache").body.decode()
    plots = re.findall(r'<polyline class="s0" points="(.*?)"', body)
    assert [len(points.split()) for points in plots] == [4, 4]
    assert len({point.split(",")[1] for point in plots[0].split()}) == 1, "two of three, each time"
    clock.advance(600)
    get(console, "/cache")
    assert body.count("<polyline") == get(console, "/cache").body.decode().count("<polyline"), "a gap is none"
