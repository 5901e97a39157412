"""Approximate nearest neighbours: an index over rows of embeddings, by a library."""
