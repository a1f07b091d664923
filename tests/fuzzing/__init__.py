"""Seeded cases of broken input and broken runs: what ``tools/fuzz.py`` and the short test run."""
