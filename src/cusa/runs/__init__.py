"""Run folders: their record, their weights, and the run folders of baselines, which are not trained."""
