"""What a worker does: claim, run, keep leases, acknowledge, fire schedules."""
