"""Benchmarks on cached embeddings, one module each. No torch: a job starts in about a second."""
