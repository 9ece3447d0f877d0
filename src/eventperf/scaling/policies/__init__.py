"""What wants a number of replicas: pure functions of an observation."""
