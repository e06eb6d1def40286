"""What every package may use, without any domain in it: files, images, progress, programs, compute, versions."""
