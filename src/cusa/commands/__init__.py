"""The commands of `cusa`, a module each, and their findings."""
