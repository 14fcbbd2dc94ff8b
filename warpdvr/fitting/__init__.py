"""From photographs to a field: terms of the loss, the training loop, checkpoints, refined cameras."""
