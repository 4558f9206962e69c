"""The demo: what `make demo` runs after the three stages, reading only their files."""
