"""A model as KServe's users write one, for `serving.py --kserve`: base64 of JPEG files in JSON, Pillow, ONNX Runtime.

Run by a Python that has kserve, onnxruntime and pillow: `kserve_model.py --onnx FILE --http_port PORT --workers N`, a
process for each core with one thread each. KServe makes Python lists of binary tensors, which takes longer.
"""

from __future__ import annotations

import argparse
import base64
import io

import numpy as np
import onnxruntime
from kserve import InferOutput, InferResponse, Model, ModelServer, model_server
from PIL import Image

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
SHORT, SIDE = 256, 224


def tensor_of(file: bytes) -> np.ndarray:
    """Encoded image -> float32 `(1, 3, 224, 224)`: shorter side 256, centre crop, ImageNet's mean and std."""
    image = Image.open(io.BytesIO(file)).convert("RGB")
    scale = SHORT / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    pixels = np.asarray(image.crop((left, top, left + SIDE, top + SIDE)), np.float32) / np.float32(255)
    return np.ascontiguousarray(((pixels - MEAN) / STD).transpose(2, 0, 1)[None])


class Embedding(Model):
    """Opens its session in the process that answers: sessions cannot be pickled."""

    def __init__(self, onnx: str) -> None:
        super().__init__("m")
        self.onnx, self.session, self.input, self.ready = onnx, None, "", True

    async def predict(self, payload, headers=None, response_headers=None):
        """One image's embedding, in binary."""
        if self.session is None:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self.session = onnxruntime.InferenceSession(self.onnx, options, providers=["CPUExecutionProvider"])
            self.input = self.session.get_inputs()[0].name
        tensor = tensor_of(base64.b64decode(payload.inputs[0].data[0]))
        (found,) = self.session.run(None, {self.input: tensor})
        output = InferOutput("embedding", list(found.shape), "FP32")
        output.set_data_from_numpy(found, binary_data=True)
        return InferResponse(payload.id, self.name, [output], use_binary_outputs=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[model_server.parser])
    parser.add_argument("--onnx", required=True)
    options, _ = parser.parse_known_args()
    ModelServer(workers=options.workers, enable_grpc=False).start([Embedding(options.onnx)])
