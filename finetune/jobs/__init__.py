"""From the flags to trained jobs, one folder each, and back to models from those folders."""
