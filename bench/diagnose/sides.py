"""The two sides of a question: what each is asked for, and what is known of it once it is opened."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtimes.bundle.bundle import Bundle
from ...runtimes.bundle.manifest import Artifact
from ...runtimes.core.errors import InputError, RuntimeFailed
from ...runtimes.core.files import sha256
from ...runtimes.embed.replicas import open_predictor
from ...runtimes.predictor.interface import NOT_FINITE, Predictor, RunOptions
from ...runtimes.predictor.precision import EXECUTIONS, QUANTISATIONS, TOLERANCE
from ...runtimes.preprocess.images import read_bytes
from ...runtimes.preprocess.ops import Preprocess
from .pixel_trace import Step, trace

Tensor = NDArray[np.float32]
SEALED, TENSOR_FILE, EMBEDDING_FILE = "sealed", "tensor=", "embedding="
ALLOWED = TOLERANCE["fp32"]  # of embeddings, relative to the largest value


@dataclass(frozen=True)
class SideRequest:
    """One side of the question.

    what: a runtime, `runtime:precision`, `runtime:int8`, `runtime:artifact`, `sealed` (the golden image's own tensor
    and embedding, from the training framework), `tensor=FILE.npy` (what an application fed its model) or
    `embedding=FILE.npy` (what it got).
    preprocess, bundle, image: instead of the bundle's own, of the bundle, of the image asked about.
    """

    what: str
    preprocess: Preprocess | None = None
    bundle: Bundle | None = None
    image: Path | None = None

    @property
    def runs(self) -> bool:
        """Whether it is a runtime."""
        return self.what != SEALED and not self.what.startswith((TENSOR_FILE, EMBEDDING_FILE))

    def open(self, bundle: Bundle, stack: ExitStack) -> Predictor | None:
        """The runtime in a worker of its own; None when it is none. InputError when the bundles cannot be compared."""
        own = self.bundle or bundle
        spec = own.spec
        if (spec.input_shape, spec.embedding_dim) != (bundle.spec.input_shape, bundle.spec.embedding_dim):
            raise InputError(
                f"{own.root}: takes {spec.input_shape} and gives {spec.embedding_dim} numbers, {bundle.root} takes"
                f" {bundle.spec.input_shape} and gives {bundle.spec.embedding_dim}: these cannot be compared"
            )
        if not self.runs:
            return None
        runtime, _, _ = self.what.partition(":")
        artifact, precision = self.model(own)
        options = RunOptions(precision=precision)
        return stack.enter_context(open_predictor(own, runtime, options, worker=True, artifact=artifact.name))

    def model(self, own: Bundle) -> tuple[Artifact, str]:
        """The artifact that a runtime opens, and the execution precision asked of it."""
        runtime, *words = self.what.split(":")
        artifact, precision = own.artifact(runtime), "fp32"
        named = {one.name: one for one in own.artifacts_for(runtime)}
        for word in words:
            if word in EXECUTIONS:
                precision = word
            elif word in named:
                artifact = named[word]
            elif word in QUANTISATIONS:
                artifact = own.artifact(runtime, quantisation=word)
            else:
                known = ", ".join(dict.fromkeys((*EXECUTIONS, *QUANTISATIONS, *named)))
                raise InputError(f"{self.what}: expected after the runtime one of {known}, got '{word}'")
        return artifact, precision


@dataclass
class Side:
    """A side with what is known of it. steps: None where it came as a tensor or an embedding only."""

    name: str
    bundle: Bundle
    data: bytes
    image: Path
    preprocess: Preprocess
    steps: list[Step] | None
    tensor: Tensor | None
    embedding: Tensor | None
    predictor: Predictor | None
    precision: str | None = None
    artifact: Artifact | None = None

    @property
    def is_int8(self) -> bool:
        """Whether it runs an int8 artifact."""
        return self.artifact is not None and self.artifact.quantisation == "int8"

    @property
    def is_file(self) -> bool:
        """Whether an application gave its embedding, L2-normalised or not."""
        return self.name.startswith(EMBEDDING_FILE)

    def known_tensor(self) -> Tensor:
        """The side's tensor; InputError when it has none."""
        if self.tensor is None:
            raise InputError(f"{self.name}: has no tensor: compare an embedding with a runtime")
        return self.tensor


def read_npy(path: Path, sizes: tuple[int, ...]) -> Tensor:
    """A float array of this many values from a `.npy` file, float32 in that shape. InputError."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: expected a .npy file: {error}") from error
    fits = isinstance(found, np.ndarray) and found.dtype.kind == "f"
    if not fits or tuple(s for s in found.shape if s != 1) != tuple(s for s in sizes if s != 1):
        got = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else "several arrays"
        raise InputError(f"{path}: expected floats of shape {sizes}, got {got}")
    if not np.isfinite(found).all():
        raise InputError(f"{path}: holds NaN or infinity")
    return np.ascontiguousarray(found.reshape(sizes), dtype=np.float32)


def golden_index(bundle: Bundle, image: Path) -> int | None:
    """Which golden image has these bytes."""
    digest = sha256(image)
    hashes = {file.path: file.sha256 for file in bundle.manifest.golden}
    return next((i for i, name in enumerate(bundle.manifest.golden_images) if hashes[name] == digest), None)


def load_side(request: SideRequest, bundle: Bundle, image: Path, predictor: Predictor | None) -> Side:
    """What a side has and gives for an image."""
    own, path = request.bundle or bundle, request.image or image
    spec = own.spec
    preprocess = request.preprocess or spec.preprocess
    side = Side(request.what, own, read_bytes(path), path, preprocess, None, None, None, predictor)
    if request.what.startswith(TENSOR_FILE):
        side.tensor = read_npy(Path(request.what[len(TENSOR_FILE) :]), spec.input_shape)
    elif request.what.startswith(EMBEDDING_FILE):
        side.embedding = read_npy(Path(request.what[len(EMBEDDING_FILE) :]), (1, spec.embedding_dim))
    elif predictor is None:
        index = golden_index(own, path)
        if index is None:
            raise InputError(f"sealed: {path} is not one of the bundle's golden images, whose outputs are sealed in it")
        _, tensors, embeddings = own.golden()
        side.tensor, side.embedding = tensors[index], embeddings[index : index + 1]
        side.precision = "fp32"
    else:
        side.steps = trace(side.data, preprocess, str(path))
        side.tensor = np.asarray(side.steps[-1].values, dtype=np.float32)
        side.embedding = embed(predictor, side.tensor)
        side.precision = predictor.executed_info(side.tensor[None]).precision
        side.artifact, _ = request.model(own)
    return side


def embed(predictor: Predictor, *tensors: Tensor) -> Tensor:
    """The tensors' embeddings one by one, `(n, D)`; a row of NaN where the runtime's holds NaN or infinity."""
    found = []
    for tensor in tensors:
        try:
            found.append(predictor.embed(tensor[None]))
        except RuntimeFailed as error:
            if not str(error).endswith(NOT_FINITE):
                raise
            found.append(np.full((1, predictor.io.embedding_dim), np.nan, dtype=np.float32))
    return np.concatenate(found)


def max_error(a: Tensor, b: Tensor, normalised: bool = False) -> float:
    """Largest difference of two arrays of embeddings over the largest |value| of b.

    normalised: each embedding divided by its length before.
    """
    if normalised:
        a, b = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12) for v in (a, b))
    return float(np.abs(a - b).max() / max(float(np.abs(b).max()), 1e-12))
