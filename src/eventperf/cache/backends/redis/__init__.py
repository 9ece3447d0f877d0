"""The second tier on Redis: commands, connections, direct reads, and the channel that tells of writes."""

from .store import RedisStore

__all__ = ["RedisStore"]
