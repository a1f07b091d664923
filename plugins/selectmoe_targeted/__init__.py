"""Scores by similarity to target examples."""
