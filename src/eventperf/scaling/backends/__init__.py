"""Backends: the outside world of this room, one file per technology."""
