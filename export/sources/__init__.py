"""Where a model to export comes from: a training checkpoint, or a model in Paddle's format, ONNX or a runtime's own."""

# What a model's file is, by how its name ends; a folder is Paddle's. Of a runtime's own format the runtime's name.
FORMS = {".onnx": "onnx", ".tflite": "litert", ".param": "ncnn"}
