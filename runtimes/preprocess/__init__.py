"""From image bytes to the tensor a model eats: typed operations, decoding, the core's pipeline."""
