"""OpenVINO IR in int8: by NNCF from the float IR, or from a QDQ graph; and IR with its weights halved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .recipes import Int8Recipe, Layer, kept_layers

HEAVY = ("Convolution", "GroupConvolution", "MatMul")


def quantize_openvino(source: Path, tensors: NDArray[np.float32], recipe: Int8Recipe, target: Path) -> list[str]:
    """Writes the quantised IR, `.xml` and `.bin`; what was left in float. source: the float IR for scheme `nncf`, the
    float ONNX model for `qdq`. tensors: float32 `(n, 3, H, W)`. InputError where the recipe does not fit.
    """
    import openvino

    if recipe.scheme == "qdq":
        from .onnx_int8 import quantize_onnx

        graph = target.with_suffix(".qdq.onnx")
        kept = quantize_onnx(source, tensors, recipe, graph)
        openvino.save_model(openvino.convert_model(graph), target, compress_to_fp16=False)
        graph.unlink()
        return kept
    import nncf

    model = openvino.Core().read_model(source)
    kept = kept_layers(layers(model), recipe.keep)
    done = nncf.quantize(
        model,
        nncf.Dataset([tensor[None] for tensor in tensors]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(tensors),
        ignored_scope=nncf.IgnoredScope(names=kept),
    )
    openvino.save_model(done, target, compress_to_fp16=False)
    return kept


def layers(model: Any) -> list[Layer]:
    """The operators of an OpenVINO model."""
    found = []
    for one in model.get_ordered_ops():
        kind = one.get_type_name()
        found.append(Layer(one.get_friendly_name(), kind, kind in HEAVY, kind == "GroupConvolution"))
    return found


def halve_openvino(source: Path, target: Path) -> None:
    """The IR with its weights as float16, which are widened when it is loaded."""
    import openvino

    openvino.save_model(openvino.Core().read_model(source), target, compress_to_fp16=True)
