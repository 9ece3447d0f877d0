"""What a statement asks of each table: names resolved, conditions, joins and orders read."""
