"""Indexes for nearest-neighbour search in a gallery of embeddings, by faiss."""
