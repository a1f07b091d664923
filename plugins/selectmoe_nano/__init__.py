"""Offline trials: generated instruction data, questions, and two nano models."""
