"""Data sets that have a name."""
