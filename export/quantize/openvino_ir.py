"""OpenVINO IR in int8 by NNCF, and with its weights halved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .recipes import Layer, kept_layers

HEAVY = ("Convolution", "GroupConvolution", "MatMul")


def quantize_ir(source: Path, tensors: NDArray[np.float32], keep: tuple[str, ...], target: Path) -> list[str]:
    """Writes the quantised IR, `.xml` and `.bin`; what was left in float, which `keep` names. source: the float IR.
    tensors: float32 `(n, 3, H, W)`. InputError where `keep` does not fit.
    """
    import nncf
    import openvino

    model = openvino.Core().read_model(source)
    kept = kept_layers(layers(model), keep)
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


def halve_ir(source: Path, target: Path) -> None:
    """The IR with its weights as float16, which are widened when it is loaded."""
    import openvino

    openvino.save_model(openvino.Core().read_model(source), target, compress_to_fp16=True)
