"""A model that comes in a runtime's own format, TFLite or ncnn: it is sealed as it is, for that runtime alone.

There is nothing to convert, so that its reference is the same runtime at its plainest: LiteRT's reference kernels, ncnn
without its faster ways to convolve. What the artifact is held to is that the runtime's fast kernels give the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtimes.bundle.manifest import Quantisation
from ...runtimes.core.errors import InputError, RuntimeFailed, RuntimeUnavailable
from ...runtimes.core.files import sha256
from ...runtimes.graphs.ncnn_model import NcnnModel
from ...runtimes.predictor.interface import ModelIO, RunOptions
from ...runtimes.preprocess.ops import Preprocess
from ...runtimes.worker.client import WorkerPredictor
from ..exporter import Source
from . import FORMS

WHY_NOT = "the model comes in {}'s own format, and this format is made from another"


def from_own(model: Path, preprocess: Preprocess) -> Source:
    """The model, opened once in a process of its own. InputError when it cannot be taken."""
    form = FORMS[model.suffix.lower()]
    files = own_files(model, form)
    roles = dict(zip(("model", "weights"), map(str, files), strict=False))
    io = ModelIO("", preprocess.output_shape, 0)

    def plainest() -> WorkerPredictor:
        return WorkerPredictor(form, roles, io, RunOptions(graph_optimization=False))

    def reference(tensors: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            with plainest() as predictor:
                return np.concatenate([predictor.embed(tensor[None]) for tensor in tensors])
        except RuntimeFailed as error:
            raise InputError(f"{model}: {error}") from error

    try:
        with plainest() as predictor:
            detail = predictor.info.detail
    except (RuntimeFailed, RuntimeUnavailable) as error:
        raise InputError(f"{model}: {error}") from error
    weights = detail["weights"] if form == "litert" else of_ncnn(model)
    hashes = {name: sha256(file) for name, file in zip(("sha256", "weights_sha256"), files, strict=False)}
    return Source(
        preprocess=preprocess,
        normalize_embedding=True,
        models={form: files},
        reasons=dict.fromkeys(("pir", "pdmodel", "onnx"), WHY_NOT.format(form)),
        reference=reference,
        about={"kind": f"{form} model", "form": form, "file": model.name, **hashes},
        input_name=detail["input_name"],
        quantisation=weights,
    )


def own_files(model: Path, form: str) -> tuple[Path, ...]:
    """The model's files. InputError where one is missing."""
    files = (model,) if form != "ncnn" else (model, model.with_suffix(".bin"))
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: no such file" if file == model else f"{model}: expected {file.name} beside it")
    return files


def of_ncnn(model: Path) -> Quantisation:
    """What the weights of an ncnn model are: "int8" or "fp16" where any is, else "fp32"."""
    found = NcnnModel.read(model)
    kinds = {str(weights.values.dtype) for layer in found.weights for weights in layer}
    return "int8" if "int8" in kinds else "fp16" if "float16" in kinds else "fp32"
