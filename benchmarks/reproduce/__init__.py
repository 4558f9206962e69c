"""The papers' findings on one's own data and machine: the runs, their measures, the record."""
