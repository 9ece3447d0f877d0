"""One namespace spread over several hash slots of Redis: each partition is a namespace of its own."""
