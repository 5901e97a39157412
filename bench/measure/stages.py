"""The way from an image's bytes to its neighbours, stage by stage."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtimes._native import Gallery
from ...runtimes.bundle.spec import Spec
from ...runtimes.core.contract import CONTRACT
from ...runtimes.embed.model import l2_normalize
from ...runtimes.preprocess.images import decode_rgb, read_bytes
from ...runtimes.preprocess.pipeline import preprocess_pixels
from ...runtimes.worker.client import Timing, WorkerPredictor

NAMES = ("decode", "preprocess", "inference", "normalise", "search")
NEIGHBOURS: int = CONTRACT["neighbours"]


@dataclass
class Stages:
    """Nanoseconds of each stage, one entry a batch. timings: the worker's own of its inferences."""

    samples_ns: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in NAMES})
    timings: list[Timing] = field(default_factory=list)

    def extend(self, other: Stages) -> None:
        """Adds another's entries."""
        for name in NAMES:
            self.samples_ns[name] += other.samples_ns[name]
        self.timings += other.timings

    def sums(self) -> NDArray[np.int64]:
        """All stages together, one entry a batch."""
        columns = zip(*(self.samples_ns[name] for name in NAMES), strict=True)
        return np.asarray([sum(column) for column in columns], dtype=np.int64)

    def medians_ms(self) -> dict[str, float]:
        """The median of each stage; empty when nothing was timed."""
        return {name: float(np.median(samples)) / 1e6 for name, samples in self.samples_ns.items() if samples}


@contextmanager
def on_cpus(cpus: Sequence[int]) -> Iterator[None]:
    """Binds this thread to CPUs, all of its own when empty, and undoes it."""
    before = os.sched_getaffinity(0) if cpus else set()
    if cpus:
        os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        if cpus:
            os.sched_setaffinity(0, before)


def time_stages(
    worker: WorkerPredictor,
    spec: Spec,
    paths: Sequence[Path],
    batch: int,
    count: int,
    gallery: Gallery,
    cpus: Sequence[int],
    limit_s: float,
) -> Stages:
    """`count` batches of real images, at least one, no new one after `limit_s`.

    Each stage is timed where it runs: inference in the worker, the rest here, on the worker's CPUs and one thread. The
    transport between the two is no stage, nor is reading the files. search: the nearest 10 in the gallery, exact.
    """
    stages = Stages()
    tensors = np.empty((batch, *spec.input_shape), dtype=np.float32)
    end = time.monotonic() + limit_s
    with on_cpus(cpus):
        for index in range(count):
            chosen = [paths[(index * batch + i) % len(paths)] for i in range(batch)]
            encoded = [read_bytes(path) for path in chosen]
            marks = [time.perf_counter_ns()]
            pixels = [decode_rgb(data, spec.preprocess.decode.exif, "image") for data in encoded]
            marks.append(time.perf_counter_ns())
            for image, tensor in zip(pixels, tensors, strict=True):
                preprocess_pixels(image, spec.preprocess, tensor)
            marks.append(time.perf_counter_ns())
            timing = worker.time(tensors, 1)
            raw = timing.output
            begin = time.perf_counter_ns()
            embeddings = l2_normalize(raw) if spec.normalize_embedding else raw
            middle = time.perf_counter_ns()
            gallery.search(embeddings, NEIGHBOURS, 1)
            finished = time.perf_counter_ns()
            spans = (
                marks[1] - marks[0],
                marks[2] - marks[1],
                int(timing.samples_ns[0]),
                middle - begin,
                finished - middle,
            )
            for name, span in zip(NAMES, spans, strict=True):
                stages.samples_ns[name].append(span)
            stages.timings.append(timing)
            if time.monotonic() > end:
                break
    return stages
