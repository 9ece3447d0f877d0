"""What can be said of statements and schemas without a database."""
