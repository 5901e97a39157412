"""`inference_rec.yaml`: the reference's keys for recognition inference, as a typed model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ..bundle.bundle import Bundle
from ..bundle.manifest import MANIFEST
from ..core.config import Frozen
from ..core.cpus import usable_cpus
from ..core.errors import InputError, RuntimeUnavailable
from ..predictor.backend import Backend
from ..predictor.interface import MOST_BATCH, MOST_THREADS, RunOptions, predictor_class
from ..predictor.registry import backend, found
from ..preprocess.comparison import preprocess_difference
from ..preprocess.ops import Preprocess
from ..preprocess.transform_ops import parse_transform_ops
from .model import EmbeddingModel
from .plain_model import open_plain_model
from .replicas import open_replicas

# The reference's, of its detector and its gallery, by which its configs of whole systems have more than recognition's.
OF_SEARCH = ("rec_nms_thresold", "image_shape", "threshold", "max_det_results", "label_list", "labe_list")
SECTIONS_OF_SEARCH = ("DetPreProcess", "DetPostProcess", "IndexProcess")
NO_SEARCH = (
    "of the reference's detection and gallery search, which a config without IndexProcess has not: leave them out"
)


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

    @model_validator(mode="before")
    @classmethod
    def said_otherwise_here(cls, data: Any) -> Any:
        """Keys of the reference that have another name here."""
        if not isinstance(data, dict):
            return data
        if data.get("use_onnx"):
            raise ValueError("use_onnx: use 'runtime: onnxruntime', and a bundle made by 'edgerecall export'")
        return {key: value for key, value in data.items() if key != "use_onnx"}

    @model_validator(mode="before")
    @classmethod
    def without_search(cls, data: Any) -> Any:
        """Keys of the reference's systems, which have no place in recognition alone."""
        if not isinstance(data, dict):
            return data
        if others := [key for key in data if key in OF_SEARCH or key.startswith("det_")]:
            raise ValueError(f"{', '.join(others)}: {NO_SEARCH}")
        return data


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

    @model_validator(mode="before")
    @classmethod
    def recognition_alone(cls, data: Any) -> Any:
        """The reference's sections of other steps."""
        if isinstance(data, dict) and (others := [key for key in data if key in SECTIONS_OF_SEARCH]):
            raise ValueError(f"{', '.join(others)}: {NO_SEARCH}")
        return data


# Fewer are embedded before another process has loaded the model.
IMAGES_A_PROCESS = 100


def run_options(settings: RecGlobal, images: int = 1) -> RunOptions:
    """The reference's switches as options; RuntimeUnavailable for what this tool does not drive.

    With several batches to embed, the threads work on as many of them at a time, which uses the cores better than all
    on one. More threads than CPUs that this process may use are not started.
    """
    if settings.use_tensorrt:
        raise RuntimeUnavailable(
            "use_tensorrt: not by Paddle here: use 'runtime: tensorrt', and a bundle made by 'edgerecall export'"
        )
    described = chosen_backend(settings)
    threads = usable_threads(settings)
    replicas = min(threads, -(-images // settings.batch_size))
    if not predictor_class(described).concurrent:  # each replica is a process that loads the model
        replicas = min(replicas, max(images // IMAGES_A_PROCESS, 1))
    replicas = 1 if settings.use_gpu or described.devices == ("gpu",) else replicas
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


def chosen_backend(settings: RecGlobal) -> Backend:
    """The runtime that the config names; with `use_gpu` the one that computes on a GPU from the same artifacts.

    RuntimeUnavailable where there is none.
    """
    described = backend(settings.runtime)
    if not settings.use_gpu or "gpu" in described.devices:
        return described
    there = [one for one in found().backends.values() if one.artifacts == described.artifacts and "gpu" in one.devices]
    if not there or described.in_core:
        raise RuntimeUnavailable(f"use_gpu: runtime '{settings.runtime}' runs on CPU; set it to False")
    return there[0]


def usable_threads(settings: RecGlobal) -> int:
    """Those asked for, but no more than there are CPUs for."""
    return min(settings.cpu_num_threads, len(usable_cpus()))


def open_rec_model(config: RecConfig, images: int = 1) -> EmbeddingModel:
    """The model that the config names: a bundle in any runtime, or a plain Paddle model in Paddle Inference.

    images: how many it is for.
    """
    settings = config.Global
    options, runtime = run_options(settings, images), chosen_backend(settings).name
    folder = settings.rec_inference_model_dir
    if (folder / MANIFEST).is_file():
        bundle = Bundle.open(folder)
        bundle.golden()  # what no trained network gives is not served
        artifact = bundle.artifact(runtime, quantisation=settings.quantisation).name
        predictors = open_replicas(bundle, runtime, options, artifact=artifact)
        return EmbeddingModel(bundle.spec, predictors, settings.batch_size, usable_threads(settings))
    spec, predictors = open_plain_model(folder, runtime, given_preprocess(config), options)
    return EmbeddingModel(spec, predictors, settings.batch_size, usable_threads(settings))


def given_preprocess(config: RecConfig) -> Preprocess | None:
    """What the config's RecPreProcess says; the reference's script reads with OpenCV, which applies the orientation."""
    if config.RecPreProcess is None:
        return None
    where = "RecPreProcess.transform_ops"
    return parse_transform_ops(config.RecPreProcess.transform_ops, where, backend="cv2", exif="apply")


def ignored_preprocess(config: RecConfig) -> str | None:
    """A line where the config's RecPreProcess is not what the bundle has sealed, which is what is used."""
    folder = config.Global.rec_inference_model_dir
    if config.RecPreProcess is None or not (folder / MANIFEST).is_file():
        return None
    try:
        given = given_preprocess(config)
    except InputError as error:
        return f"{error}; not used: the bundle brings its own preprocessing"
    found = None if given is None else preprocess_difference(given, Bundle.open(folder).spec.preprocess)
    if found is None:
        return None
    return (
        f"RecPreProcess of the config is not used: it is not what the bundle has sealed ({found}); leave the section"
        " out, or export again with --preprocess"
    )


def binarize(embeddings: NDArray[np.float32], method: str) -> NDArray[np.uint8]:
    """float32 `(n, D)` -> uint8 `(n, D / 8)`: `round` sets bits from 0.5 up, `sign` above 0."""
    if embeddings.shape[1] % 8:
        raise InputError(f"Binarize: expected an embedding size that 8 divides, got {embeddings.shape[1]}")
    return np.packbits(embeddings >= 0.5 if method == "round" else embeddings > 0, axis=1)
