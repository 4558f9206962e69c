"""Each performance claim as a command that prints a ratio."""
