"""Data: registry of sources, fetching, preparation, embedded tables."""
