"""Galleries: the embeddings of many pictures or texts by one model, and what the items are."""
