"""A server of one bundle: images in, embeddings or neighbours out, by the Open Inference Protocol."""
