"""Token ids to rows, and rows to the tars of a data set."""
