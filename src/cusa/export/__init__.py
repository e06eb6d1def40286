"""Exports: a run folder as a folder that loads elsewhere, by this library, sentence-transformers or onnxruntime."""
