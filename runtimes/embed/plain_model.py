"""A Paddle inference model that is no bundle, with the preprocessing that a YAML gives it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..backends.paddle_model import check_input_shape, model_files
from ..bundle.manifest import MANIFEST
from ..bundle.spec import Spec
from ..core.errors import InputError
from ..predictor.interface import ModelIO, Predictor, RunOptions
from ..predictor.registry import all_names, open_files
from ..preprocess.ops import Preprocess
from ..worker.client import WorkerPredictor
from .replicas import replicate_all


def plain_model_files(folder: Path) -> dict[str, str]:
    """`model` and `params` of a Paddle inference model folder (`inference.json` or `inference.pdmodel`)."""
    if (found := model_files(folder)) is not None:
        return {"model": str(found[0]), "params": str(found[1])}
    raise InputError(
        f"{folder}: expected a bundle ({MANIFEST}) or a Paddle inference model"
        " (inference.json or inference.pdmodel, with inference.pdiparams)"
    )


def open_plain_model(
    folder: Path, runtime: str, preprocess: Preprocess | None, options: RunOptions, worker: bool = False
) -> tuple[Spec, list[Predictor]]:
    """Its spec, and replicas in Paddle Inference. InputError for another runtime, or without preprocessing."""
    files = plain_model_files(folder)
    if runtime != "paddle":
        known = ", ".join(name for name in all_names() if name != "paddle")
        raise InputError(
            f"runtime '{runtime}' needs a bundle, {folder} is a plain Paddle model:"
            f" run 'edgerecall export --model {folder}' first ({known} are then possible)"
        )
    if preprocess is None:
        raise InputError("a plain Paddle model needs a YAML with RecPreProcess.transform_ops")
    check_input_shape(Path(files["model"]), preprocess.output_shape)
    io = ModelIO("x", preprocess.output_shape, 0)

    def load() -> Predictor:
        if worker or options.replicas > 1:
            return WorkerPredictor("paddle", files, io, options)
        return open_files("paddle", files, io, options)

    predictors = replicate_all(load, options.replicas)
    probe = predictors[0].embed(np.zeros((1, *preprocess.output_shape), dtype=np.float32))
    spec = Spec(
        input_name="x",
        input_shape=preprocess.output_shape,
        embedding_dim=probe.shape[1],
        normalize_embedding=True,
        preprocess=preprocess,
    )
    return spec, predictors
