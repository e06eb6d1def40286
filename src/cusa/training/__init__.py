"""Training one run: the loop, a step, the data, and what survives an interruption."""
