"""What is recommended, offered to others: to probes, Prometheus, and KEDA, which carry it out."""
