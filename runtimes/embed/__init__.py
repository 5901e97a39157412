"""From a bundle and images to embeddings: the model, its replicas, verification, predict's config and output."""
