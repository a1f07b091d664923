"""The Select-MoE model: configuration, router with trash cans, experts, auxiliary losses."""
