"""Examples by the gradients of LoRA weights (LESS: Xia et al. 2024)."""
