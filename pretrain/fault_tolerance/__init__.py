"""What keeps a run from being lost: checkpoints, signals, steps that must not count, dead ranks."""
