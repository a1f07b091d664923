"""Readers: instruction data in the layouts and row formats that people keep it in."""
