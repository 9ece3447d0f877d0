"""``eventperf scale run --config`` in processes of its own, under the shipped Role."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from eventperf.cli.main import main
from eventperf.testing.kubernetes import deployment
from eventperf.testing.kubernetes.workloads import ready_pod
from scale_processes import LEASE_S, Group, eventually, use
from terminals import Terminal

pytestmark = pytest.mark.integration


def test_of_three_processes_one_acts_and_the_next_takes_over(group: Group) -> None:
    for _ in range(3):
        group.start()
    eventually(lambda: group.server.replicas("deployments", "web") == 4)
    first = eventually(group.leader)
    eventually(lambda: group.said("out").count('"after":4') == 1)  # what it says last
    assert (group.patches(), group.server.counts["create", "events"]) == (1, 1)

    # a leader that dies without a word: the next one follows when its Lease is over, and acts at once
    others = [p for p in group.running.values() if p is not first]
    first.kill()
    first.wait()
    del group.running[first.pid]
    second = eventually(lambda: (p := group.leader()) in others and p)
    for number in (2, 3):
        group.server.create("pods", ready_pod(f"web-{number}", deployment("web")))
    use(group.server, "140m")
    eventually(lambda: group.server.replicas("deployments", "web") == 8)
    eventually(lambda: group.said("out").count('"after":8') == 1)

    # a leader that is asked to stop releases at once: nobody waits for its Lease to run out
    second.send_signal(signal.SIGTERM)
    asked_at = time.monotonic()
    eventually(lambda: group.leader() is not second)
    released_s = time.monotonic() - asked_at
    assert second.wait(30) == 0
    # without a release the next one would have waited for what is left of the Lease, 5.7 s or more
    assert released_s < LEASE_S * 5 / 6, f"release took {released_s:.2f} s"
    (third,) = [p for p in group.running.values() if p.poll() is None]
    eventually(lambda: group.leader() is third)
    third.send_signal(signal.SIGINT)
    assert third.wait(30) == 0
    assert group.holder() == ""

    spec = group.server.list("leases", group="coordination.k8s.io")[0]["spec"]
    assert spec["leaseTransitions"] >= 2
    lines = [json.loads(line) for line in group.said("out").splitlines() if line]
    steps = sorted((d["before"], d["after"], d["applied"]) for d in lines)
    # the second leader's limit on the rate counts what the first has added, if that was lately
    assert steps in ([(2, 4, True), (4, 6, True), (6, 8, True)], [(2, 4, True), (4, 8, True)])
    assert group.patches() == group.server.counts["create", "events"] == len(lines)
    assert (group.folder / "decisions.jsonl").read_text().count("\n") == len(lines)
    assert not [call for call in group.server.calls if call.status == 403]
    assert "Traceback" not in group.said()


def test_a_stop_releases_while_a_round_waits_for_a_silent_server(group: Group) -> None:
    fault = group.server.script(verb="list", path="*/metrics.k8s.io/*", cut="silent", times=None)
    process = group.start()
    eventually(lambda: fault.hits and group.leader())
    process.send_signal(signal.SIGTERM)
    asked_at = time.monotonic()
    eventually(lambda: group.holder() == "")
    assert time.monotonic() - asked_at < 10  # the round waits for 15 s
    assert process.poll() is None
    group.server.heal()
    group.server.drop_connections()
    assert process.wait(60) == 0
    assert group.patches() == 0


def test_a_dry_run_decides_tells_and_changes_nothing(group: Group) -> None:
    process = group.start("--dry-run")
    eventually(lambda: group.said("out").count("\n") >= 2)
    process.terminate()
    assert process.wait(30) == 0
    decision = json.loads(group.said("out").splitlines()[0])
    assert (decision["before"], decision["after"], decision["dry_run"], decision["applied"]) == (
        2,
        4,
        True,
        False,
    )
    assert group.patches() == 0
    assert group.server.replicas("deployments", "web") == 2
    assert "dry run: nothing is changed" in group.said()


def test_one_round_on_demand_needs_no_lease(group: Group, capsys: pytest.CaptureFixture[str]) -> None:
    group.config.write_text(json.dumps(group.data))
    assert main(["scale", "run", "--config", str(group.config), "--once"]) == 0
    assert capsys.readouterr().out.startswith("default/deployment/web: 2 -> 4 replicas (up).")
    assert group.server.replicas("deployments", "web") == 4
    assert group.holder() == ""


def test_alerts_reach_a_function_of_the_program(group: Group) -> None:
    (group.folder / "pager.py").write_text(
        "def page(alert):\n    open('paged', 'a').write(f'{alert.kind} {alert.recovered}\\n')\n"
    )
    group.data["alerts"] = [{"type": "callable", "function": "pager:page"}]
    group.server.script(verb="patch", status=500, times=2)
    here = Path.cwd()
    os.chdir(group.folder)
    try:
        process = group.start()
    finally:
        os.chdir(here)
    eventually(lambda: group.server.replicas("deployments", "web") == 4)
    eventually(lambda: (group.folder / "paged").exists() and "True" in (group.folder / "paged").read_text())
    process.terminate()
    assert process.wait(30) == 0
    assert (group.folder / "paged").read_text().splitlines() == ["scale_failed False", "scale_failed True"]


def test_a_terminal_that_closes_ends_it_in_order(group: Group) -> None:
    group.config.write_text(json.dumps(group.data))
    terminal = Terminal("scale", "run", "--config", str(group.config), cwd=group.folder)
    terminal.wait_for("(this process)")
    assert group.holder()
    assert terminal.close() == 0
    assert group.holder() == "", "nobody waits for its Lease to run out"
