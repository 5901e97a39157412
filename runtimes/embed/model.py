"""From a bundle to embeddings: `load(bundle).embed_images(paths)`, or `embed_bytes` for what is no file."""

from __future__ import annotations

import itertools
import os
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle.bundle import Bundle
from ..bundle.manifest import MANIFEST
from ..bundle.spec import Spec
from ..core.cpus import usable_cpus
from ..core.errors import ImageError, InputError
from ..predictor.interface import COMPILED_SIZES, Predictor, RunOptions
from ..preprocess.images import find_images
from ..preprocess.pipeline import Source, preprocess_batch, preprocess_file
from ..preprocess.transform_ops import read_preprocess
from ..worker.micro_batches import MicroBatcher
from .batches import BadImage, good_ones, report_bad, stream_tensors
from .plain_model import open_plain_model
from .replicas import CLOSED, ReplicaPool, open_replicas
from .requests import Answer, FutureRequest, Request, Telling, Told, Waiting
from .turns import Turns

BadIndex = Callable[[int, ImageError], None]
Embedding = NDArray[np.float32]
Embed = Callable[[NDArray[np.float32]], Embedding]
Observe = Callable[[str, float, int], object]  # a stage, its seconds, and how many images it had


def l2_normalize(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows to unit length, in float32; a zero row stays zero."""
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(embeddings / np.maximum(norms, np.float32(1e-12)), dtype=np.float32)


class EmbeddingModel:
    """A pool of replicas with their preprocessing and normalisation. Use as a context manager, or close().

    Thread-safe: any number of threads may call any method at the same time; each inference has a replica to itself, and
    waits for one when all are at work. Preprocessing needs none and runs meanwhile, of as many callers as there
    are cores (or replicas, where they are more); beyond that, batches take their turn in threads of the model. What is
    submitted has threads of its own, as many as replicas. The model owns its
    predictors: others use them by `pool` alone, and closing it waits for the inferences under way.

    predictors: replicas of one model. batch_size: images in an inference, at most. threads: of preprocessing.

    observe: what is told of submitted images, from the threads that work on them: stage `queue` of each, `preprocess`
    and `inference` (with the wait for a replica) of a micro-batch.
    """

    def __init__(self, spec: Spec, predictors: Sequence[Predictor], batch_size: int = 8, threads: int = 1) -> None:
        if batch_size < 1:
            raise InputError(f"batch size: expected 1 or more, got {batch_size}")
        self.spec = spec
        self.batch_size = batch_size
        self.pool = ReplicaPool(predictors)
        self.observe: Observe = lambda stage, seconds, images: None
        self._threads = threads
        self._batcher: MicroBatcher[Waiting] | None = None
        self._closed = False
        self._submitting = Lock()
        self._telling = Telling(self.replicas)
        # More threads than cores would only take the interpreter and the caches from one another.
        self._turns = Turns(max(self.replicas, len(usable_cpus())))
        self._memories: list[NDArray[np.float32]] = []  # of batches, one of each caller at work, used again and again

    @property
    def replicas(self) -> int:
        """How many inferences it runs at the same time."""
        return len(self.pool.predictors)

    def embed_tensors(self, batch: NDArray[np.float32]) -> Embedding:
        """Float32 `(N, 3, H, W)` -> float32 `(N, D)`, L2-normalised when the spec says so."""
        given = np.ascontiguousarray(batch, dtype=np.float32)
        with self.pool.borrow() as predictor:
            return self._embed(predictor, given)

    def _embed_micro_batch(self, batch: NDArray[np.float32]) -> Embedding:
        """`embed_tensors` of a batch of any size up to `batch_size`, in pieces of the sizes that are compiled."""
        with self.pool.borrow() as predictor:
            if not predictor.compiles_per_batch:
                return self._embed(predictor, batch)
            parts, start = [], 0
            while start < len(batch):
                size = next((size for size in self._sizes if size <= len(batch) - start), self._sizes[-1])
                parts.append(self._embed(predictor, batch[start : start + size], size))
                start += size
            return np.concatenate(parts)

    @property
    def _sizes(self) -> list[int]:
        """The batch size, its half and so on, as many as a predictor keeps compiled."""
        sizes = [self.batch_size]
        while len(sizes) < COMPILED_SIZES and sizes[-1] > 1:
            sizes.append(-(-sizes[-1] // 2))
        return sizes

    def embed_bytes(self, images: Sequence[Source], on_bad: BadIndex | None = None) -> Embedding:
        """Images that are no files to embeddings float32 `(n, D)`, in order, in batches of `batch_size`.

        images: each an encoded image as bytes (JPEG, PNG, BMP, WebP, TIFF), RGB pixels uint8 `(height, width, 3)`, or a
        path. Without `on_bad` the first bad image raises ImageError; with it, bad ones are left out and it is given
        their index. InputError for what is neither. A runtime that compiles for each batch size does so for up to four,
        when each first comes, so that few images do not cost what a whole batch does.
        """
        self.pool.check_open()
        parts: list[Embedding] = []
        start, errors = 0, list[ImageError | None]()

        def batch() -> bool:
            nonlocal start, errors
            part, end = images[start : start + self.batch_size], start + self.batch_size
            told = [str(one) if isinstance(one, Path) else f"image {at}" for at, one in enumerate(part, start)]
            errors, rows = self._embed_part(part, told, self._embed_micro_batch, strict=on_bad is None)
            parts.append(rows)
            start = end
            return start < len(images) and not any(errors)

        while start < len(images):
            self._turns.run(batch)
            for index, error in enumerate(errors, start - self.batch_size):  # without a turn: it may call the model
                if error is not None and on_bad is not None:
                    on_bad(index, error)
        return np.concatenate(parts) if parts else np.empty((0, self.spec.embedding_dim), dtype=np.float32)

    def _embed_part(
        self, part: Sequence[Source], names: Sequence[str], embed: Embed, strict: bool = False
    ) -> tuple[list[ImageError | None], Embedding]:
        """What is wrong with each image of a batch, and the embeddings of those that are good. names: what messages
        call them. embed: tensors of the good ones. strict: raises the first that is wrong.
        """
        self.pool.check_open()
        with self._memory(len(part)) as tensors:
            errors = preprocess_batch(part, self.spec.preprocess, tensors, self._threads, names)
            if strict and (bad := next(filter(None, errors), None)):
                raise bad
            _, kept = good_ones(range(len(part)), tensors, errors)
            return errors, embed(kept) if len(kept) else np.empty((0, self.spec.embedding_dim), np.float32)

    @contextmanager
    def _memory(self, count: int) -> Iterator[NDArray[np.float32]]:
        """Room for the tensors of so many images."""
        memory = self._memories.pop() if self._memories else None
        if memory is None or len(memory) < count:
            memory = np.empty((count, *self.spec.input_shape), dtype=np.float32)
        try:
            yield memory[:count]
        finally:
            self._memories.append(memory)

    def submit(self, image: Source) -> Future[Embedding]:
        """One image's embedding, float32 `(D,)`, later: images of many callers that wait share an inference.

        As many threads as there are replicas take what waits, at most `batch_size` at once, preprocess and embed it;
        none waits for more to come. A runtime that compiles for each batch size does so for up to four, when each first
        comes. The future raises what `embed_bytes` does; one that is cancelled before its turn is
        not computed.
        """
        request = FutureRequest(image)
        self._put(request)
        return request.future

    def ask(self, image: Source, answer: Answer) -> Callable[[], None]:
        """`submit` for who has no use for a future, which costs dozens of calls an image: `answer` is told the
        embedding, or what the future would raise, in the thread that embedded the image. What it raises is logged.

        What is returned drops the image, unless it has begun: `answer` is then told CancelledError, by whoever drops.
        """
        request = Request(image, answer)
        self._put(request)
        return request.drop

    def _put(self, request: Waiting) -> None:
        with self._submitting:
            if self._closed:
                raise InputError(CLOSED)
            if self._batcher is None:
                self._batcher = MicroBatcher(self._answer, self.batch_size, self.replicas)
            self._batcher.put([request])

    def _answer(self, requests: Sequence[Waiting]) -> None:
        """Completes a micro-batch; never raises."""
        began = time.perf_counter()
        told = self._found([request for request in requests if request.begin()], began)
        batcher = self._batcher
        waiting = batcher.waiting if batcher is not None else 0  # none as the model is closed
        self._telling.add(told, waiting, time.perf_counter() - began)

    def _found(self, wanted: Sequence[Waiting], began: float) -> list[Told]:
        """Of a micro-batch; never raises."""
        if not wanted:
            return []
        for request in wanted:
            self.observe("queue", began - request.born, 1)

        def embed(batch: NDArray[np.float32]) -> Embedding:
            ready = time.perf_counter()
            self.observe("preprocess", ready - began, len(wanted))
            found = self._embed_micro_batch(batch)
            self.observe("inference", time.perf_counter() - ready, len(batch))
            return found

        try:
            errors, rows = self._embed_part([one.image for one in wanted], [one.name for one in wanted], embed)
        except BaseException as error:
            if len(wanted) > 1 and isinstance(error, InputError | ValueError | TypeError):  # of one, not of all
                return [self._found_alone(request) for request in wanted]
            return [(request, None, error) for request in wanted]
        found = iter(rows)
        return [
            (request, next(found) if bad is None else None, bad) for request, bad in zip(wanted, errors, strict=True)
        ]

    def _found_alone(self, request: Waiting) -> Told:
        try:
            (bad,), rows = self._embed_part([request.image], [request.name], self._embed_micro_batch)
        except BaseException as error:
            return request, None, error
        return request, rows[0] if bad is None else None, bad

    def _embed(self, predictor: Predictor, batch: NDArray[np.float32], size: int | None = None) -> Embedding:
        """size: that is compiled, to which a smaller batch is filled up."""
        count, size = len(batch), size or self.batch_size
        if predictor.compiles_per_batch and count < size:
            batch = np.concatenate([batch, np.zeros((size - count, *batch.shape[1:]), dtype=batch.dtype)])
        raw = predictor.embed(batch)[:count]
        return l2_normalize(raw) if self.spec.normalize_embedding else raw.copy()  # the batch's memory is used again

    def stream(self, paths: Sequence[Path], on_bad: BadImage | None = None) -> Iterator[tuple[list[Path], Embedding]]:
        """Parts of `(paths, float32 (n, D))`, in order; a bad image goes to `on_bad` and is left out, or is raised.

        With one replica the next batch is decoded while it works; with several, as many threads decode and embed.
        """
        self.pool.check_open()
        if self.replicas > 1:
            yield from self._stream_replicas(paths, on_bad)
            return
        for good, tensors in stream_tensors(paths, self.spec.preprocess, self.batch_size, self._threads, on_bad):
            yield [paths[index] for index in good], self.embed_tensors(tensors)

    def chunk(self, count: int) -> int:
        """How many of `count` images a thread takes at a time: whole batches, 8 images or more if all have work."""
        batches = max(min(-(-8 // self.batch_size), count // (self.batch_size * self.replicas)), 1)
        return batches * self.batch_size

    def _parts(self, count: int) -> Iterator[range]:
        """All images in chunks, smaller towards the end, so that no thread is left with much when others rest."""
        start, most = 0, self.chunk(count)
        while start < count:
            fair = (count - start) // (2 * self.replicas) // self.batch_size * self.batch_size
            size = min(most, max(fair, self.batch_size))
            yield range(start, min(start + size, count))
            start += size

    def _stream_replicas(
        self, paths: Sequence[Path], on_bad: BadImage | None
    ) -> Iterator[tuple[list[Path], Embedding]]:
        size = self.chunk(len(paths))
        memories: queue.SimpleQueue[NDArray[np.float32]] = queue.SimpleQueue()
        for _ in range(self.replicas):  # used again and again
            memories.put(np.empty((size, *self.spec.input_shape), dtype=np.float32))

        def work(indices: range) -> tuple[list[int], Embedding, list[ImageError | None]]:
            memory = memories.get()
            try:
                tensors = memory[: len(indices)]
                errors = preprocess_batch([paths[i] for i in indices], self.spec.preprocess, tensors)
                good, kept = good_ones(indices, tensors, errors)
                batches = [kept[at : at + self.batch_size] for at in range(0, len(good), self.batch_size)]
                with self.pool.borrow() as predictor:
                    rows = [self._embed(predictor, batch) for batch in batches]
                return good, np.concatenate(rows or [np.empty((0, self.spec.embedding_dim), np.float32)]), errors
            finally:
                memories.put(memory)

        parts = self._parts(len(paths))
        with ThreadPoolExecutor(self.replicas, thread_name_prefix="edgerecall-replica") as pool:
            ahead = 2 * self.replicas
            pending = deque((part, pool.submit(work, part)) for part in itertools.islice(parts, ahead))
            try:
                while pending:
                    part, future = pending.popleft()
                    good, embeddings, errors = future.result()
                    for following in itertools.islice(parts, 1):
                        pending.append((following, pool.submit(work, following)))
                    report_bad(paths, part.start, errors, on_bad)
                    if good:
                        yield [paths[index] for index in good], embeddings
            finally:
                for _, future in pending:
                    future.cancel()

    def embed_images(self, paths: Sequence[str | Path] | str | Path, on_bad: BadImage | None = None) -> Embedding:
        """Image files to embeddings float32 `(n, D)`, in order. paths: an image, a folder of images at any depth in
        sorted order, or several images.

        Without `on_bad` the first bad image raises ImageError; with it, bad ones are left out. InputError for arrays
        and bytes, which are for `embed_bytes`.
        """
        given: Any = paths
        if isinstance(paths, str | Path):
            files = find_images(Path(paths)) if Path(paths).is_dir() else [Path(paths)]
        else:
            given = [given] if isinstance(given, np.ndarray | bytes) else list(given)
            if not all(isinstance(path, str | os.PathLike) for path in given):
                raise InputError("embed_images: expected paths of images; for pixels or encoded bytes use embed_bytes")
            files = [Path(path) for path in given]
        parts = [embeddings for _, embeddings in self.stream(files, on_bad)]
        return np.concatenate(parts) if parts else np.empty((0, self.spec.embedding_dim), dtype=np.float32)

    def close(self) -> None:
        """Ends what was submitted and frees the runtime, after the inferences under way; calls after it raise
        InputError.
        """
        with self._submitting:
            self._closed = True
            batcher, self._batcher = self._batcher, None
        try:
            if batcher is not None:
                batcher.stop()
        finally:
            self._telling.close()
            self.pool.close()
            self._turns.close()
            self._memories.clear()

    def __enter__(self) -> EmbeddingModel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def load(
    bundle: str | Path,
    runtime: str = "onnxruntime",
    threads: int = 1,
    precision: str = "fp32",
    worker: bool = False,
    batch_size: int = 8,
    replicas: int = 1,
    quantisation: str | None = None,
    preprocess: str | Path | None = None,
) -> EmbeddingModel:
    """Opens a bundle for inference; or, by `runtime="paddle"`, a folder with a Paddle inference model.

    preprocess: for such a folder, the YAML whose RecPreProcess says how its images become tensors.

    runtime: by name (paddle, onnxruntime, openvino, lite, ncnn, ...), with `cpp-` before it: by the C++ core.
    threads: CPU threads inside one inference. replicas: of the model, each with as many threads, for batches of a
    folder, or callers, at the same time: for throughput, `replicas=N, threads=1` uses N cores best.
    precision: how the runtime computes (fp32, tf32, fp16, bf16). quantisation: of the artifact to take (fp32, fp16,
    int8), by default the fp32 one where there is one. worker: run it in its own process.
    Raises BundleError, RuntimeUnavailable (with the remedy) or InputError.
    """
    if preprocess is not None:
        if (Path(bundle) / MANIFEST).is_file():
            raise InputError(f"{bundle}: a bundle brings its own preprocessing: leave out preprocess")
        if quantisation is not None:
            raise InputError(f"quantisation: {bundle} is a plain Paddle model, which has one artifact: leave it out")
        asked = RunOptions(threads=threads, precision=precision, replicas=replicas, batch=batch_size)
        spec, predictors = open_plain_model(Path(bundle), runtime, read_preprocess(Path(preprocess)), asked, worker)
        return EmbeddingModel(spec, predictors, batch_size, threads)
    if not (Path(bundle) / MANIFEST).is_file() and (Path(bundle) / "inference.pdiparams").is_file():
        raise InputError(
            f"{bundle}: is a plain Paddle model: give preprocess=YAML and runtime='paddle', or make a bundle by"
            " 'edgerecall export'"
        )
    opened = Bundle.open(bundle)
    opened.golden()  # what no trained network gives is not served
    artifact = opened.artifact(runtime, quantisation=quantisation).name
    options = RunOptions(threads=threads, precision=precision, replicas=replicas, batch=batch_size)
    return EmbeddingModel(opened.spec, open_replicas(opened, runtime, options, worker, artifact), batch_size, threads)


def golden_tensors(bundle: Bundle) -> NDArray[np.float32]:
    """The golden images through this machine's preprocessing, float32 `(n, 3, H, W)`."""
    paths, _, _ = bundle.golden()
    return np.stack([preprocess_file(path, bundle.spec.preprocess) for path in paths])
