"""What PostgreSQL, MySQL/MariaDB and SQLite each do in their own way."""
