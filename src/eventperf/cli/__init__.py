"""The command line: ``eventperf`` and ``python -m eventperf``. Rooms are imported by the command that needs them."""
