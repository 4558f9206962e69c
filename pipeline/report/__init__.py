"""What a run has done, for machines and people: balance, manifest, examples, inspect, verify."""
