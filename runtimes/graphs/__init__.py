"""Models read as graphs: folded, looked into, and their int8 constants read back."""
