"""Metrics of embeddings that are numpy arrays. No module here imports torch. Results equal a float64 computation."""

from cusa.metrics.correlation import similarity_correlation
from cusa.metrics.labels import nearest_label_recall
from cusa.metrics.precision import extended_recall
from cusa.metrics.recall import image_text_recall

__all__ = ["extended_recall", "image_text_recall", "nearest_label_recall", "similarity_correlation"]
