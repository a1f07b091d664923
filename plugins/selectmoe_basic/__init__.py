"""Scorers and selectors that need no model: baselines, and the ordinary ways to cut a ranking."""
