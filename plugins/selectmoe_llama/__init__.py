"""Fine-tuning of Llama-architecture models with LoRA."""
