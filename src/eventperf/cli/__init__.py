"""The command line, ``eventperf``: each room is imported by the command that needs it."""
