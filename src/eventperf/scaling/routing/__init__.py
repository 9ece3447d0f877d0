"""Where a request goes: endpoints by load and health, database replicas by their lag."""
