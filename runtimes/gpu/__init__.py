"""NVIDIA GPUs: what the driver tells of them, memory and time on them, and TensorRT's engines."""
