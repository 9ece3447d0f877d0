"""Talking to Redis with less in between: what threads (:mod:`.direct_plain`) and tasks have in common.

Connections are made by redis-py, so that URLs, TLS, users and databases mean what they mean elsewhere;
commands then go over them packed by hand, and answers are parsed by hiredis. Anything but a plain answer
(a moved slot, a server that is loading) is asked for again through redis-py, which knows what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from eventperf._core.extras import require
from eventperf.cache.values.envelope import OTHER_TYPE

from .patience import BYTES_PER_S
from .replies import Garbage, Misfit, fit, is_other_type
from .resp3 import Unpackable, pack

GET: Final = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n"
RUN: Final = 500  # keys in one command, or commands that may take the time of one
REDO: Final[Any] = object()
"""The place of an answer that redis-py has to fetch."""


def pack_get(key: str) -> bytes:
    """Return a ``GET`` as the server reads it."""
    data = key.encode()
    return GET % (len(data), data)


def pack_mget(keys: Sequence[str]) -> bytes:
    """Return an ``MGET``."""
    out = [b"*%d\r\n$4\r\nMGET\r\n" % (len(keys) + 1)]
    for key in keys:
        data = key.encode()
        out.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(out)


def packed(command: Sequence[Any]) -> bytes:
    """Return any command as the server reads it; nothing for one that redis-py is to refuse in its words."""
    try:
        return pack(*command)
    except Unpackable:
        return b""


def find_hiredis() -> Any:
    """Return hiredis, or ``None``: then nothing goes directly."""
    try:
        import hiredis
    except ImportError:
        return None
    return hiredis


def reader_of(hiredis: Any) -> Any:
    """Return what takes the answers of one connection apart."""
    return hiredis.Reader(protocolError=Garbage)


def allowed_s(timeout_s: float, count: int, size: int) -> float:
    """Return how long so many answers may take where ``size`` bytes have gone and come.

    >>> allowed_s(0.5, 1, 0), allowed_s(0.5, 1000, 2_000_000)
    (0.5, 3.5)
    """
    return timeout_s * (1 + count // RUN) + size / BYTES_PER_S


def plain_of(reply: Any) -> Any:
    """Return what a ``GET`` was answered, or ``REDO``."""
    if reply is None or type(reply) is bytes:
        return reply
    if not isinstance(reply, Exception):
        raise Misfit("GET", reply)
    return OTHER_TYPE if is_other_type(reply) else REDO


def row_of(reply: Any, count: int) -> list[Any]:
    """Return the values of an ``MGET``, or so many ``REDO``."""
    if reply is REDO or isinstance(reply, Exception):
        return [REDO] * count
    return list(fit(("MGET", *range(count)), reply))


def node_finder(client: Any) -> Any:
    """Return a function from a key's bytes to its primary node."""
    slot_of = require("redis.crc", extra="cache", needed_by="RedisStore").key_slot
    manager = client.nodes_manager
    slots = getattr(manager, "slots_cache", {})

    def node_of(key: bytes) -> Any:
        slot = slot_of(key)
        nodes = slots.get(slot)
        return nodes[0] if nodes else manager.get_node_from_slot(slot)

    return node_of


def primary_of(client: Any, key: str) -> tuple[Any, Any]:
    """Return the name of a key's primary node and redis-py's pool for it."""
    node = node_finder(client)(key.encode())
    return node.name, client.get_redis_connection(node).connection_pool
