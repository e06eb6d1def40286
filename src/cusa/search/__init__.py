"""Searching an index: queries of texts, pictures and rows, filters on columns of the items, and the hits."""
