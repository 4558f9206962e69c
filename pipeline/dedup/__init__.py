"""What overlaps: documents with each other, equal or nearly, and with evaluation sets."""
