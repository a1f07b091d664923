"""Conversion of a pretrained checkpoint into a Select-MoE model, and the proof that it is one."""
