"""Which of a server's errors mean "not now": the command was right and will be taken again later."""

from __future__ import annotations

import re
from typing import Final

_NAMES: Final = (
    "OOM", "MISCONF", "NOREPLICAS", "BUSY", "UNKILLABLE", "READONLY", "LOADING", "CLUSTERDOWN", "MASTERDOWN",
    "TRYAGAIN", "UNBLOCKED",
)  # fmt: skip
# Scripts pass an error on in their own words: "ERR Error running script ...: -OOM command not allowed".
_PASSING: Final = re.compile(rf"(?:^|[-:@ ])({'|'.join(_NAMES)})\b")
_CLASSES: Final = {
    "OutOfMemoryError": "OOM", "ReadOnlyError": "READONLY", "BusyLoadingError": "LOADING",
    "ClusterDownError": "CLUSTERDOWN", "MasterDownError": "MASTERDOWN", "TryAgainError": "TRYAGAIN",
}  # fmt: skip
_SAID: Final = {
    "OOM": "is out of memory and takes nothing new (raise maxmemory, or purge what is kept)",
    "MISCONF": "takes no writes, because it cannot save to its disk (see its log and INFO persistence)",
    "NOREPLICAS": "takes no writes, because it has too few replicas (min-replicas-to-write)",
    "READONLY": "is a replica and takes no writes (a failover that is not over, or the address of a replica)",
    "LOADING": "is still loading its data",
    "BUSY": "is held by a script or function that does not end (SCRIPT KILL)",
    "CLUSTERDOWN": "belongs to a cluster that is down (slots without a node)",
    "MASTERDOWN": "is a replica that has lost its primary",
}  # fmt: skip


def is_passing(error: BaseException) -> bool:
    """Tell whether a server that answers refuses for a while: full, failing over, loading, busy.

    >>> is_passing(Exception("MISCONF Redis is configured to save RDB snapshots, but is unable to"))
    True
    >>> is_passing(Exception("WRONGTYPE Operation against a key holding the wrong kind of value"))
    False
    """
    return _name(error) is not None


def said(error: BaseException) -> str | None:
    """Say what a server that answers cannot do now, and the cure; ``None`` of one that does not answer.

    >>> said(Exception("LOADING Redis is loading the dataset in memory"))
    'is still loading its data'
    """
    name = _name(error)
    return None if name is None else _SAID.get(name, "refuses for now")


def _name(error: BaseException) -> str | None:
    """Return the server's word for it."""
    # redis-py takes the name off the text of the errors that it has classes for.
    for kind in type(error).__mro__:
        if (name := _CLASSES.get(kind.__name__)) is not None:
            return name
    found = _PASSING.search(str(error)[:300])
    return None if found is None else found[1]
