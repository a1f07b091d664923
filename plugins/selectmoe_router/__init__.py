"""Scores from what a selector model's router does with the tokens of an example."""
