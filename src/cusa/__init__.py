"""Image-text retrieval with Cross-modal and Uni-modal Soft-label Alignment (CUSA, AAAI 2024).

Importing this package imports nothing heavy. Its packages stand in the order in which data flow: config, layout,
annotations, shards, teachers, student, losses, metrics, runs, training, embeddings, benchmarks, report.
"""

__version__ = "0.1.0"
