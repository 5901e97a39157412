"""Galleries: on disk with ids and labels, and in memory in a few bits a number."""
