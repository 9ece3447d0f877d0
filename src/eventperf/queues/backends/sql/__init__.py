"""Jobs in an SQL database: PostgreSQL, MariaDB or MySQL, or a SQLite file on one host.

A verb of the store is one transaction (:class:`~.tx.Tx`). Read from the top: ``backend`` (connections,
retries), ``store`` (the verbs), then what a verb does (``claiming``, ``finishing``, ``leases``, ``flows``,
...), and at the bottom what is stored (``rows``, ``tables``) and how it came to be (``history``).
"""

from .backend import SqlBackend

__all__ = ["SqlBackend"]
