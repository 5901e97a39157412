"""Pair losses and the cross-batch memory."""
