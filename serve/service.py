"""What answers: a model, perhaps a gallery, and a bound on how much waits for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtimes.bundle.bundle import Bundle
from ..runtimes.core.errors import InputError
from ..runtimes.embed.model import EmbeddingModel, golden_tensors
from ..runtimes.embed.verify import check_problem, compare
from ..runtimes.gallery.disk_gallery import DiskGallery
from ..runtimes.gallery.manifest import FILE
from .protocol import Given, InferRequest

LOGGER = logging.getLogger("edgerecall.serve")
IMAGE, PIXELS, TENSOR = "image", "pixels", "tensor"
EMBEDDING = "embedding"
MOST_FOUND = 10_000
Outputs = dict[str, Any]


class Busy(Exception):
    """As much waits as may wait."""


class TooLate(Exception):
    """The request's time is over."""


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
    model's own threads. InputError where the gallery's embeddings are another model's, RuntimeFailed where the sealed
    golden embeddings do not come out on this machine.
    """

    def __init__(self, bundle: Bundle, model: EmbeddingModel, gallery: DiskGallery | None, limits: Limits) -> None:
        self.bundle, self.model, self.gallery, self.limits = bundle, model, gallery, limits
        self.waiting = 0
        self._pool = ThreadPoolExecutor(model.replicas, "serve")
        self._written: tuple[int, int] | None = None
        if gallery is not None:
            gallery.require_model(bundle)

    def close(self) -> None:
        """Ends what waits, then the model."""
        self._pool.shutdown(cancel_futures=True)
        self.model.close()
        if self.gallery is not None:
            self.gallery.close()

    def refresh(self) -> None:
        """Sees what was written to the gallery since. What it cannot read is logged, and the rows stay those before."""
        if self.gallery is None:
            return
        try:
            found = (self.gallery.root / FILE).stat()
            written = (found.st_mtime_ns, found.st_ino)
            if written != self._written:
                self.gallery.refresh()
                self._written = written
        except (OSError, InputError) as error:
            LOGGER.error("the gallery cannot be read again: %s", error)

    def golden_problem(self, runtime: str, quantisation: str) -> str | None:
        """What is wrong with the golden images' embeddings as this machine computes them; None where they hold."""
        _, _, reference = self.bundle.golden()
        tensors = golden_tensors(self.bundle)
        with self.model.pool.borrow() as predictor:
            raw = np.concatenate([predictor.embed(tensor[None]) for tensor in tensors])
            precision = predictor.info.precision or "fp32"
        return check_problem(compare(raw, reference, runtime, precision, quantisation))

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

    async def infer(self, request: InferRequest) -> Outputs:
        """The outputs asked for. InputError, Busy, TooLate."""
        limit = self._seconds(request.parameters)
        top = self._top(request.parameters)
        if len(request.inputs) != 1:
            raise InputError(f"inputs: expected one of {IMAGE}, {PIXELS} and {TENSOR}, got {len(request.inputs)}")
        images = self._images(request.inputs[0])
        if len(images) > self.limits.images:
            raise InputError(f"a request has at most {self.limits.images} images, got {len(images)}")
        if self.waiting + len(images) > self.limits.queue:
            raise Busy(f"{self.waiting} images wait already, at most {self.limits.queue} may")
        self.waiting += len(images)
        try:
            return await asyncio.wait_for(self._answer(images, request.outputs, top), limit)
        except asyncio.TimeoutError:
            raise TooLate(f"not done within {limit:g} s") from None
        finally:
            self.waiting -= len(images)

    def _seconds(self, parameters: Mapping[str, Any]) -> float:
        asked = parameters.get("timeout")  # in microseconds, as Triton has it
        if asked is None:
            return self.limits.seconds
        if type(asked) is not int or asked <= 0:
            raise InputError(f"timeout: expected microseconds, a whole number above 0, got {asked!r:.40}")
        return min(asked / 1e6, self.limits.seconds)

    def _top(self, parameters: Mapping[str, Any]) -> int:
        top = parameters.get("k", self.limits.top)
        if type(top) is not int or not 1 <= top <= MOST_FOUND:
            raise InputError(f"k: expected a whole number from 1 to {MOST_FOUND}, got {top!r:.40}")
        return top

    def _images(self, given: Given) -> list[Any] | NDArray[np.float32]:
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

    async def _answer(self, images: list[Any] | NDArray[np.float32], asked: Mapping[str, bool], top: int) -> Outputs:
        return await self._outputs(await self._embed(images), asked, top)

    async def _embed(self, images: list[Any] | NDArray[np.float32]) -> NDArray[np.float32]:
        loop = asyncio.get_running_loop()
        if isinstance(images, np.ndarray):
            parts = [images[i : i + self.model.batch_size] for i in range(0, len(images), self.model.batch_size)]
            jobs: list[asyncio.Future[Any]] = [
                loop.run_in_executor(self._pool, self.model.embed_tensors, part) for part in parts
            ]
            return np.asarray(np.concatenate(await asyncio.gather(*jobs)))
        jobs = [asyncio.wrap_future(self.model.submit(image)) for image in images]
        try:
            return np.asarray(np.stack(await asyncio.gather(*jobs)))
        except BaseException:
            for job in jobs:
                job.cancel()
            raise

    async def _outputs(self, embeddings: NDArray[np.float32], asked: Mapping[str, bool], top: int) -> Outputs:
        outputs: Outputs = {EMBEDDING: embeddings}
        if self.gallery is None or (asked and set(asked) == {EMBEDDING}):
            return outputs
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._pool, self.gallery.search, embeddings, top)
        width = min((len(matches) for matches in found), default=0)
        outputs["ids"] = [[one.id for one in matches[:width]] for matches in found]
        outputs["labels"] = [[one.label or "" for one in matches[:width]] for matches in found]
        outputs["scores"] = np.asarray([[one.similarity for one in matches[:width]] for matches in found], np.float32)
        outputs["scores"] = outputs["scores"].reshape(len(found), width)
        return outputs
