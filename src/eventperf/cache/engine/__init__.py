"""How a read, a write and a load go: look, decide, act. Reaches the tiers through their protocols only."""
