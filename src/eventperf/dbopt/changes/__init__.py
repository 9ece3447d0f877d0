"""What alters the database: indexes created, measured, judged, and taken back."""
