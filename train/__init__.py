"""Metric learning with cross-batch memory on PaddlePaddle."""
