"""From a bundle to embeddings: `load(bundle).embed_images(paths)`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .bundle import Artifact, Bundle
from .errors import ImageError, InputError
from .predictor import RUNTIMES, Predictor, RunOptions, open_files, predictor_class
from .preprocess import preprocess_batch, preprocess_file
from .sidecar import find_python
from .spec import Preprocess, Spec
from .worker import WorkerPredictor

BadImage = Callable[[Path, ImageError], None]


def l2_normalize(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows to unit length, in float32; a zero row stays zero."""
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(embeddings / np.maximum(norms, np.float32(1e-12)), dtype=np.float32)


def open_predictor(
    bundle: Bundle,
    runtime: str,
    options: RunOptions | None = None,
    worker: bool = False,
    artifact: str | None = None,
    timeout_s: float = 300.0,
    cpus: Sequence[int] = (),
) -> Predictor:
    """A bundle's model in a runtime, in this process, or in a worker process when asked or when it must be.

    timeout_s, cpus: of a worker (see `WorkerPredictor`).

    Raises RuntimeUnavailable with the remedy, RuntimeFailed, or BundleError.
    """
    predictor_class(runtime)
    options = options or RunOptions()
    chosen: Artifact = bundle.artifact(runtime, artifact)
    files, io = bundle.files(chosen), bundle.spec.io
    python = other_interpreter(runtime)
    if worker or python is not None:
        return WorkerPredictor(runtime, files, io, options, python, timeout_s, cpus)
    return open_files(runtime, files, io, options)


def other_interpreter(runtime: str) -> str | None:
    """The sidecar's interpreter for a runtime that this one cannot load; None to use this one."""
    python = find_python() if runtime == "lite" else None
    return None if python == sys.executable else python


class EmbeddingModel:
    """A predictor with its preprocessing and normalisation. Use as a context manager, or close()."""

    def __init__(self, spec: Spec, predictor: Predictor, batch_size: int = 8, threads: int = 1) -> None:
        if batch_size < 1:
            raise InputError(f"batch size: expected 1 or more, got {batch_size}")
        self.spec = spec
        self.predictor = predictor
        self.batch_size = batch_size
        self._threads = threads
        self._closed = False

    def embed_tensors(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Float32 `(N, 3, H, W)` -> float32 `(N, D)`, L2-normalised when the spec says so."""
        self._check_open()
        raw = self.predictor.embed(np.ascontiguousarray(batch, dtype=np.float32))
        return l2_normalize(raw) if self.spec.normalize_embedding else raw

    def stream(
        self, paths: Sequence[Path], on_bad: BadImage | None = None
    ) -> Iterator[tuple[list[Path], NDArray[np.float32]]]:
        """Batches of `(paths, float32 (n, D))`; a bad image goes to `on_bad` and is left out, or is raised."""
        self._check_open()
        for good, tensors in stream_tensors(paths, self.spec.preprocess, self.batch_size, self._threads, on_bad):
            yield [paths[index] for index in good], self.embed_tensors(tensors)

    def embed_images(
        self, paths: Sequence[str | Path] | str | Path, on_bad: BadImage | None = None
    ) -> NDArray[np.float32]:
        """Images to embeddings float32 `(n, D)`, in order.

        Without `on_bad` the first bad image raises ImageError; with it, bad ones are left out.
        """
        files = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
        parts = [embeddings for _, embeddings in self.stream(files, on_bad)]
        return np.concatenate(parts) if parts else np.empty((0, self.spec.embedding_dim), dtype=np.float32)

    def _check_open(self) -> None:
        if self._closed:
            raise InputError("the model is closed: use it inside its 'with' block, or load it again")

    def close(self) -> None:
        """Frees the runtime; calls after it raise InputError."""
        if self._closed:
            return
        self._closed = True
        self.predictor.close()

    def __enter__(self) -> EmbeddingModel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def stream_tensors(
    paths: Sequence[Path], preprocess: Preprocess, batch_size: int, threads: int, on_bad: BadImage | None
) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
    """Preprocessed batches: indices into `paths`, and float32 `(n, 3, H, W)`.

    The next batch is made, on `threads` threads of the core, while one is used.
    """

    def make(start: int) -> tuple[range, NDArray[np.float32], list[ImageError | None]]:
        indices = range(start, min(start + batch_size, len(paths)))
        tensors = np.empty((len(indices), *preprocess.output_shape), dtype=np.float32)
        return indices, tensors, preprocess_batch([paths[i] for i in indices], preprocess, tensors, threads)

    if not paths:
        return
    with ThreadPoolExecutor(1, thread_name_prefix="edgerecall-preprocess") as ahead:
        pending = ahead.submit(make, 0)
        for start in range(0, len(paths), batch_size):
            indices, tensors, errors = pending.result()
            if start + batch_size < len(paths):
                pending = ahead.submit(make, start + batch_size)
            good: list[int] = []
            for index, error in zip(indices, errors, strict=True):
                if error is None:
                    good.append(index)
                elif on_bad is None:
                    raise error
                else:
                    on_bad(paths[index], error)
            if good:
                yield good, tensors if len(good) == len(indices) else tensors[[i - start for i in good]]


def load(
    bundle: str | Path,
    runtime: str = "onnxruntime",
    threads: int = 1,
    precision: str = "fp32",
    worker: bool = False,
    batch_size: int = 8,
) -> EmbeddingModel:
    """Opens a bundle for inference.

    runtime: one of paddle, onnxruntime, openvino, lite. worker: run it in its own process.
    Raises BundleError, RuntimeUnavailable (with the remedy) or InputError.
    """
    opened = Bundle.open(bundle)
    predictor = open_predictor(opened, runtime, RunOptions(threads=threads, precision=precision), worker)
    return EmbeddingModel(opened.spec, predictor, batch_size, threads)


def available_in(bundle: Bundle) -> list[str]:
    """The runtimes that a bundle has artifacts for, in the table's order."""
    there = {artifact.runtime for artifact in bundle.manifest.artifacts}
    return [name for name in (*RUNTIMES, "fake") if name in there]


def golden_tensors(bundle: Bundle) -> NDArray[np.float32]:
    """The golden images through this machine's preprocessing, float32 `(n, 3, H, W)`."""
    paths, _, _ = bundle.golden()
    return np.stack([preprocess_file(path, bundle.spec.preprocess) for path in paths])
