"""Training: state, step, EMA, optimizers, sharding, checkpoints, loop."""
