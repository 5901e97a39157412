"""`predict` over 500 JPEGs: beside the bounds that its parts set, and a loop as the reference's predict_rec has it.

A bound: all cores, over the core-seconds that an image takes to preprocess and to embed. It is measured twice in each
round: with one core at work and the others idle ("alone"), and with every core at work on the same part ("busy"). Cores
that share a cache, a memory bus, a clock or, as two hardware threads, one core are slower together: then only the
second can be reached. Both are CPU time, on the replicas and with the memory that `predict` uses, so that other
processes disturb them little; they do disturb `predict`'s images per second. Its own CPU time over that of its busy
parts is what it adds to them; what its share of the bound lacks beyond that is time in which a core of it waited.
The plain loop decodes with OpenCV, preprocesses by numpy and infers a batch, one after the other, its runtime with a
thread per core. All take turns; figures are medians over the rounds; loading is left out for all.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image
from support.environment import print_machine
from support.models import bundle_of, photos

from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.embed.model import EmbeddingModel, l2_normalize
from edgerecall.runtimes.embed.predict_config import RecConfig, open_rec_model
from edgerecall.runtimes.embed.replicas import open_predictor
from edgerecall.runtimes.predictor.interface import Predictor, RunOptions
from edgerecall.runtimes.preprocess.pipeline import preprocess_batch
from edgerecall.runtimes.worker.client import WorkerPredictor

CORES = len(os.sched_getaffinity(0))
MEAN, STD = (np.asarray(values, np.float32) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
PAUSE_S = 0.3  # some runtimes' threads spin on for 0.2 s
Rows = NDArray[np.float32]


def plain_tensor(path: Path) -> Rows:
    """What the bundle's spec says, by the libraries and steps of the reference's deployment script."""
    image = cv2.imread(str(path))[:, :, ::-1]
    height, width = image.shape[:2]
    scale = 256 / min(height, width)
    size = (int(width * scale), int(height * scale))
    image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    top, left = (image.shape[0] - 224) // 2, (image.shape[1] - 224) // 2
    image = image[top : top + 224, left : left + 224]
    return np.asarray(((image.astype(np.float32) * np.float32(1 / 255) - MEAN) / STD).transpose(2, 0, 1))


def plain_loop(predictor: Predictor, paths: list[Path], batch: int) -> Rows:
    """Decode, preprocess, infer, one after the other."""
    rows = []
    for start in range(0, len(paths), batch):
        tensors = np.ascontiguousarray(np.stack([plain_tensor(path) for path in paths[start : start + batch]]))
        rows.append(l2_normalize(predictor.embed(tensors)))
    return np.concatenate(rows)


class Parts:
    """What `predict` does to an image, part by part: replica `i` is predictor `i` and memory for one chunk."""

    def __init__(self, model: EmbeddingModel, paths: list[Path], batch: int) -> None:
        self.model, self.batch, self.replicas = model, batch, model.replicas
        chunk = model.chunk(len(paths))
        self.chunks = [paths[start : start + chunk] for start in range(0, len(paths), chunk)]
        self.images = len(paths)
        self.memory = [np.empty((chunk, *model.spec.input_shape), np.float32) for _ in range(self.replicas)]

    def preprocess(self, replica: int) -> float:
        """CPU seconds of this thread for all images."""
        begin = time.thread_time()
        for paths in self.chunks:
            preprocess_batch(paths, self.model.spec.preprocess, self.memory[replica][: len(paths)])
        return time.thread_time() - begin

    def embed(self, replica: int) -> float:
        """CPU seconds for as many images; of the worker where the replica has one, without the transport to it."""
        predictor, batches = self.model.pool.predictors[replica], -(-self.images // self.batch)
        starts = range(0, len(self.memory[replica]), self.batch)
        tensors = [self.memory[replica][start : start + self.batch] for start in starts]
        if isinstance(predictor, WorkerPredictor):
            return predictor.time(tensors[0], batches).cpu_ns / 1e9
        begin = time.thread_time()
        for index in range(batches):
            l2_normalize(predictor.embed(tensors[index % len(tensors)]))
        return time.thread_time() - begin

    def cpu_seconds(self) -> float:
        """CPU time so far of this process and its workers."""
        pids = [predictor.pid for predictor in self.model.pool.predictors if isinstance(predictor, WorkerPredictor)]
        times = [psutil.Process(pid).cpu_times() for pid in pids]
        return time.process_time() + sum(found.user + found.system for found in times)

    def core_seconds(self, replicas: int) -> float:
        """CPU seconds of an image through both parts, with that many replicas at work at the same time."""
        total = 0.0
        for part in (self.preprocess, self.embed):
            with ThreadPoolExecutor(replicas) as pool:
                total += sum(pool.map(part, range(replicas)))
        return total / (replicas * self.images)


def measure(backbone: str, runtime: str, batch: int, paths: list[Path], rounds: int) -> None:
    """Prints one network's line."""
    bundle = Bundle.open(bundle_of(backbone))
    settings = {
        "infer_imgs": paths[0].parent,
        "rec_inference_model_dir": bundle.root,
        "runtime": runtime,
        "batch_size": batch,
        "cpu_num_threads": CORES,
    }
    config = RecConfig.model_validate({"Global": settings})
    with (
        open_rec_model(config, len(paths)) as ours,
        open_predictor(bundle, runtime, RunOptions(threads=CORES)) as plain,
    ):
        parts = Parts(ours, paths, batch)
        actions: dict[str, Callable[[], Rows | float]] = {
            "predict": lambda: np.concatenate([rows for _, rows in ours.stream(paths)]),
            "plain": lambda: plain_loop(plain, paths, batch),
            "alone": lambda: parts.core_seconds(1),
            "busy": lambda: parts.core_seconds(parts.replicas),
        }
        results: dict[str, Rows | float] = {}
        rates: dict[str, list[float]] = {name: [] for name in (*actions, "own")}
        for round_index in range(rounds + 1):
            for name, action in actions.items():
                begin, cpu_begin = time.perf_counter(), parts.cpu_seconds()
                result = results[name] = action()
                seconds, cpu = time.perf_counter() - begin, parts.cpu_seconds() - cpu_begin
                time.sleep(PAUSE_S)
                if round_index:  # the first one warms up
                    rates[name].append(CORES / result if isinstance(result, float) else len(paths) / seconds)
                    if name == "predict":
                        rates["own"].append(CORES * len(paths) / cpu)
    found = {name: statistics.median(values) for name, values in rates.items()}

    def ratio(one: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(rates[one], rates[other], strict=True))

    alike = float((np.asarray(results["predict"]) * np.asarray(results["plain"])).sum(axis=1).min())
    print(
        f"{backbone}, {runtime}, batch {batch}, {CORES} cores: predict {found['predict']:.1f} images/s,"
        f" {ratio('predict', 'busy'):.3f} of the bound with all cores busy, {found['busy']:.1f} (target: 0.95),"
        f" {ratio('predict', 'alone'):.3f} of the bound of a core alone, {found['alone']:.1f}"
        f" (cores together run at {ratio('busy', 'alone'):.3f}); own CPU time {ratio('busy', 'own'):.3f} times the busy"
        " parts';"
        f" plain loop {found['plain']:.1f}: {ratio('predict', 'plain'):.2f} times (target: 1.3 large, 1.8 small);"
        f" lowest cosine {alike:.6f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runtime", default="onnxruntime,openvino,paddle")
    parser.add_argument("--batch", default="1,8")
    options = parser.parse_args()
    print_machine()
    paths = sorted(photos(500).glob("*.jpg"))
    for backbone in ("MobileNetV3_large_x1_0", "MobileNetV3_small_x1_0"):
        for runtime in options.runtime.split(","):
            for batch in map(int, options.batch.split(",")):
                measure(backbone, runtime, batch, paths, options.rounds)


if __name__ == "__main__":
    main()
