"""Measuring: recall and mAP, latency, memory, parity, and the report."""
