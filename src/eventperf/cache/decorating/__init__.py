"""``@cached``: from a function and its arguments to keys, tags and a fast path."""
