"""What a producer says: which job, of which type, in which transaction."""
