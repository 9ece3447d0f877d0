"""Other forms of statements, and what it takes to call one safe: search > proof, rules > tree."""
