"""The outbox, by its public path; it lives in :mod:`eventperf.queues.producing.outbox`."""

from .producing.outbox import TABLE, Relay, awrite, create_table, write, write_django

__all__ = ["TABLE", "Relay", "awrite", "create_table", "write", "write_django"]
