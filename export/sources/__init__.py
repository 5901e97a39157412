"""Where a model to export comes from: a training checkpoint, a Paddle inference model, or an ONNX file."""
