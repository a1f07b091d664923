"""Executing a plan: its nodes in this process, in one of its own, or in several."""
