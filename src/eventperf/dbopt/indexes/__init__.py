"""Which indexes: candidates, their prices, and the search for the best set."""
