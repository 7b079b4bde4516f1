"""One training run: batches, losses, optimisers and checkpoints."""
