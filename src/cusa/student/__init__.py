"""The model that is trained: a backbone and the four heads of the paper."""
