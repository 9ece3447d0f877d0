"""What the console shows, one module a room."""
