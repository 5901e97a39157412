"""What a predictor is, how a runtime describes itself, and the registry of them."""
