"""A client that another thread still uses is closed all the same."""

from __future__ import annotations

from typing import Any

from eventperf._redis.connect import close


class Nodes:
    """As a cluster's table of nodes that grows while it is walked through, some times."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.closed = 0

    def close(self) -> None:
        if self.times:
            self.times -= 1
            raise RuntimeError("dictionary changed size during iteration")
        self.closed += 1


def test_a_cluster_whose_nodes_change_meanwhile_is_closed() -> None:
    client: Any = Nodes(3)
    close(client)
    assert client.closed == 1


def test_a_cluster_whose_nodes_never_rest_keeps_nobody() -> None:
    close(Nodes(10**9))
