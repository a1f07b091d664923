"""Packed forward and backward passes: Triton kernels, what launches them, and plain references."""
