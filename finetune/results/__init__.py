"""What finished jobs found: read, summarised over seeds, tabled, compared, submitted."""
