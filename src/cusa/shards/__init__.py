"""Shards: WebDataset tar files with an index beside them, written once, read by row or as a stream."""
