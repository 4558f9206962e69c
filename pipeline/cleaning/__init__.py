"""Documents as they were found to clean ones: repair, rules that drop, counts and examples."""
