"""A predictor in a process of its own: the host's side, the worker's side, the wire between them."""
