"""Filters: near-duplicates, lengths, patterns, and questions of the evaluation in the pool."""
