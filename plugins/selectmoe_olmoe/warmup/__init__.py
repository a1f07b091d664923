"""The warm-up: what trains the router of a converted model, and on which batches."""
