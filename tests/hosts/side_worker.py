"""A worker for the side jobs of a host; its first handler holds its job until it is told to go on.

``python side_worker.py URL FOLDER``: writes its process id and says in ``log`` what it runs.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from eventperf.queues import QueueManager

url, folder = sys.argv[1], Path(sys.argv[2])
queues = QueueManager(url)


@queues.job("side", attempts=5)
def side(ctx, data: int) -> int:
    """Say that it runs; end when somebody has written ``go``."""
    with (folder / "log").open("a") as log:
        log.write(f"{os.getpid()} {data}\n")
    while not (folder / "go").exists():
        time.sleep(0.05)
    return data + 1


queues.worker(lease="2s").run()
