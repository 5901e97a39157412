"""From a bundle to embeddings: `load(bundle).embed_images(paths)`."""

from __future__ import annotations

import itertools
import queue
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .bundle import Artifact, Bundle
from .errors import ImageError, InputError
from .predictor import PREDICTORS, Predictor, RunOptions, open_files, predictor_class
from .preprocess import preprocess_batch, preprocess_file
from .sidecar import LITE
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
    python = LITE.find_python() if runtime == "lite" else None
    return None if python == sys.executable else python


def open_lanes(
    bundle: Bundle, runtime: str, options: RunOptions, worker: bool = False, artifact: str | None = None
) -> list[Predictor]:
    """`options.lanes` predictors that may run at the same time, over one loaded model where the runtime shares it."""
    worker = worker or (options.lanes > 1 and not predictor_class(runtime).parallel)

    def load() -> Predictor:
        return open_predictor(bundle, runtime, options, worker, artifact)

    return siblings(load, options.lanes)


def siblings(load: Callable[[], Predictor], count: int) -> list[Predictor]:
    """One loaded predictor and its siblings, or more loaded ones where it has none."""
    found = [load()]
    try:
        while len(found) < count:
            found.append(found[0].sibling() or load())
    except BaseException:
        close_all(found)
        raise
    return found


def close_all(predictors: Sequence[Predictor]) -> None:
    """Closes each once."""
    for predictor in {id(predictor): predictor for predictor in predictors}.values():
        predictor.close()


class EmbeddingModel:
    """Predictors with their preprocessing and normalisation. Use as a context manager, or close().

    predictors: all of one model; a folder of images is spread over them, a batch of tensors goes to the first.
    """

    def __init__(self, spec: Spec, predictors: Sequence[Predictor], batch_size: int = 8, threads: int = 1) -> None:
        if batch_size < 1:
            raise InputError(f"batch size: expected 1 or more, got {batch_size}")
        self.spec = spec
        self.predictors = tuple(predictors)
        self.batch_size = batch_size
        self._threads = threads
        self._closed = False

    def embed_tensors(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Float32 `(N, 3, H, W)` -> float32 `(N, D)`, L2-normalised when the spec says so."""
        self._check_open()
        return self._embed(self.predictors[0], np.ascontiguousarray(batch, dtype=np.float32))

    def _embed(self, predictor: Predictor, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        count = len(batch)
        if predictor.sized and count < self.batch_size:  # a last, smaller batch is filled up
            batch = np.concatenate([batch, np.zeros((self.batch_size - count, *batch.shape[1:]), dtype=batch.dtype)])
        raw = predictor.embed(batch)[:count]
        return l2_normalize(raw) if self.spec.normalize_embedding else raw

    def stream(
        self, paths: Sequence[Path], on_bad: BadImage | None = None
    ) -> Iterator[tuple[list[Path], NDArray[np.float32]]]:
        """Parts of `(paths, float32 (n, D))`, in order; a bad image goes to `on_bad` and is left out, or is raised.

        With one predictor the next batch is decoded while it works; with several, each of them has a thread that
        decodes and embeds.
        """
        self._check_open()
        if len(self.predictors) > 1:
            yield from self._stream_lanes(paths, on_bad)
            return
        for good, tensors in stream_tensors(paths, self.spec.preprocess, self.batch_size, self._threads, on_bad):
            yield [paths[index] for index in good], self._embed(self.predictors[0], tensors)

    def chunk(self, count: int) -> int:
        """How many of `count` images a lane takes at a time: whole batches, 8 images or more if all have work."""
        batches = max(min(-(-8 // self.batch_size), count // (self.batch_size * len(self.predictors))), 1)
        return batches * self.batch_size

    def _stream_lanes(
        self, paths: Sequence[Path], on_bad: BadImage | None
    ) -> Iterator[tuple[list[Path], NDArray[np.float32]]]:
        size = self.chunk(len(paths))
        free: queue.SimpleQueue[tuple[Predictor, NDArray[np.float32]]] = queue.SimpleQueue()
        for predictor in self.predictors:  # each with memory that is used again and again
            free.put((predictor, np.empty((size, *self.spec.input_shape), dtype=np.float32)))

        def work(start: int) -> tuple[list[int], NDArray[np.float32], list[ImageError | None]]:
            predictor, memory = free.get()
            try:
                indices = range(start, min(start + size, len(paths)))
                tensors = memory[: len(indices)]
                errors = preprocess_batch([paths[i] for i in indices], self.spec.preprocess, tensors)
                good, kept = good_ones(indices, tensors, errors)
                parts = [kept[at : at + self.batch_size] for at in range(0, len(good), self.batch_size)]
                return good, np.concatenate([self._embed(predictor, part) for part in parts] or [kept]), errors
            finally:
                free.put((predictor, memory))

        starts = iter(range(0, len(paths), size))
        with ThreadPoolExecutor(len(self.predictors), thread_name_prefix="edgerecall-lane") as pool:
            ahead = 2 * len(self.predictors)
            pending = deque((start, pool.submit(work, start)) for start in itertools.islice(starts, ahead))
            try:
                while pending:
                    start, future = pending.popleft()
                    good, embeddings, errors = future.result()
                    for following in itertools.islice(starts, 1):
                        pending.append((following, pool.submit(work, following)))
                    report_bad(paths, start, errors, on_bad)
                    if good:
                        yield [paths[index] for index in good], embeddings
            finally:
                for _, future in pending:
                    future.cancel()

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
        close_all(self.predictors)

    def __enter__(self) -> EmbeddingModel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def make_batch(
    paths: Sequence[Path], start: int, size: int, preprocess: Preprocess, threads: int
) -> tuple[range, NDArray[np.float32], list[ImageError | None]]:
    """At most `size` images from `start` on: indices, tensors float32 `(n, 3, H, W)`, and what is wrong with any."""
    indices = range(start, min(start + size, len(paths)))
    tensors = np.empty((len(indices), *preprocess.output_shape), dtype=np.float32)
    return indices, tensors, preprocess_batch([paths[i] for i in indices], preprocess, tensors, threads)


def good_ones(
    indices: range, tensors: NDArray[np.float32], errors: Sequence[ImageError | None]
) -> tuple[list[int], NDArray[np.float32]]:
    """Indices and tensors without the bad images."""
    good = [index for index, error in zip(indices, errors, strict=True) if error is None]
    return good, tensors if len(good) == len(indices) else tensors[[index - indices.start for index in good]]


def report_bad(paths: Sequence[Path], start: int, errors: Sequence[ImageError | None], on_bad: BadImage | None) -> None:
    """Tells of each bad image of a batch, or raises the first."""
    for index, error in enumerate(errors, start):
        if error is not None:
            if on_bad is None:
                raise error
            on_bad(paths[index], error)


def stream_tensors(
    paths: Sequence[Path], preprocess: Preprocess, batch_size: int, threads: int, on_bad: BadImage | None
) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
    """Preprocessed batches: indices into `paths`, and float32 `(n, 3, H, W)`.

    The next batch is made, on `threads` threads of the core, while one is used.
    """
    if not paths:
        return
    with ThreadPoolExecutor(1, thread_name_prefix="edgerecall-preprocess") as ahead:
        pending = ahead.submit(make_batch, paths, 0, batch_size, preprocess, threads)
        for start in range(0, len(paths), batch_size):
            indices, tensors, errors = pending.result()
            if start + batch_size < len(paths):
                pending = ahead.submit(make_batch, paths, start + batch_size, batch_size, preprocess, threads)
            report_bad(paths, start, errors, on_bad)
            good, kept = good_ones(indices, tensors, errors)
            if good:
                yield good, kept


def load(
    bundle: str | Path,
    runtime: str = "onnxruntime",
    threads: int = 1,
    precision: str = "fp32",
    worker: bool = False,
    batch_size: int = 8,
    lanes: int = 1,
) -> EmbeddingModel:
    """Opens a bundle for inference.

    runtime: one of paddle, onnxruntime, openvino, lite, ncnn, or `native:` and one of them: by the C++ core.
    threads: CPU threads inside one inference. lanes: batches of a folder at the same time, each with as many threads:
    for throughput, `lanes=N, threads=1` uses N cores best.
    worker: run it in its own process. Raises BundleError, RuntimeUnavailable (with the remedy) or InputError.
    """
    opened = Bundle.open(bundle)
    options = RunOptions(threads=threads, precision=precision, lanes=lanes, batch=batch_size)
    return EmbeddingModel(opened.spec, open_lanes(opened, runtime, options, worker), batch_size, threads)


def available_in(bundle: Bundle) -> list[str]:
    """The runtimes that a bundle has artifacts for, in the table's order."""
    there = {artifact.runtime for artifact in bundle.manifest.artifacts}
    return [name for name in PREDICTORS if name in there]


def golden_tensors(bundle: Bundle) -> NDArray[np.float32]:
    """The golden images through this machine's preprocessing, float32 `(n, 3, H, W)`."""
    paths, _, _ = bundle.golden()
    return np.stack([preprocess_file(path, bundle.spec.preprocess) for path in paths])
