"""A search over settings of one experiment: its space, its trials and their results."""
