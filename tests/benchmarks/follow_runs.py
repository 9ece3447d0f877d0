"""One cache of ``bench_follow``: staleness under racing writers, CPU of a query, hits on the event site."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from follow_caches import MORE, Cache, Foreign, count_queries, cpu_us, save

ROWS = 64
MORTAL = range(57, 65)  # rows of the one that is killed
READERS, WRITERS = 2, 2
FORK = multiprocessing.get_context("fork")


class Shared:
    """What the processes of a run know of one another; each number has one writer."""

    def __init__(self, per_write: int) -> None:
        self.per_write = per_write
        """Reads for each write."""
        self.floor = FORK.RawArray("q", ROWS + 1)
        """By row: the version of the last write that has returned and, with the journal, been told."""
        self.returned = FORK.RawArray("q", ROWS + 1)
        """By row: the version of the last write that has returned."""
        self.killed = FORK.RawArray("q", ROWS + 1)
        """By row: the version that was committed by one who was killed, if it is the newest."""
        self.read = FORK.RawArray("q", READERS)
        self.written = FORK.RawArray("q", WRITERS)
        self.caught_up = FORK.RawValue("d", 0.0)
        """Everything that was committed before this moment has been told by the journal's reader."""
        self.ends = FORK.RawValue("b", 0)


def wait_for(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not done():
        if time.monotonic() > end:
            raise TimeoutError("nothing goes on")
        time.sleep(0.001)


# -- staleness -------------------------------------------------------------------------------------------


def reader(cache: Cache, shared: Shared, at: int, reads: int, tell: Any) -> None:
    cache.open()
    draw, counts = random.Random(at), [0]
    count_queries(counts)
    stale = stale_killed = early = undone = hits = 0
    for n in range(reads):
        wait_for(
            lambda n=n: (
                n * READERS < (min(shared.written) + 1) * WRITERS * shared.per_write + 10 * shared.per_write
            )
        )
        pk, before = 1 + int(ROWS * draw.random() ** 2), counts[0]
        floor, killed, returned = shared.floor[pk], shared.killed[pk], shared.returned[pk]
        seen = cache.version(pk)
        hits += counts[0] == before
        undone += seen >= MORE
        if seen < floor:
            stale += 1
            stale_killed += floor == killed
        early += floor <= seen < returned
        shared.read[at] = n + 1
    tell.send({
        "stale": stale, "stale_killed": stale_killed, "early": early, "undone": undone, "hits": hits,
        "reads": reads,
    })  # fmt: skip
    cache.close()


def writer(cache: Cache, shared: Shared, at: int, writes: int, conninfo: str, tell: Any) -> None:
    cache.open()
    kinds = cache.writers()
    foreign = Foreign(conninfo)
    if cache.has_journal or cache.name == "none":
        kinds["other program"] = foreign
    draw, made, lags = random.Random(at + 100), dict.fromkeys(kinds, 0), []
    mine = [pk for pk in range(1, MORTAL.start) if pk % WRITERS == at]
    for n in range(writes):
        wait_for(lambda n=n: sum(shared.read) >= n * WRITERS * shared.per_write)
        kind, pk = draw.choice(list(kinds)), draw.choice(mine)
        version = shared.floor[pk] + 1
        kinds[kind](pk, version)
        made[kind] += 1
        if kind != "rollback":
            if kind != "other program":
                shared.returned[pk] = version
            lags.append(caught_up(cache, shared))
            shared.floor[pk] = version
        shared.written[at] = n + 1
    shared.written[at] = 1 << 40
    tell.send({"writes": made, "lags": lags})
    foreign.close()
    cache.close()


def caught_up(cache: Cache, shared: Shared) -> float:
    """Wait until the journal's reader has told what is committed by now; return how long that took."""
    since = time.monotonic()
    if cache.has_journal:
        wait_for(lambda: shared.caught_up.value > since)
    return time.monotonic() - since


def mortal(cache: Cache, shared: Shared, reads: int, kills: int, tell: Any) -> None:
    """Have a process killed between its commit and whatever its cache does after it, and write in peace."""
    lags = []
    for n in range(2 * kills):
        wait_for(lambda n=n: sum(shared.read) >= n * reads // (2 * kills))
        pk = MORTAL[n // 2 % len(MORTAL)]
        version = shared.floor[pk] + 1
        dies = n % 2 == 0
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                write_and_die(cache, pk, version, dies)
                os._exit(0)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        assert (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL) if dies else status == 0
        lags.append(caught_up(cache, shared))
        if dies:
            shared.killed[pk] = version
        shared.floor[pk] = version
    tell.send({"kills": kills, "lags": lags})


def write_and_die(cache: Cache, pk: int, version: int, dies: bool) -> None:
    cache.open()
    if dies:
        from django.db import connection

        commit = connection._commit

        def last() -> None:
            commit()
            os.kill(os.getpid(), signal.SIGKILL)

        connection._commit = last
    save(pk, version)
    cache.close()


def follower(cache: Cache, shared: Shared, url: str) -> None:
    """The reader of the change journal, which says up to when it has told everything."""
    from eventperf.cache import CacheManager, Journal

    with CacheManager(cache.redis, namespace="follow") as told, Journal(told, url) as journal:
        while not shared.ends.value:
            if journal.state == "following":
                shared.caught_up.value = time.monotonic() - journal.lag_s
            time.sleep(0.0005)


def staleness(cache: Cache, url: str, conninfo: str, reads: int, per_write: int) -> dict[str, Any]:
    shared, kills = Shared(per_write), max(4, reads // 5_000)
    each, writes = reads // READERS, reads // per_write // WRITERS
    roles: list[tuple[Any, tuple[Any, ...]]] = [(reader, (at, each)) for at in range(READERS)]
    roles += [(writer, (at, writes, conninfo)) for at in range(WRITERS)]
    roles += [(mortal, (reads, kills))]
    begun, pipes = [], []
    with contextlib.ExitStack() as stack:
        if cache.has_journal:
            follows = FORK.Process(target=follower, args=(cache, shared, url))
            follows.start()
            stack.callback(follows.join)
            stack.callback(setattr, shared.ends, "value", 1)
            wait_for(lambda: shared.caught_up.value > 0)
        for role, args in roles:
            mine, theirs = FORK.Pipe(duplex=False)
            process = FORK.Process(target=role, args=(cache, shared, *args, theirs))
            process.start()
            theirs.close()
            begun.append(process)
            pipes.append(mine)
        told = [pipe.recv() for pipe in pipes]
        for process in begun:
            process.join()
    out: dict[str, Any] = {what: sum(one[what] for one in told[:READERS]) for what in told[0]}
    made = [one["writes"] for one in told[READERS : READERS + WRITERS]]
    out["writes"] = {kind: sum(one[kind] for one in made) for kind in made[0]}
    lags = sorted(lag for one in told[READERS:] for lag in one["lags"])
    out["lags"] = [statistics.median(lags), lags[-1]] if lags and cache.has_journal else []
    return {**out, "kills": kills}


# -- CPU -------------------------------------------------------------------------------------------------


def costs(cache: Cache, times: int) -> Callable[[], dict[str, float]]:
    """Return what measures a round: CPU microseconds of a query not cached, one kept, a hit, a write."""
    from follow_site.models import Counter, Plain

    cache.open()
    Plain.objects.create(pk=1)
    turn = iter(range(1 << 40))

    def queries(n: int) -> list[int]:
        return [Counter.objects.filter(pk__gte=n, version__gte=-k).count() for k in range(5)]

    page: Callable[[int], Any] = queries
    if cache.is_ours:
        page = cache.manager.cached(follows="auto")(queries)
    elif cache.name == "cacheops keep_fresh":

        def page(n: int) -> Any:
            return cache.function(queries, lambda n: (Counter,), n)

    kinds: dict[str, tuple[Callable[[], Any], int, int]] = {
        "uncached_us": (lambda: Plain.objects.get(pk=1), times, 1),
        "recorded_us": (lambda: page(next(turn)), times // 5, 5),
        "hit_us": (lambda: page(-1), times // 5, 1),
        "save_us": (lambda: save(1, 0), times // 5, 1),
    }

    def one_round() -> dict[str, float]:
        found = {}
        for what, (action, count, parts) in kinds.items():
            action()
            found[what] = cpu_us(action, max(1, count)) / parts
        return found

    return one_round


# -- the event site --------------------------------------------------------------------------------------

EVENTS, PEOPLE = 300, 3_000
MIX = {"event_page": 40, "event_list": 14, "mine": 16, "dashboard": 7, "register": 11, "check_in": 5}
"""The demo's (``eventperf demo``), less the pages that it does not cache or lets be old."""


def site(cache: Cache, conninfo: str, requests: int) -> dict[str, Any]:
    """Serve the demo's mix; each answer is compared with the database's own, which is not counted."""
    import psycopg
    from follow_site.models import Arrival, Registration

    cache.open()
    counts = [0]
    count_queries(counts)
    draw, pages = random.Random(7), SitePages(cache)
    truth = psycopg.connect(conninfo, autocommit=True)
    reads = hits = stale = 0
    for _ in range(requests):
        what = draw.choices(list(MIX), list(MIX.values()))[0]
        event, person = 1 + int(EVENTS * draw.random() ** 3), 1 + int(PEOPLE * draw.random())
        if what == "register":
            Registration.objects.create(event_id=event, person_id=1 + person % ROWS)
        elif what == "check_in":
            Arrival.objects.create(event_id=event, registration_id=person)
        else:
            person = 1 + person % ROWS
            before = counts[0]
            subject = {"mine": person, "event_list": event % 10}.get(what, event)
            seen = getattr(pages, what)(subject)
            reads, hits = reads + 1, hits + (counts[0] == before)
            sql = TRUTH[what]
            asked = {"event": event, "person": person, "category": event % 10}
            stale += list(seen) != [one for (one,) in truth.execute(sql, asked)]  # type: ignore[arg-type]
            pages.queries += counts[0] - before
    truth.close()
    cache.close()
    return {"site_hits": hits / reads, "site_queries": pages.queries / reads, "site_stale": stale}


_SEATS = "SELECT count(*) FROM follow_site_registration WHERE event_id = %(event)s"
TRUTH = {
    "event_page": f"SELECT id FROM follow_site_event WHERE id = %(event)s UNION ALL ({_SEATS})",
    "dashboard": f"{_SEATS} UNION ALL SELECT count(*) FROM follow_site_arrival WHERE event_id = %(event)s",
    "mine": "SELECT id FROM follow_site_registration WHERE person_id = %(person)s ORDER BY id",
    "event_list": "SELECT count(r.id) FROM follow_site_event e LEFT JOIN follow_site_registration r "
    "ON r.event_id = e.id WHERE e.category = %(category)s GROUP BY e.id ORDER BY e.id",
}


class SitePages:
    """The pages; what each depends on is said in the words of each library."""

    def __init__(self, cache: Cache) -> None:
        from django.db.models import Count
        from follow_site.models import Arrival, Event, Registration

        self.queries = 0

        def event_page(event: int) -> list[int]:
            return [Event.objects.get(pk=event).pk, Registration.objects.filter(event_id=event).count()]

        def dashboard(event: int) -> list[int]:
            of_event = Registration.objects.filter(event_id=event).count()
            return [of_event, Arrival.objects.filter(event_id=event).count()]

        def mine(person: int) -> list[int]:
            found = Registration.objects.filter(person_id=person).order_by("id")
            return list(found.values_list("id", flat=True))

        def event_list(category: int) -> list[int]:
            found = Event.objects.filter(category=category).annotate(n=Count("registration")).order_by("id")
            return list(found.values_list("n", flat=True))

        samples: dict[Any, Callable[[int], tuple[Any, ...]]] = {
            event_page: lambda n: (Event.objects.filter(pk=n), Registration.objects.filter(event_id=n)),
            dashboard: lambda n: (
                Registration.objects.filter(event_id=n), Arrival.objects.filter(event_id=n),
            ),
            mine: lambda n: (Registration.objects.filter(person_id=n),),
            event_list: lambda n: (Event.objects.filter(category=n), Registration),
        }  # fmt: skip
        if cache.is_ours:
            from eventperf.cache import depends, row

            tags: dict[Any, Callable[[int], tuple[str, ...]]] = {
                event_page: lambda n: (*row(Event, n), *row(Registration, event_id=n)),
                dashboard: lambda n: (*row(Registration, event_id=n), *row(Arrival, event_id=n)),
                mine: lambda n: row(Registration, person_id=n),
                event_list: lambda n: ("table:follow_site_event", "table:follow_site_registration"),
            }

            def followed(loader: Callable[[int], Any]) -> Callable[[int], Any]:
                def load(n: int) -> Any:
                    depends(*tags[loader](n))
                    return loader(n)

                return cache.manager.cached(key=f"{loader.__name__}:{{n}}")(load)  # type: ignore[no-any-return]

            made = {loader.__name__: followed(loader) for loader in samples}
        else:
            made = {
                loader.__name__: lambda n, f=loader, s=sample: cache.function(f, s, n)
                for loader, sample in samples.items()
            }
        self.event_page, self.dashboard = made["event_page"], made["dashboard"]
        self.mine, self.event_list = made["mine"], made["event_list"]


def fill() -> None:
    """Make the tables and their rows, past whatever cache there is."""
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", run_syncdb=True, verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("SELECT setseed(0.7)")
        for table, columns, values, count in (
            ("counter", "id, version", "n, 0", ROWS),
            ("event", "id, title, category", "n, 'Event ' || n, n % 10", EVENTS),
            (
                "registration",
                "event_id, person_id, status",
                f"1 + floor({EVENTS} * power(random(), 3)), 1 + n % {ROWS}, 'confirmed'",
                PEOPLE + 1,
            ),
        ):
            cursor.execute(
                f"INSERT INTO follow_site_{table} ({columns}) "
                f"SELECT {values} FROM generate_series(1, {count}) n"
            )


@contextlib.contextmanager
def journaled(cache: Cache, url: str) -> Iterator[None]:
    if cache.has_journal:
        from eventperf.cache.journal import making

        making.apply(url, making.plan(url))
    yield


def main() -> None:
    import sqlalchemy as sa

    name, url, redis, sizes = json.loads(sys.argv[1])
    at = sa.make_url(url)
    where = {"HOST": at.host, "PORT": at.port, "USER": at.username, "NAME": at.database}
    cache = Cache(name, {"ENGINE": "django.db.backends.postgresql", **where}, redis)
    conninfo = f"host={at.host} port={at.port} user={at.username} dbname={at.database}"
    child = os.fork()  # with no connection of its own to inherit
    if child == 0:
        fill()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with journaled(cache, url):
        found = staleness(cache, url, conninfo, sizes["reads"], sizes["per_write"])
        found |= site(cache, conninfo, sizes["requests"])
        print(json.dumps(found), flush=True)
        one_round = costs(cache, sizes["queries"])
        for _ in sys.stdin:  # a line asks for a round
            print(json.dumps(one_round()), flush=True)
        cache.close()


if __name__ == "__main__":
    main()
