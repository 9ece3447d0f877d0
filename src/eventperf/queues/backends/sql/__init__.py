"""Jobs in PostgreSQL, MariaDB, MySQL or SQLite, through SQLAlchemy."""
