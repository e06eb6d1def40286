"""A search over settings of one experiment: its space, its trials and what they found."""
