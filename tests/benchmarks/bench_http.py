"""Whole answers kept, beside the caches that others use: hits, misses and 304s a second in one run.

    nox -s bench -- http [--quick] [--only eventperf,fastapi-cache2] [--rounds 3]

Every site is one process of a real server (uvicorn with uvloop and httptools, gunicorn with threads) in front
of one Redis; ``wrk``, which is written in C, asks from another core (``apt-get install wrk``). Sites take
turns, and the best round counts. CPU is what the server's process took for a request: it tells what a cache
costs where other work shares the machine, and whether the server was what bounded the rate.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
from cache_report import Absent, Report
from http_peers import ASGI, WSGI

from processes import free_port
from servers import RedisServer

HERE = Path(__file__).parent
MISSES = """n = math.random(1e9) * 1000
request = function() n = n + 1; return wrk.format("GET", "/page?n=" .. n) end
"""
PEERS = ("fastapi-cache2", "starlette-caches", "flask-caching", "django-page")
CONNECTIONS, THREADS = 32, 8


class Site:
    """One server process."""

    def __init__(self, name: str, redis: str) -> None:
        self.name, self.port = name, free_port()
        env = {**os.environ, "HTTP_SITE": name, "HTTP_REDIS": redis, "PYTHONPATH": f"{HERE}:{HERE.parent}"}
        bound = f"127.0.0.1:{self.port}"
        if name in ASGI:
            how = ["uvicorn", "http_peers:site", "--port", str(self.port)]
            how += ["--loop", "uvloop", "--http", "httptools"]
            how += ["--no-access-log", "--log-level", "warning"]
        else:
            how = ["gunicorn", "http_peers:site", "-b", bound, "-k", "gthread", "--threads", str(THREADS)]
            how += ["--keep-alive", "60", "--log-level", "warning"]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", *how], env=env, stderr=self._log, stdout=self._log
        )

    def ready(self) -> None:
        """Wait until it answers.

        Raises:
            Absent: It does not; the last line of what it said.
        """
        for _ in range(600):
            try:
                self.ask()
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.1)
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip().splitlines()
        raise Absent(said[-1] if said else "it does not answer")

    def ask(self) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/page", timeout=5) as answer:
            answer.read()
            return answer.headers

    def cpu_s(self) -> float:
        """Return what the server and its children have computed."""
        process = psutil.Process(self.process.pid)
        spent = [one.cpu_times() for one in (process, *process.children(recursive=True))]
        return sum(one.user + one.system for one in spent)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._log.close()

    def load(self, case: str, seconds: int) -> dict[str, Any]:
        """Ask for ``seconds`` and return requests a second, latencies and CPU a request."""
        more: list[str] = []
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            if case == "304":
                tag = self.ask().get("ETag")
                if not tag:
                    return {}
                more = ["-H", f"If-None-Match: {tag}"]
            elif case == "miss":
                script.write(MISSES)
                script.flush()
                more = ["-s", script.name]
            before = self.cpu_s()
            command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", *more]
            said = subprocess.run(
                [*command, f"http://127.0.0.1:{self.port}/page"], capture_output=True, text=True, check=True
            ).stdout
        spent = self.cpu_s() - before
        if wrong := re.search(r"Non-2xx or 3xx responses: (\d+)", said):
            raise Absent(f"{wrong[1]} answers of another status")
        count = int(re.search(r"(\d+) requests in", said)[1])  # type: ignore[index]
        p50, p99 = (re.search(rf"(?m)^ +{share}% +(\S+)", said)[1] for share in (50, 99))  # type: ignore[index]
        if not count:
            raise Absent(f"no answer within {seconds} s")
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", said)[1])  # type: ignore[index]
        size = float(re.search(r"([\d.]+)(\w*)B read", said)[1])  # type: ignore[index]
        return {
            "per_s": round(rate),
            "cpu_us": round(spent / count * 1e6),
            "p50": p50,
            "p99": p99,
            "read": size,
        }


def measure(
    report: Report, sites: dict[str, Site], seconds: int, rounds: int
) -> dict[tuple[str, str], dict[str, Any]]:
    """Let the sites take turns and return the best round of each."""
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for _ in range(rounds):
        for name, site in sites.items():
            for case in ("hit", "304", "miss"):
                try:
                    found = site.load(case, seconds)
                except Absent as reason:
                    report.absent.append(f"{case} {name}: {reason}")
                    continue
                if found:
                    best[case, name] = better(best.get((case, name), found), found)
    for (case, name), found in sorted(best.items(), key=lambda one: ("hit", "304", "miss").index(one[0][0])):
        report.row(case, name, **{k: v for k, v in found.items() if k != "read"})
    return best


def better(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the faster round, with the CPU of the cheaper one."""
    faster = max(one, other, key=lambda found: found["per_s"])
    return {**faster, "cpu_us": min(one["cpu_us"], other["cpu_us"])}


def judge(report: Report, best: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Compare with the best of the peers, by rate and by CPU."""
    for ours, floor in (("eventperf", "asgi"), ("eventperf-wsgi", "wsgi"), ("eventperf-django", "django")):
        mine = best.get(("hit", ours))
        others = [found for (case, name), found in best.items() if case == "hit" and name in PEERS]
        if mine is None:
            continue
        if others:
            ratio = mine["per_s"] / max(one["per_s"] for one in others)
            cpu = min(one["cpu_us"] for one in others) / mine["cpu_us"]
            measured = f"{ratio:.2f} (by CPU {cpu:.2f})"
            report.judge("hit", f"{ours}, of the best peer's rate", ">= 3", measured, ratio >= 3)
        if told := best.get(("304", ours)):
            share = told["cpu_us"] / mine["cpu_us"]
            report.judge("304", f"{ours}, CPU of a hit's", "< 1", f"{share:.2f}", share < 1)
        if bare := best.get(("hit", floor)):
            report.judge(
                "hit",
                f"{ours}, of the rate of {floor} alone",
                "-",
                f"{mine['per_s'] / bare['per_s']:.2f}",
                None,
            )


def main(argv: list[str]) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="bench http", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--quick", action="store_true", help="one round of a second")
    parser.add_argument("--only", default="", help="sites, by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    given = parser.parse_args(argv)
    if shutil.which("wrk") is None:
        print("wrk is missing: apt-get install wrk", file=sys.stderr)
        return 2
    report = Report(quick=given.quick)
    chosen = given.only.split(",") if given.only else [*ASGI, *WSGI]
    with RedisServer() as redis:
        sites = {name: Site(name, redis.url) for name in chosen}
        try:
            for name, site in list(sites.items()):
                try:
                    site.ready()
                except Absent as reason:
                    report.absent.append(f"{name}: {reason}")
                    del sites[name]
                    site.stop()
            best = measure(
                report, sites, 1 if given.quick else given.seconds, 1 if given.quick else given.rounds
            )
        finally:
            for site in sites.values():
                site.stop()
    judge(report, best)
    report.print_verdicts()
    return 0
