"""Tables as the engine keeps them, their statistics, and the text that creates indexes."""
