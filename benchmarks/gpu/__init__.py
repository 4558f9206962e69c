"""Everything that wants a GPU, in one command of minutes: `python -m benchmarks.gpu`."""
