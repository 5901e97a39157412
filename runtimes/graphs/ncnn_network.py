"""An ncnn model, any of whose blobs can be looked at. Computed by one thread, in float32 but for its int8 layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import RuntimeFailed
from .ncnn_model import read_layers


def open_net(
    param: Path | str, weights: Path | str, threads: int = 1, bf16: bool = False, optimised: bool = True
) -> Any:
    """ncnn's `Net` of the two files, on the CPU, in float32 or bf16 but for its int8 layers. optimised: whether it may
    convolve by Winograd's way or as matrix products, and pack channels.

    RuntimeFailed where they are no model.
    """
    import ncnn

    net = ncnn.Net()
    wanted = net.opt
    wanted.num_threads = threads
    wanted.use_vulkan_compute = False
    # All of these are on by default where the CPU has them.
    wanted.use_fp16_packed = wanted.use_fp16_storage = wanted.use_fp16_arithmetic = False
    wanted.use_bf16_storage = bf16
    if not optimised:
        wanted.use_winograd_convolution = wanted.use_sgemm_convolution = wanted.use_packing_layout = False
    if net.load_param(str(param)) != 0 or net.load_model(str(weights)) != 0:
        raise RuntimeFailed("ncnn cannot load the model")
    return net


class NcnnNetwork:
    """given, made: names of its input and of what its last layer gives."""

    def __init__(self, param: Path) -> None:
        import ncnn

        layers = read_layers(param)
        self.ncnn, self.net = ncnn, open_net(param, param.with_suffix(".bin"))
        self.given = next((layer.outputs[0] for layer in layers if layer.kind == "Input"), "")
        self.made = self.net.output_names()[0]

    def blobs(self, names: Sequence[str], tensors: NDArray[np.float32]) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Of each image, by name: `(C, H, W)`, `(H, W)` or `(W,)`. tensors: float32 `(n, 3, H, W)`."""
        for tensor in tensors:
            found = {}
            with self.net.create_extractor() as extractor:
                extractor.set_light_mode(False)  # which forgets what has been used
                extractor.input(self.given, self.ncnn.Mat(np.ascontiguousarray(tensor)).clone())
                for name in names:
                    failed, value = extractor.extract(name)
                    if failed or value.empty():
                        raise RuntimeFailed(f"ncnn: blob {name} could not be computed ({failed})")
                    found[name] = np.array(value)
            yield found

    def embed(self, tensors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Raw embeddings, `(n, D)`."""
        return np.stack([found[self.made].reshape(-1) for found in self.blobs([self.made], tensors)])
