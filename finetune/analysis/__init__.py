"""The figures of the papers, one module each; every one writes a PNG and the CSV behind it."""
