"""Executing a plan: each node in this process, in a child process, or in several."""
