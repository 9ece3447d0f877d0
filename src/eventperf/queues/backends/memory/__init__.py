"""Jobs in the memory of one process."""

from .backend import MemoryBackend

__all__ = ["MemoryBackend"]
