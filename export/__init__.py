"""From a checkpoint or a Paddle model to a bundle that every runtime can read."""
