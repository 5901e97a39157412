"""What answers: a model, perhaps a gallery, and a bound on how much waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import operator
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtimes.bundle.bundle import Bundle
from ..runtimes.core.errors import ImageError, InputError, RuntimeFailed
from ..runtimes.embed.model import EmbeddingModel, Observe, golden_tensors, load
from ..runtimes.embed.verify import check_problem, compare
from ..runtimes.gallery.disk_gallery import DiskGallery
from ..runtimes.gallery.identity import identity_of
from ..runtimes.gallery.manifest import FILE
from ..runtimes.gallery.snapshot import Match
from ..runtimes.predictor.interface import Predictor
from ..runtimes.stores.interface import Store
from ..runtimes.stores.opening import AnyGallery, open_gallery
from ..runtimes.worker.client import WorkerPredictor
from .deadline import Deadline
from .formats.tensors import Given, InferRequest

LOGGER = logging.getLogger("edgerecall.serve")
IMAGE, PIXELS, TENSOR = "image", "pixels", "tensor"
EMBEDDING = "embedding"
ALIVE = operator.attrgetter("alive")
MOST_FOUND = 10_000
HANGS_S = 5.0  # beyond a request's time, after which a replica without an answer is ended
MOST_TOLD = 100_000
DIED = "the model's processes have died and start again"
Outputs = dict[str, Any]
Images = list[Any] | NDArray[np.float32]  # encoded or pixels, or tensors


class Busy(Exception):
    """As much waits as may wait."""


class Unavailable(Busy):
    """Nothing answers at the moment."""


@dataclass(frozen=True)
class Limits:
    """queue: images that wait or are at work, at most. images: of one request. seconds: that a request may take.

    top: neighbours of an image, unless the request says `k`.
    """

    queue: int = 256
    images: int = 64
    seconds: float = 30.0
    top: int = 5


class Service:
    """One model and perhaps a gallery of its embeddings, for any number of requests at once; close() it.

    It owns the model and the gallery. Its coroutines run in one event loop; images are decoded and embedded by the
    model's own threads. runtime, quantisation: what computes, of which artifact.
    """

    def __init__(
        self,
        bundle: Bundle,
        model: EmbeddingModel,
        gallery: AnyGallery | None,
        limits: Limits,
        runtime: str = "onnxruntime",
        quantisation: str = "fp32",
    ) -> None:
        self.bundle, self.model, self.gallery, self.limits = bundle, model, gallery, limits
        self.runtime, self.quantisation = runtime, quantisation
        self.waiting = 0  # images
        self.users = 0  # requests
        self.owns_gallery = True
        for predictor in model.pool.predictors:
            if isinstance(predictor, WorkerPredictor):  # one that hangs is ended
                predictor.timeout_s = limits.seconds + HANGS_S
        self.observe: Observe = model.observe
        self.identity = identity_of(bundle)
        self._golden = golden_tensors(bundle), bundle.golden()[2]  # the folder may get another bundle
        self._pool = ThreadPoolExecutor(model.replicas, "serve")
        self.gallery_problem: str | None = None
        self._written: tuple[int, int] | None = None

    def close(self) -> None:
        """Ends what waits, then the model."""
        self._pool.shutdown(cancel_futures=True)
        self.model.close()
        if self.gallery is not None and self.owns_gallery:
            self.gallery.close()

    def observed_by(self, observe: Observe) -> None:
        """Whom the stages of requests are told."""
        self.observe = self.model.observe = observe

    def refresh(self) -> None:
        """Sees what was written to the gallery since. What cannot be read, or is another model's, is logged once, and
        the rows stay those before.
        """
        if self.gallery is None:
            return
        try:
            if isinstance(self.gallery, Store):
                self.gallery.known([])  # whether it answers
                self.gallery_problem = None
                return
            found = (self.gallery.root / FILE).stat()
            written = (found.st_mtime_ns, found.st_ino)
            if written != self._written:
                now = DiskGallery(self.gallery.root, model=self.identity)
                now.prepare(self.gallery)
                self.gallery = now
                self._written = written
            self.gallery_problem = None
        except (OSError, InputError, RuntimeFailed) as error:
            if str(error) != self.gallery_problem:
                LOGGER.error("the gallery is served as it was: %s", error)
            self.gallery_problem = str(error)

    @property
    def alive(self) -> int:
        """Replicas that still answer."""
        return sum(map(ALIVE, self.model.pool.predictors))

    def golden_problem(self, pause_s: float = 0) -> str | None:
        """What is wrong with the golden images' embeddings as this machine computes them, by any of the replicas; None
        where they hold. pause_s: after each image, for what waits for a replica. A replica that does not come free for
        longer than a request may take is a problem; one that has died is none, as long as another is left.
        """
        tensors, reference = self._golden
        rows: dict[Predictor, list[NDArray[np.float32]]] = {one: [] for one in self.model.pool.predictors}
        patience = self.limits.seconds + HANGS_S
        until = time.monotonic() + patience
        while missing := [one for one, done in rows.items() if one.alive and len(done) < len(tensors)]:
            if time.monotonic() > until:
                return f"{len(missing)} of {self.model.replicas} replicas did not come free within {patience:g} s"
            with self.model.pool.borrow() as predictor:  # the one that rests longest, by turns
                done = rows[predictor]
                if len(done) < len(tensors):
                    try:
                        done.append(predictor.embed(tensors[len(done)][None]))
                    except RuntimeFailed:
                        if predictor.alive:
                            raise
                    until = time.monotonic() + patience
            if predictor in missing and len(done) == len(tensors):
                precision = predictor.info.precision or "fp32"
                found = compare(np.concatenate(done), reference, self.runtime, precision, self.quantisation)
                if problem := check_problem(found):
                    return problem
            time.sleep(pause_s)
        return None if self.alive else DIED

    @property
    def inputs(self) -> list[dict[str, Any]]:
        """What a request may bring, one of them, in the protocol's words."""
        shape = list(self.bundle.spec.input_shape)
        return [
            {"name": IMAGE, "datatype": "BYTES", "shape": [-1]},
            {"name": PIXELS, "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
            {"name": TENSOR, "datatype": "FP32", "shape": [-1, *shape]},
        ]

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """What it answers."""
        found: list[dict[str, Any]] = [
            {"name": EMBEDDING, "datatype": "FP32", "shape": [-1, self.bundle.spec.embedding_dim]}
        ]
        if self.gallery is not None:
            texts = [{"name": name, "datatype": "BYTES", "shape": [-1, -1]} for name in ("ids", "labels")]
            found += [*texts, {"name": "scores", "datatype": "FP32", "shape": [-1, -1]}]
        return found

    async def infer(self, request: InferRequest, deadline: Deadline) -> Outputs:
        """The outputs asked for. InputError, Busy, TooLate."""
        if (asked := request.parameters.get("timeout")) is not None:
            deadline = deadline.at_most(self._seconds(asked))
        if len(request.inputs) != 1:
            raise InputError(f"inputs: expected one of {IMAGE}, {PIXELS} and {TENSOR}, got {len(request.inputs)}")
        if request.outputs:
            request.wanted(one["name"] for one in self.outputs)
        images = self._images(request.inputs[0])
        top = self._top(request.parameters, len(images))
        if self.waiting + len(images) > self.limits.queue:
            raise Busy(f"{self.waiting} images wait already, at most {self.limits.queue} may")
        if not self.alive:
            raise Unavailable(DIED)
        try:
            embeddings = await self._embed(images, deadline)
        except RuntimeFailed:
            embeddings = await self._embed_again(images, deadline)
        outputs: Outputs = {EMBEDDING: embeddings}
        if self.gallery is None or (request.outputs and set(request.outputs) == {EMBEDDING}):
            return outputs
        return outputs | await self._found(self.gallery, embeddings, top, deadline)

    def _seconds(self, asked: Any) -> float:
        """Of a request's own timeout, in microseconds as Triton has it."""
        if type(asked) is not int or asked <= 0:
            raise InputError(f"timeout: expected microseconds, a whole number above 0, got {asked!r:.40}")
        return float(asked / 1e6)

    def _top(self, parameters: Mapping[str, Any], images: int) -> int:
        top = parameters.get("k", self.limits.top)
        if type(top) is not int or not 1 <= top <= MOST_FOUND:
            raise InputError(f"k: expected a whole number from 1 to {MOST_FOUND}, got {top!r:.40}")
        if top * images > MOST_TOLD:
            raise InputError(f"k: at most {MOST_TOLD} rows for all images of a request, got {top} for {images}")
        return top

    def _images(self, given: Given) -> Images:
        """An input's images: encoded, as pixels, or preprocessed."""
        value, spec = given.value, self.bundle.spec
        if given.name == IMAGE and isinstance(value, list):
            return list(value)
        if given.name == PIXELS and given.datatype == "UINT8" and isinstance(value, np.ndarray):
            pixels = value[None] if value.ndim == 3 else value
            if pixels.ndim == 4 and pixels.shape[3] == 3:
                return [np.ascontiguousarray(one) for one in pixels]
        is_tensor = given.name in (TENSOR, spec.input_name) and given.datatype == "FP32"
        if is_tensor and isinstance(value, np.ndarray) and value.shape[1:] == spec.input_shape:
            return np.ascontiguousarray(value)
        allowed = "; ".join(f"{one['name']} {one['datatype']} {one['shape']}" for one in self.inputs)
        raise InputError(f"expected one of {allowed}; got {given.name:.60} {given.datatype} {list(given.shape)}")

    async def _embed_again(self, images: Images, deadline: Deadline) -> NDArray[np.float32]:
        """By a replica that is left when one has died."""
        try:
            return await self._embed(images, deadline)
        except RuntimeFailed:
            if self.alive < self.model.replicas:
                raise Unavailable(DIED) from None
            raise

    async def _embed(self, images: Images, deadline: Deadline) -> NDArray[np.float32]:
        if isinstance(images, list) and len(images) == 1:  # what most requests ask for
            try:
                return np.asarray(await self._one(images[0], deadline))[None]
            except ImageError as error:
                raise of_a_request(0, error) from error
        if isinstance(images, np.ndarray):
            size = self.model.batch_size
            parts = [images[start : start + size] for start in range(0, len(images), size)]
            return np.asarray(np.concatenate(await self._all(self._part(part, deadline) for part in parts)))
        return np.asarray(await self._all(self._one(image, deadline) for image in images))

    def _embed_tensors(self, part: NDArray[np.float32]) -> NDArray[np.float32]:
        with self.timed("inference", len(part)):
            return self.model.embed_tensors(part)

    @contextlib.contextmanager
    def timed(self, stage: str, images: int) -> Iterator[None]:
        """Tells how long a stage took."""
        began = time.perf_counter()
        yield
        self.observe(stage, time.perf_counter() - began, images)

    async def _all(self, begun: Iterable[asyncio.Future[Any]]) -> list[Any]:
        """What all give. The first failure ends those that have not begun; each keeps its seats until it has ended."""
        jobs: list[asyncio.Future[Any]] = []
        try:
            jobs.extend(begun)
            return await asyncio.gather(*jobs)
        except ImageError as error:
            failed = [
                at for at, job in enumerate(jobs) if job.done() and not job.cancelled() and job.exception() is error
            ]
            raise of_a_request(failed[0], error) from error
        finally:
            for job in jobs:
                job.cancel()

    def _one(self, image: Any, deadline: Deadline) -> asyncio.Future[Any]:
        """An image's embedding, in time; it waits until it has ended."""
        job = deadline.asked(partial(self.model.ask, image), partial(self._leave, 1))
        self.waiting += 1
        return job

    def _part(self, part: NDArray[np.float32], deadline: Deadline) -> asyncio.Future[Any]:
        """The embeddings of an inference's tensors, likewise."""
        job = deadline.job(self._pool.submit(self._embed_tensors, part), partial(self._leave, len(part)))
        self.waiting += len(part)
        return job

    def _leave(self, images: int) -> None:
        self.waiting -= images

    async def _found(
        self, gallery: AnyGallery, embeddings: NDArray[np.float32], top: int, deadline: Deadline
    ) -> Outputs:
        """What is nearest to each."""
        try:
            found: Outputs = await deadline.job(self._pool.submit(self._neighbours, gallery, embeddings, top))
            return found
        except (RuntimeFailed, InputError) as error:
            LOGGER.error("the gallery does not answer: %s", error)
            raise Unavailable("the gallery does not answer") from None

    def _neighbours(self, gallery: AnyGallery, embeddings: NDArray[np.float32], top: int) -> Outputs:
        with self.timed("search", len(embeddings)):
            found = gallery.search(embeddings, top)
        return as_outputs(found)


def of_a_request(number: int, error: ImageError) -> ImageError:
    """What is wrong with one of a request's images."""
    return ImageError(f"image {number}: {str(error).removeprefix('the image: ')}")


def as_outputs(found: Sequence[Sequence[Match]]) -> Outputs:
    """The nearest rows of each embedding, as many for all as the one with the fewest has."""
    width = min((len(matches) for matches in found), default=0)
    scores = np.asarray([[one.similarity for one in matches[:width]] for matches in found], np.float32)
    return {
        "ids": [[one.id for one in matches[:width]] for matches in found],
        "labels": [[one.label or "" for one in matches[:width]] for matches in found],
        "scores": scores.reshape(len(found), width),
    }


@dataclass(frozen=True)
class Opening:
    """What a service is made of, as often as it is made: see `edgerecall serve`."""

    bundle: Path
    gallery: Path | str | None
    runtime: str
    quantisation: str | None
    replicas: int
    batch_size: int
    worker: bool
    limits: Limits

    def __call__(self, before: Service | None = None) -> Service:
        """The service of what is on disk now. before: one whose gallery is taken over as it is, once this is made.

        BundleError, InputError, RuntimeUnavailable; RuntimeFailed where the sealed golden embeddings do not come out on
        this machine.
        """
        bundle = Bundle.open(self.bundle)
        quantisation = bundle.artifact(self.runtime, quantisation=self.quantisation).quantisation
        with contextlib.ExitStack() as undo:
            gallery = None if before is None else before.gallery
            if self.gallery is not None and before is None:
                gallery = open_gallery(self.gallery, bundle)
                undo.callback(gallery.close)
                if isinstance(gallery, DiskGallery):
                    gallery.prepare()
            model = load(
                self.bundle,
                self.runtime,
                worker=self.worker,
                batch_size=self.batch_size,
                replicas=self.replicas,
                quantisation=quantisation,
            )
            undo.callback(model.close)
            service = Service(bundle, model, gallery, self.limits, self.runtime, quantisation)
            service.owns_gallery = before is None
            undo.callback(service.close)
            if problem := service.golden_problem():
                raise RuntimeFailed(f"{self.bundle}: not served, its golden images: {problem}")
            undo.pop_all()
        return service
