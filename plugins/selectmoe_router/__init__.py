"""Scores from what a model's router does with the tokens of an example."""
