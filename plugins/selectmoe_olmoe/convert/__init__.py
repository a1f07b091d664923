"""Conversion of a pretrained checkpoint into a Select-MoE model, and its verification."""
