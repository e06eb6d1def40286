"""Image-text retrieval with Cross-modal and Uni-modal Soft-label Alignment (CUSA, AAAI 2024).

Importing this package imports nothing heavy; the modules follow the data: config, sources, annotations,
shards, teachers, student and losses, metrics, training, embeddings, benchmarks, report.
"""

__version__ = "0.1.0"
