"""Which of a server's errors mean "not now": the command was right and will be taken again later."""

from __future__ import annotations

import re
from typing import Final

_NAMES: Final = (
    "OOM", "MISCONF", "NOREPLICAS", "BUSY", "UNKILLABLE", "READONLY", "LOADING", "CLUSTERDOWN", "MASTERDOWN",
    "TRYAGAIN", "UNBLOCKED",
)  # fmt: skip
# Scripts pass an error on in their own words: "ERR Error running script ...: -OOM command not allowed".
_PASSING: Final = re.compile(rf"(?:^|[-:@ ])(?:{'|'.join(_NAMES)})\b")
_CLASSES: Final = frozenset(
    {
        "OutOfMemoryError",
        "ReadOnlyError",
        "BusyLoadingError",
        "ClusterDownError",
        "MasterDownError",
        "TryAgainError",
    }
)


def is_passing(error: BaseException) -> bool:
    """Tell whether a server that answers refuses for a while: full, failing over, loading, busy.

    >>> is_passing(Exception("MISCONF Redis is configured to save RDB snapshots, but is unable to"))
    True
    >>> is_passing(Exception("WRONGTYPE Operation against a key holding the wrong kind of value"))
    False
    """
    # redis-py takes the name off the text of the errors that it has classes for.
    classes = {kind.__name__ for kind in type(error).__mro__}
    return bool(classes & _CLASSES) or _PASSING.search(str(error)[:300]) is not None
