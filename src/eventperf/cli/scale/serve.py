"""``eventperf scale serve``: decide, change nothing, and offer what is recommended to those who act."""

from __future__ import annotations

import argparse

from .config import build, read_file
from .listening import address, listening
from .run import serve_plan


def serve(args: argparse.Namespace) -> int:
    """Serve until a signal ends it; every process decides by itself, nobody needs to lead."""
    address(args.grpc or "127.0.0.1:0", "--grpc")
    plan = build(read_file(args.config), dry_run=True, state=args.state)
    try:
        plan.elector = plan.fleet.leader = None
        if plan.learned is not None:
            plan.learned.guard = None
        for scaler in plan.scalers:
            scaler.advises = True
        with listening(plan, args.listen, grpc=args.grpc):
            return serve_plan(plan)
    finally:
        plan.close()
