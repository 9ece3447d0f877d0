"""Redis on one connection: coherent hits (B3), hits in Redis (B4), a thousand keys of a cluster (B7)."""

from __future__ import annotations

import asyncio
import pickle
import socket
import time
from collections.abc import Callable
from typing import Any

from cache_near import one_thread
from cache_report import OURS, PAYLOAD, Absent, Report, amedian_of, median_of, peer, quantile

from eventperf.cache import CacheManager, RedisStore

KEYS = [f"ev{n}" for n in range(200)]
BLOB = pickle.dumps(PAYLOAD, 5)


def opened(url: str, **options: Any) -> CacheManager:
    """Return a manager whose patience a busy machine does not exhaust."""
    return CacheManager(RedisStore(url, timeout=5), namespace="bench", ttl=600, **options)


# -- B3 --------------------------------------------------------------------------------------------------


def _until_near(cache: CacheManager, keys: list[str]) -> None:
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        before = cache.stats().l1_hits
        for key in keys:
            cache.get(key)
        if cache.stats().l1_hits - before == len(keys):
            return
        time.sleep(0.02)
    raise RuntimeError("the channel did not come up")


async def _ahits(get: Any) -> float:
    async def once() -> None:
        for _ in range(20):
            for key in KEYS:
                await get(key)

    return await amedian_of(once, 5) / 20 / len(KEYS) * 1e9


def _coherent(report: Report, url: str, where: str) -> None:
    with opened(url) as cache:
        for key in KEYS:
            cache.set(key, PAYLOAD)
        _until_near(cache, KEYS)
        hit = median_of(lambda: [cache.get(key) for _ in range(20) for key in KEYS], 5) / 20 / len(KEYS) * 1e9
        ahit = asyncio.run(_ahits(cache.aget))
        decorated = cache.cached(key="b3:{k}")(lambda k: PAYLOAD)
        for k in range(1000):
            decorated(k)
        if not cache.stats().coherence.startswith("tracking"):
            raise RuntimeError(cache.stats().coherence)
        report.row(
            "B3",
            f"{OURS}, {where}",
            ns=round(hit),
            ns_async=round(ahit),
            ns_decorated=round(one_thread(decorated, 3)),
        )
    for what, ns in (("sync", hit), ("async", ahit)):
        report.judge("B3", f"coherent {what} hit, {where}", "<= 1500 ns", f"{ns:.0f} ns", ns <= 1500)


def _csc(url: str) -> dict[str, Any]:
    redis = peer("redis")
    try:
        from redis.cache import CacheConfig
    except ImportError as error:
        raise Absent("this redis-py has no client-side cache") from error
    try:
        client = redis.Redis.from_url(url, protocol=3, cache_config=CacheConfig(max_size=10_000))
        client.ping()
    except redis.exceptions.RedisError as error:
        raise Absent(f"redis-py client-side cache: {error}") from error
    for key in KEYS:
        client.set(key, b"1")
        client.get(key)
    ns = median_of(lambda: [client.get(key) for key in KEYS], 5) / len(KEYS) * 1e9
    client.close()
    return {"ns": round(ns)}


def _cashews_near(url: str) -> dict[str, Any]:
    cashews = peer("cashews")

    async def go() -> float:
        cache = cashews.Cache()
        cache.setup(f"{url}?protocol=2", client_side=True, suppress=False)
        await cache.init()
        await asyncio.sleep(0.3)
        for key in KEYS:
            await cache.set(key, PAYLOAD, expire=600)
        ns = await _ahits(cache.get)
        await cache.close()
        return ns

    return {"ns_async": round(asyncio.run(go()))}


def coherent_hit(report: Report, url: str, cluster_url: str) -> None:
    """B3: a hit in process memory while every write of others is followed."""
    _coherent(report, url, "standalone")
    _coherent(report, cluster_url, "cluster")
    report.attempt("B3", "redis-py client-side cache", lambda: _csc(url))
    report.attempt("B3", "cashews client_side", lambda: _cashews_near(url))


# -- B4 --------------------------------------------------------------------------------------------------


def _sync_rate(get: Callable[[str], Any], calls: int) -> tuple[float, list[float]]:
    for key in KEYS:
        assert get(key)
    taken = []
    started = time.perf_counter()
    for n in range(calls):
        at = time.perf_counter()
        get(KEYS[n % 200])
        taken.append(time.perf_counter() - at)
    return calls / (time.perf_counter() - started), taken


def _raw(host: str, port: int) -> Callable[[str], bytes]:
    link = socket.create_connection((host, port))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get(key: str) -> bytes:
        link.sendall(b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key.encode()))
        data = link.recv(65536)
        while not data.endswith(b"\r\n"):
            data += link.recv(65536)
        return data

    return get


def _sync_getters(url: str) -> dict[str, Callable[[], Callable[[str], Any]]]:
    def dogpile() -> Any:
        region = (
            peer("dogpile.cache")
            .make_region()
            .configure(
                "dogpile.cache.redis",
                expiration_time=600,
                arguments={"url": url, "redis_expiration_time": 3600},
            )
        )
        for key in KEYS:
            region.set(key, PAYLOAD)
        return region.get

    def django_redis() -> Any:
        from django.conf import settings

        if not settings.configured:
            settings.configure()
        cache = peer("django_redis.cache").RedisCache(url, {"TIMEOUT": 600, "OPTIONS": {}})
        for key in KEYS:
            cache.set(key, PAYLOAD)
        return cache.get

    return {"dogpile.cache redis": dogpile, "django-redis": django_redis}


def _sync_far(report: Report, url: str, port: int) -> None:
    import redis

    client = redis.Redis.from_url(url)
    for key in KEYS:
        client.set(key, BLOB)
    calls = 2000 if report.quick else 6000
    with opened(url, l1=None) as cache:
        cache.set_many({key: PAYLOAD for key in KEYS})
        rates: dict[str, list[float]] = {}
        tails: dict[str, float] = {}
        getters = {
            OURS: cache.get,
            "redis-py + pickle": lambda key: pickle.loads(client.get(key)),
            "floor: raw socket": _raw("127.0.0.1", port),
        }
        for _ in range(5):  # interleaved: a slow moment of the machine meets all of them
            for name, get in getters.items():
                rate, taken = _sync_rate(get, calls // 3)
                rates.setdefault(name, []).append(rate)
                tails[name] = quantile(taken, 0.99)
    client.close()
    for name, got in rates.items():
        report.row("B4 sync", name, ops_s=round(quantile(got, 0.5)), p99_us=round(tails[name] * 1e6))
    for name, make in _sync_getters(url).items():
        report.attempt("B4 sync", name, lambda make=make: {"ops_s": round(_sync_rate(make(), calls // 3)[0])})
    pairs = sorted(a / b for a, b in zip(rates[OURS], rates["redis-py + pickle"], strict=True))
    report.judge("B4", "sync, of redis-py + pickle", ">= 0.95", f"{pairs[2]:.2f}", pairs[2] >= 0.95)


async def _async_rate(get: Any, calls: int) -> float:
    async def work(first: int) -> None:
        for n in range(calls):
            await get(KEYS[(n + first) % 200])

    await get(KEYS[0])
    started = time.perf_counter()
    await asyncio.gather(*(work(n) for n in range(50)))
    return 50 * calls / (time.perf_counter() - started)


async def _async_far(report: Report, url: str) -> None:
    from redis import asyncio as aredis

    client = aredis.Redis.from_url(url)
    cache = opened(url, l1=None)

    async def plain(key: str) -> Any:
        return pickle.loads(await client.get(key))

    keys = {key: PAYLOAD for key in KEYS}
    await cache.aset_many(keys)
    calls = 40 if report.quick else 100
    ratios = []
    for key in KEYS:
        await client.set(key, BLOB)
    for _ in range(5):
        theirs = await _async_rate(plain, calls)
        ours = await _async_rate(cache.aget, calls)
        ratios.append((ours / theirs, ours, theirs))
    ratio, ours, theirs = sorted(ratios)[2]
    report.row("B4 async, 50 tasks", OURS, ops_s=round(ours))
    report.row("B4 async, 50 tasks", "redis-py asyncio + pickle", ops_s=round(theirs))
    report.judge("B4", "async 50 tasks, of redis-py asyncio", ">= 5.0", f"{ratio:.1f}", ratio >= 5)
    await cache.aclose()
    await client.aclose()


async def _async_peer(name: str, url: str, port: int) -> float:
    if name == "cashews":
        cache: Any = peer("cashews").Cache()
        cache.setup(f"{url}?max_connections=200", suppress=False)
        for key in KEYS:
            await cache.set(key, PAYLOAD, expire=600)
    else:
        aiocache = peer("aiocache")
        pickled = peer("aiocache.serializers").PickleSerializer()
        cache = aiocache.Cache(aiocache.Cache.REDIS, endpoint="127.0.0.1", port=port, serializer=pickled)
        for key in KEYS:
            await cache.set(key, PAYLOAD, ttl=600)
    rate = await _async_rate(cache.get, 40)
    await cache.close()
    return rate


def redis_hit(report: Report, url: str, port: int) -> None:
    """B4: a hit in Redis of a 1 KB dictionary, one client; then 50 tasks of one loop."""
    _sync_far(report, url, port)
    asyncio.run(_async_far(report, url))
    for name in ("cashews", "aiocache"):
        report.attempt(
            "B4 async, 50 tasks", name,
            lambda name=name: {"ops_s": round(asyncio.run(_async_peer(name, url, port)))},
        )  # fmt: skip


# -- B7 --------------------------------------------------------------------------------------------------

MANY = [f"gm:{n}" for n in range(1000)]


def thousand_keys(report: Report, cluster_url: str, cluster: Any) -> None:
    """B7: 1000 keys of 1 KB from a cluster, decoded; and all of them from process memory."""
    rounds = 7 if report.quick else 15
    client = cluster.client()
    for key in MANY:
        client.set(key, BLOB)
    values = {key: PAYLOAD for key in MANY}

    def nonatomic() -> None:
        assert len([pickle.loads(blob) for blob in client.mget_nonatomic(MANY)]) == 1000

    with opened(cluster_url, l1=None) as far, opened(cluster_url) as near:
        far.set_many(values)
        assert far.get_many(MANY) == values
        ours = median_of(lambda: far.get_many(MANY), rounds) * 1e3
        aours = asyncio.run(_athousand(far, rounds)) * 1e3
        decode = median_of(
            lambda: [far._core.serializer.loads(far._core.serializer.dumps(PAYLOAD)) for _ in MANY], 3
        )
        _until_near(near, MANY)
        memory = median_of(lambda: near.get_many(MANY), rounds) * 1e3
    theirs = median_of(nonatomic, rounds) * 1e3
    report.row("B7", OURS, ms=f"{ours:.1f}", ms_async=f"{aours:.1f}", ms_from_memory=f"{memory:.2f}")
    report.row("B7", "redis-py mget_nonatomic + pickle", ms=f"{theirs:.1f}")
    report.row(
        "B7",
        "pickle.loads of them alone",
        ms=f"{median_of(lambda: [pickle.loads(BLOB) for _ in MANY], 7) * 1e3:.1f}",
    )
    report.row("B7", "our serializer, both ways, alone", ms=f"{decode * 1e3:.1f}")
    report.row(
        "B7", "floor: raw sockets, one write per node", ms=f"{_raw_thousand(client, rounds) * 1e3:.1f}"
    )
    report.attempt(
        "B7", "cashews get_many", lambda: {"ms": f"{asyncio.run(_cashews_many(cluster)) * 1e3:.0f}"}
    )
    client.close()
    report.judge("B7", "1000 keys of a cluster, decoded", "<= 12 ms", f"{ours:.1f} ms", ours <= 12)
    report.judge("B7", "the same, async", "<= 12 ms", f"{aours:.1f} ms", aours <= 12)
    report.judge("B7", "all from process memory", "<= 0.3 ms", f"{memory:.2f} ms", memory <= 0.3)


async def _athousand(cache: CacheManager, rounds: int) -> float:
    assert len(await cache.aget_many(MANY)) == 1000
    taken = await amedian_of(lambda: cache.aget_many(MANY), rounds)
    await cache._core.store.aclose()
    return taken


def _raw_thousand(client: Any, rounds: int) -> float:
    hiredis = peer("hiredis")
    by_node: dict[tuple[str, int], list[bytes]] = {}
    for key in MANY:
        node = client.get_node_from_key(key)
        by_node.setdefault((node.host, node.port), []).append(
            b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key.encode())
        )
    links = [(socket.create_connection(at), len(parts), b"".join(parts)) for at, parts in by_node.items()]

    def once() -> None:
        for link, _, data in links:
            link.sendall(data)
        for link, count, _ in links:
            reader = hiredis.Reader()
            while count:
                reader.feed(link.recv(1 << 18))
                while reader.gets() is not False:
                    count -= 1

    taken = median_of(once, rounds)
    for link, _, _ in links:
        link.close()
    return taken


async def _cashews_many(cluster: Any) -> float:
    cache = peer("cashews").Cache()
    cache.setup(f"redis://127.0.0.1:{cluster.nodes[0].port}", cluster=True, suppress=False, socket_timeout=20)
    for key in MANY:
        await cache.set(f"cw:{key}", PAYLOAD, expire=600)
    names = [f"cw:{key}" for key in MANY]
    taken = await amedian_of(lambda: cache.get_many(*names), 3)
    await cache.close()
    return taken
