"""Benchmarks on cached embeddings, one module each. No module imports torch, so a job starts in about a second."""
