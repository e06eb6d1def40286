"""General helpers that every package may use: files, images, progress, programs, compute, versions, the registry."""
