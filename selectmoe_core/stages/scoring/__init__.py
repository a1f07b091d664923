"""How a pool is scored or embedded shard by shard, and continued after a stop."""
