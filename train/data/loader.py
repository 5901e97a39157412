"""Loading: decoding and transforming a few batches ahead, the same batches whatever the timing.

Worker processes write into shared memory. They are started anew (not forked), import no training framework, and end by
themselves when the process that trains is gone.
"""

from __future__ import annotations

import ctypes
import logging
import math
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtimes.core.errors import EdgeRecallError, ImageError, InputError
from ...runtimes.preprocess.image_list import ImageList
from ...runtimes.preprocess.images import load_rgb
from .augment import Augmentation

logger = logging.getLogger(__name__)
AHEAD = 3
REPLACEMENTS = 20
STOPPING = (signal.SIGINT, signal.SIGTERM)
Draw = tuple[int, int, NDArray[np.int64]]  # iteration, place of the first image in the joined batch, list indices


@dataclass(frozen=True)
class Batch:
    """images float32 `(B, 3, H, W)`, valid until the next batch is asked for; labels int64 `(B,)`; indices int64
    `(B,)` into the list.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    indices: NDArray[np.int64]


class ImageMaker:
    """Turns list indices into augmented images. Another image of its class stands in for a bad one."""

    def __init__(self, images: ImageList, augment: Augmentation, exif: str, seed: int) -> None:
        self.images, self.augment, self.exif, self.seed = images, augment, exif, seed

    def image(self, index: int, step: int, place: int) -> tuple[NDArray[np.float32], int, list[tuple[int, str]]]:
        """One image, the index it is of, and what was bad on the way; random by (seed, step, place) alone."""
        rng = np.random.default_rng((self.seed, step, place))
        bad: list[tuple[int, str]] = []
        for _ in range(REPLACEMENTS):
            path = self.images.file(index)
            try:
                return self.augment(load_rgb(path, self.exif), rng), index, bad
            except ImageError as error:
                told = str(error)
                bad.append((index, told if told.startswith(str(path)) else f"{path}: {told}"))
                index = int(rng.choice(np.flatnonzero(self.images.labels == self.images.labels[index])))
        raise InputError(
            f"class {int(self.images.labels[index])}: no readable image found in {REPLACEMENTS} tries;"
            " remove the class from the list"
        )

    def fill(
        self, out: NDArray[np.float32], indices: NDArray[np.int64], step: int, place: int
    ) -> tuple[list[int], list[tuple[int, str]]]:
        """Images into `out`, float32 `(n, 3, H, W)`; the indices they are of, and what was bad."""
        used: list[int] = []
        bad: list[tuple[int, str]] = []
        for row, index in enumerate(indices):
            out[row], found, problems = self.image(int(index), step, place + row)
            used.append(found)
            bad.extend(problems)
        return used, bad


@dataclass
class _Worker:
    """What a worker process keeps."""

    maker: ImageMaker
    slots: NDArray[np.float32]


_worker: _Worker


def _start_worker(maker: ImageMaker, memory: Any, shape: tuple[int, ...], lifeline: Any) -> None:
    global _worker
    for number in STOPPING:  # a terminal, a launcher or a service manager signals the whole group
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()
    _worker = _Worker(maker, np.frombuffer(memory, dtype=np.float32).reshape(shape))


def _end_with_parent(lifeline: Any) -> None:
    lifeline.poll(None)  # readable only when the other end is closed: the parent is gone
    os._exit(1)


def _fill_slot(slot: int, first: int, indices: NDArray[np.int64], step: int, place: int) -> Any:
    out = _worker.slots[slot, first : first + len(indices)]
    return _worker.maker.fill(out, indices, step, place)


class TrainLoader:
    """Batches from draws. A bad image is reported once. workers: processes; 0 loads in a thread of this one."""

    def __init__(self, maker: ImageMaker, batch_size: int, workers: int) -> None:
        self.maker, self.workers = maker, workers
        self.shape = (AHEAD, batch_size, *maker.augment.shape)
        self.bad: set[int] = set()

    def batches(self, draws: Iterable[Draw]) -> Generator[Batch, None, None]:
        """Batches in the order of `draws`."""
        executor, lifeline, slots = self._open()
        waiting: deque[tuple[int, list[Future[Any]]]] = deque()
        source = iter(draws)
        number = 0
        try:
            while True:
                while len(waiting) < AHEAD and (draw := next(source, None)) is not None:
                    waiting.append((number % AHEAD, self._submit(executor, slots, number % AHEAD, draw)))
                    number += 1
                if not waiting:
                    return
                # The slot is refilled only after the consumer asks for the next batch.
                slot, futures = waiting[0]
                results = [future.result() for future in futures]
                used = np.array([index for indices, _ in results for index in indices], dtype=np.int64)
                self._report([problem for _, problems in results for problem in problems])
                yield Batch(slots[slot, : len(used)], self.maker.images.labels[used], used)
                waiting.popleft()
        except BrokenProcessPool as error:
            lifeline.close()  # the pool ends the others by a signal that they ignore
            raise EdgeRecallError(
                "a loading process died, often for want of memory: lower DataLoader.Train.loader.num_workers"
            ) from error
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
            if lifeline is not None:
                lifeline.close()

    def _open(self) -> tuple[Executor, Any, NDArray[np.float32]]:
        if not self.workers:
            return ThreadPoolExecutor(1, thread_name_prefix="edgerecall-loader"), None, np.empty(self.shape, np.float32)
        context = multiprocessing.get_context("spawn")
        memory: Any = context.RawArray(ctypes.c_float, math.prod(self.shape))
        theirs, ours = context.Pipe(duplex=False)
        arguments = (self.maker, memory, self.shape, theirs)
        pool = ProcessPoolExecutor(self.workers, context, _start_worker, arguments)
        return pool, ours, np.frombuffer(memory, dtype=np.float32).reshape(self.shape)

    def _submit(self, executor: Executor, slots: NDArray[np.float32], slot: int, draw: Draw) -> list[Future[Any]]:
        step, place, indices = draw
        if not self.workers:
            return [executor.submit(self.maker.fill, slots[slot], indices, step, place)]
        share = math.ceil(len(indices) / (2 * self.workers))
        firsts = range(0, len(indices), share)
        # Workers are started by the first submissions: with these blocked, so that they never reach them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, set(STOPPING))
        try:
            return [
                executor.submit(_fill_slot, slot, first, indices[first : first + share], step, place + first)
                for first in firsts
            ]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _report(self, problems: list[tuple[int, str]]) -> None:
        for index, message in problems:
            if index not in self.bad:
                self.bad.add(index)
                logger.warning("bad image, replaced by another of its class: %s", message)
