"""Run the benchmarks of one room: ``python tests/benchmarks/run.py cache|dbopt|scaling|queues [options]``.

Each room has a ``bench_<room>.py`` beside this file with ``main(argv) -> int``.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOMS = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def main(argv: list[str]) -> int:
    """Hand ``argv`` to the room it begins with."""
    if not argv or argv[0] not in ROOMS:
        print(f"room: got {' '.join(argv[:1])!r}; allowed: {', '.join(ROOMS)}", file=sys.stderr)
        return 2
    sys.path[:0] = [str(HERE), str(HERE.parent)]  # the room's module, and servers.py beside the tests
    return int(importlib.import_module(f"bench_{argv[0]}").main(argv[1:]) or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
