"""The runtimes that web/ drives in a browser, described; nothing of them runs in this process."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ..core.errors import RuntimeUnavailable
from ..predictor.backend import CANVAS, WEB, WEBGPU, Backend
from ..predictor.interface import ModelIO, Predictor, RunOptions


class BrowserOnly(Predictor):
    """Refuses to open here."""

    def __init__(self, files: dict[str, str], io: ModelIO, options: RunOptions) -> None:
        raise RuntimeUnavailable("it runs in browsers alone: run 'edgerecall bench BUNDLE --device browser'")

    def embed(self, batch: NDArray[Any]) -> NDArray[Any]:
        raise NotImplementedError


ALL = ("fp32", "fp16", "int8")


def described(name: str, title: str, order: int, quantisations: tuple[str, ...] = ALL) -> Backend:
    """A runtime over ONNX artifacts."""
    return Backend(
        name=f"{WEB}{name}",
        predictor=f"{__name__}:BrowserOnly",
        title=title,
        imports="json",  # nothing: a browser loads it
        artifacts="onnxruntime",
        file_format="ONNX",
        quantisations=quantisations,
        devices=("browser",),
        in_all=False,
        order=order,
    )


BACKENDS = (
    described("onnxruntime", "ONNX Runtime Web, in a browser", 160),
    described(f"onnxruntime{WEBGPU}", "ONNX Runtime Web on the browser's GPU, by WebGPU", 161, ("fp32",)),
    described(
        f"onnxruntime{CANVAS}", "ONNX Runtime Web after the browser's own decoding and resizing, to compare", 162
    ),
)
