"""Backends: the outside world of this room, one folder per technology."""
