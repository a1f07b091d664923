"""Select-MoE on OLMoE: the model, the converter, its verification and the router's warm-up."""
