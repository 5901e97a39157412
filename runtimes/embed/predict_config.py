"""`inference_rec.yaml`: the reference's keys for recognition inference, as a typed model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ..backends.paddle_model import check_input_shape
from ..bundle.bundle import Bundle
from ..bundle.manifest import MANIFEST
from ..bundle.spec import Spec
from ..core.config import Frozen
from ..core.cpus import usable_cpus
from ..core.errors import InputError, RuntimeUnavailable
from ..predictor.interface import MOST_BATCH, MOST_THREADS, ModelIO, Predictor, RunOptions, predictor_class
from ..predictor.registry import all_names, backend, open_files
from ..preprocess.transform_ops import parse_transform_ops
from ..worker.client import WorkerPredictor
from .model import EmbeddingModel
from .replicas import open_replicas, replicate_all


class RecGlobal(Frozen):
    """`Global`: the reference's keys, and `runtime`, `precision` (how it computes) and `quantisation` (of the bundle's
    artifact), which are ours.

    enable_mkldnn is for runtime paddle, ir_optim for paddle and onnxruntime: the others have no such switch. Lite runs
    one thread on x86, whatever cpu_num_threads says.
    """

    infer_imgs: Path
    rec_inference_model_dir: Path
    runtime: str = "paddle"
    precision: str = "fp32"
    quantisation: str | None = None
    batch_size: Annotated[int, Field(ge=1, le=MOST_BATCH)] = 1
    cpu_num_threads: Annotated[int, Field(ge=1, le=MOST_THREADS)] = 1
    use_gpu: bool = False
    use_fp16: bool = False
    use_tensorrt: bool = False
    enable_mkldnn: bool = True
    ir_optim: bool = True
    gpu_mem: Annotated[int, Field(ge=1, le=1_000_000)] = 8000
    # Accepted and without effect here, as in the reference unless its own benchmark package is installed.
    enable_benchmark: bool = False
    benchmark: bool = False
    enable_profile: bool = False


class RecPreProcessSection(Frozen):
    """`RecPreProcess`: used for a plain model folder; a bundle brings its own."""

    transform_ops: list[Any]


class BinarizeOptions(Frozen):
    """Signs of the embedding packed into bytes, most significant bit first, as the reference's `Binarize`."""

    method: Literal["round", "sign"] = "round"


class RecPostProcessSection(Frozen):
    """`RecPostProcess`: null or `Binarize`."""

    Binarize: BinarizeOptions


class RecConfig(Frozen):
    """The whole file."""

    Global: RecGlobal
    RecPreProcess: RecPreProcessSection | None = None
    RecPostProcess: RecPostProcessSection | None = None


# Fewer are embedded before another process has loaded the model.
IMAGES_A_PROCESS = 100


def run_options(settings: RecGlobal, images: int = 1) -> RunOptions:
    """The reference's switches as options; RuntimeUnavailable for what this tool does not drive.

    With several batches to embed, the threads work on as many of them at a time, which uses the cores better than all
    on one. More threads than CPUs that this process may use are not started.
    """
    if settings.use_tensorrt:
        raise RuntimeUnavailable("use_tensorrt: EdgeRecall does not drive TensorRT; set it to False")
    if settings.use_gpu and settings.runtime != "paddle":
        raise RuntimeUnavailable(f"use_gpu: runtime '{settings.runtime}' runs on CPU; set it to False")
    threads = usable_threads(settings)
    replicas = min(threads, -(-images // settings.batch_size))
    if not predictor_class(backend(settings.runtime)).concurrent:  # each replica is a process that loads the model
        replicas = min(replicas, max(images // IMAGES_A_PROCESS, 1))
    replicas = 1 if settings.use_gpu else replicas
    return RunOptions(
        threads=max(threads // replicas, 1),
        replicas=replicas,
        batch=settings.batch_size,
        precision="fp16" if settings.use_fp16 else settings.precision,
        onednn=settings.enable_mkldnn,
        graph_optimization=settings.ir_optim,
        device="gpu" if settings.use_gpu else "cpu",
        gpu_memory_mb=settings.gpu_mem,
    )


def usable_threads(settings: RecGlobal) -> int:
    """Those asked for, but no more than there are CPUs for."""
    return min(settings.cpu_num_threads, len(usable_cpus()))


def plain_model_files(folder: Path) -> dict[str, str]:
    """`model` and `params` of a Paddle inference model folder (`inference.json` or `inference.pdmodel`)."""
    params = folder / "inference.pdiparams"
    for model in (folder / "inference.json", folder / "inference.pdmodel"):
        if model.is_file() and params.is_file():
            return {"model": str(model), "params": str(params)}
    raise InputError(
        f"{folder}: expected a bundle ({MANIFEST}) or a Paddle inference model"
        " (inference.json or inference.pdmodel, with inference.pdiparams)"
    )


def open_rec_model(config: RecConfig, images: int = 1) -> EmbeddingModel:
    """The model that the config names: a bundle in any runtime, or a plain Paddle model in Paddle Inference.

    images: how many it is for.
    """
    settings = config.Global
    options = run_options(settings, images)
    folder = settings.rec_inference_model_dir
    if (folder / MANIFEST).is_file():
        bundle = Bundle.open(folder)
        bundle.golden()  # what no trained network gives is not served
        artifact = bundle.artifact(settings.runtime, quantisation=settings.quantisation).name
        predictors = open_replicas(bundle, settings.runtime, options, artifact=artifact)
        return EmbeddingModel(bundle.spec, predictors, settings.batch_size, usable_threads(settings))
    files = plain_model_files(folder)
    if settings.runtime != "paddle":
        known = ", ".join(name for name in all_names() if name != "paddle")
        raise InputError(
            f"runtime '{settings.runtime}' needs a bundle, {folder} is a plain Paddle model:"
            f" run 'edgerecall export --model {folder}' first ({known} are then possible)"
        )
    if config.RecPreProcess is None:
        raise InputError("a plain Paddle model needs RecPreProcess.transform_ops in the config")
    # The reference's script reads with OpenCV, which applies the EXIF orientation.
    preprocess = parse_transform_ops(
        config.RecPreProcess.transform_ops, "RecPreProcess.transform_ops", backend="cv2", exif="apply"
    )
    check_input_shape(Path(files["model"]), preprocess.output_shape)
    io = ModelIO("x", preprocess.output_shape, 0)

    def load() -> Predictor:
        if options.replicas > 1:
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
    return EmbeddingModel(spec, predictors, settings.batch_size, usable_threads(settings))


def binarize(embeddings: NDArray[np.float32], method: str) -> NDArray[np.uint8]:
    """float32 `(n, D)` -> uint8 `(n, D / 8)`: `round` sets bits from 0.5 up, `sign` above 0."""
    if embeddings.shape[1] % 8:
        raise InputError(f"Binarize: expected an embedding size that 8 divides, got {embeddings.shape[1]}")
    return np.packbits(embeddings >= 0.5 if method == "round" else embeddings > 0, axis=1)
