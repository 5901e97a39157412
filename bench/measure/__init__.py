"""Measuring on this machine: the rounds, one row's worker, stages, parity, LoadGen."""
