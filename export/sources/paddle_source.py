"""A model that comes from Paddle: a training checkpoint, or an inference model the user has."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtimes.backends.paddle_model import check_input_shape
from ...runtimes.core.errors import InputError, RuntimeFailed
from ...runtimes.core.files import sha256
from ...runtimes.core.soundness import require_finite
from ...runtimes.predictor.interface import ModelIO, RunOptions
from ...runtimes.preprocess.ops import Preprocess
from ...runtimes.worker.client import WorkerPredictor
from ..context import FormatFailed, own_step, run_step
from ..exporter import Source

FORMS = {"pir": ("inference.json", {}), "pdmodel": ("inference.pdmodel", {"FLAGS_enable_pir_api": "0"})}
PARAMS = "inference.pdiparams"


def from_checkpoint(config: Any, checkpoint: Path, scratch: Path, report: Callable[[str], None]) -> Source:
    """Rebuilds the network, loads the checkpoint, and traces both Paddle forms into `scratch`.

    config: a TrainConfig. The reference is the dygraph network's own output.
    """
    import paddle

    from ...train.evaluate import eval_preprocess
    from ...train.network import EmbeddingNetwork
    from ...train.state.checkpoint import load_network, params_path

    preprocess = eval_preprocess(config)
    network = EmbeddingNetwork(config.Arch)
    load_network(network, checkpoint)
    network.eval()

    def reference(tensors: NDArray[np.float32]) -> NDArray[np.float32]:
        with paddle.no_grad():
            return np.asarray(network(paddle.to_tensor(tensors)).numpy(), dtype=np.float32)

    config_file = scratch / "config.json"
    config_file.write_text(config.model_dump_json(exclude_unset=True), encoding="utf-8")
    models: dict[str, tuple[Path, ...]] = {}
    reasons: dict[str, str] = {}
    for form, (name, flags) in FORMS.items():
        report(f"tracing {form}")
        place = scratch / form
        place.mkdir()
        try:
            run_step(
                own_step("trace", config_file, checkpoint, place / "inference"),
                {**os.environ, **flags},
                label=f"tracing the {form} form",
            )
            models[form] = (place / name, place / PARAMS)
        except FormatFailed as error:
            reasons[form] = str(error)
    about = {
        "kind": "checkpoint",
        "form": "paddle",
        "file": params_path(checkpoint).name,
        "sha256": sha256(params_path(checkpoint)),
        "config": config.model_dump(mode="json", exclude_unset=True),
    }
    return Source(preprocess, True, models, reasons, reference, about, "x")


def from_model(folder: Path, preprocess: Preprocess, prefix: str | None = None) -> Source:
    """A folder with `inference.json` and/or `inference.pdmodel` (or `prefix.*`) and its `.pdiparams`.

    The reference is Paddle Inference on the model as it is.
    """
    stem = prefix or "inference"
    params = folder / f"{stem}.pdiparams"
    models: dict[str, tuple[Path, ...]] = {
        form: (folder / name.replace("inference", stem), params)
        for form, (name, _) in FORMS.items()
        if (folder / name.replace("inference", stem)).is_file()
    }
    if not models or not params.is_file():
        raise InputError(f"{folder}: expected {stem}.json or {stem}.pdmodel, with {stem}.pdiparams")
    input_names = [check_input_shape(files[0], preprocess.output_shape) for files in models.values()]
    form = "pir" if "pir" in models else "pdmodel"
    model = models[form][0]
    files = {"model": str(model), "params": str(params)}

    def reference(tensors: NDArray[np.float32]) -> NDArray[np.float32]:
        # oneDNN off: the plainest arithmetic that Paddle Inference has. In a worker: a broken model may crash it.
        options = RunOptions(onednn=False, graph_optimization=False)
        try:
            with WorkerPredictor("paddle", files, ModelIO("x", preprocess.output_shape, 0), options) as predictor:
                require_finite(predictor.parameters() or {}, str(params))
                return np.concatenate([predictor.embed(tensor[None]) for tensor in tensors])
        except RuntimeFailed as error:
            raise InputError(f"{model}: Paddle Inference cannot run it: {error}") from error

    missing = {
        "pir": "the model comes as .pdmodel only; Paddle Inference runs it as it is",
        "pdmodel": "the model comes as PIR only, and Paddle Lite reads .pdmodel only: export it again from its"
        " training code with FLAGS_enable_pir_api=0",
    }
    about = {
        "kind": "paddle model",
        "form": "paddle",
        "file": model.name,
        "sha256": sha256(model),
        "params_sha256": sha256(params),
    }
    reasons = {form: missing[form] for form in FORMS if form not in models}
    return Source(preprocess, True, models, reasons, reference, about, input_names[0])
