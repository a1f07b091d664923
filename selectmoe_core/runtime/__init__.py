"""Processes, hardware, progress and the terminal."""
