"""Vectors of examples: hidden states, router profiles, sentence embeddings."""
