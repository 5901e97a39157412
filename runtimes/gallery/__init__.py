"""Galleries that are smaller than their embeddings."""
