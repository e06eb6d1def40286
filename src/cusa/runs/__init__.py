"""A run folder: its record, its weights, and baselines that are not trained."""
