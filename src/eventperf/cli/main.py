"""The front door of the command line.

A command is a module with ``configure(parser)`` and ``run(args) -> int``, imported only when it is chosen, so
that one room's command never needs another room's dependencies.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from eventperf import __version__
from eventperf._core.errors import EventPerfError
from eventperf._core.texts import plain
from eventperf._core.urls import redact

from .addresses import resolve

COMMANDS = {
    "demo": ("eventperf.cli.demo", "run the main job on this machine and print before and after"),
    "cache": ("eventperf.cli.cache", "look into a cache, invalidate by key, tag or pattern"),
    "db": ("eventperf.cli.db", "find slow queries, advise and apply indexes, lint SQL"),
    "queue": ("eventperf.cli.queue", "run workers, watch and mend queues"),
    "scale": ("eventperf.cli.scale.commands", "run, backtest and explain autoscaling"),
    "init": (
        "eventperf.cli.init",
        "the few lines that bring eventperf into a Django, Flask or FastAPI project",
    ),
    "doctor": ("eventperf.cli.doctor", "look at a running configuration: each finding with its cure"),
    "console": (
        "eventperf.cli.console",
        "one page about queues, cache, database and scaling, on this machine",
    ),
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence that says what is allowed."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments"):
            given = redact(message.partition(": ")[2].split()[0])
            message = f"{given}: unknown option or argument; allowed: {', '.join(self._options())}"
        self.exit(2, f"{self.prog}: {message}\n")

    def _options(self) -> list[str]:
        found = [action.option_strings[-1] for action in self._actions if action.option_strings]
        commands = [c for a in self._actions if isinstance(a, argparse._SubParsersAction) for c in a.choices]
        return sorted(commands) + sorted(found)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when it did what was asked, 1 when it ran and found something wrong, 2 when it could not run:
        one sentence on standard error then says what was given and what is allowed.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _front(arguments)
    try:
        args, unknown = parser.parse_known_args(arguments)
        if unknown:  # told by the command, which knows what it allows
            getattr(args, "parser", parser).error(f"unrecognized arguments: {unknown[0]}")
        if not getattr(args, "command", None):
            parser.print_help()
            return 0
        resolve(args)
        return int(args.run(args) or 0)
    except SystemExit as leave:  # argparse has said its sentence; --help has printed its page
        return leave.code if isinstance(leave.code, int) else 0
    except EventPerfError as error:
        print(plain(f"{parser.prog} {arguments[0]}: {error}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe (`| head`) has left; nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _front(arguments: Sequence[str]) -> Parser:
    parser = Parser(prog="eventperf", description="Stay fast on your busiest day.")
    parser.add_argument("--version", action="version", version=f"eventperf {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", parser_class=Parser)
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    for name, (module, text) in COMMANDS.items():
        sub = commands.add_parser(name, help=text, description=text.capitalize() + ".")
        if name == chosen:
            command = importlib.import_module(module)
            command.configure(sub)
            sub.set_defaults(run=command.run, parser=sub)
    return parser


if __name__ == "__main__":
    sys.exit(main())
