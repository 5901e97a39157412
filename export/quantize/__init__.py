"""Quantised artifacts from a bundle's own float models."""
