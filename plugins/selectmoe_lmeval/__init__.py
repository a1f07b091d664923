"""Evaluation with EleutherAI's lm-evaluation-harness."""
