"""Decision records kept: in a file of lines, in a table."""
