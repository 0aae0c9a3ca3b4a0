"""The training loop: loss, step, optimiser, checkpoints, metrics."""
