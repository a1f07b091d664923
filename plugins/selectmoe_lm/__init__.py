"""Scores from what a language model loses on the answers, and blends of finished scores."""
