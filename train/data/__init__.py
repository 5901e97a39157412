"""Data sets: the synthetic generator and the converter of the official release."""
