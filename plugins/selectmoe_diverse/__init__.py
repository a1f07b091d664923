"""Selectors that read vectors: turns of clusters, a smallest distance, and coverage of the pool."""
