"""Files become shards, shards become batches; no jax import in this room."""
