"""`predict` over 500 JPEGs: beside the bound that its parts set, and a loop as the reference's predict_rec has it.

The bound: all cores, over the core-seconds that an image takes to preprocess and to embed, both measured in this run on
one thread. The plain loop decodes with OpenCV, preprocesses by numpy and infers a batch, one after the other, its
runtime with a thread per core. All take turns; figures are medians over the rounds; loading is left out for all.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from models import bundle_of, photos
from numpy.typing import NDArray
from PIL import Image

from edgerecall.runtimes.bundle import Bundle
from edgerecall.runtimes.model import EmbeddingModel, l2_normalize, open_lanes, open_predictor
from edgerecall.runtimes.predictor import Predictor, RunOptions
from edgerecall.runtimes.preprocess import preprocess_batch
from edgerecall.runtimes.rec import RecConfig, open_rec_model

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


def core_seconds(action: Callable[[], object], images: int) -> float:
    """CPU time of an image, on whatever threads the action uses."""
    begin = time.process_time()
    action()
    return (time.process_time() - begin) / images


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
    preprocess = bundle.spec.preprocess
    tensors = np.empty((len(paths), *bundle.spec.input_shape), np.float32)
    with (
        open_rec_model(config, len(paths)) as ours,
        open_predictor(bundle, runtime, RunOptions(threads=CORES)) as plain,
        EmbeddingModel(bundle.spec, open_lanes(bundle, runtime, RunOptions()), batch) as single,
    ):

        def preprocess_only() -> None:
            for start in range(0, len(paths), batch):
                preprocess_batch(paths[start : start + batch], preprocess, tensors[start : start + batch])

        def model_only() -> None:
            for start in range(0, len(paths), batch):
                single.embed_tensors(tensors[start : start + batch])

        rates: dict[str, list[float]] = {"predict": [], "plain": [], "bound": []}
        for round_index in range(rounds + 1):
            begin = time.perf_counter()
            mine = np.concatenate([rows for _, rows in ours.stream(paths)])
            middle = time.perf_counter()
            time.sleep(PAUSE_S)
            second = time.perf_counter()
            theirs = plain_loop(plain, paths, batch)
            end = time.perf_counter()
            time.sleep(PAUSE_S)
            cost = core_seconds(preprocess_only, len(paths)) + core_seconds(model_only, len(paths))
            if round_index:  # the first one warms up
                rates["predict"].append(len(paths) / (middle - begin))
                rates["plain"].append(len(paths) / (end - second))
                rates["bound"].append(CORES / cost)
    found = {name: statistics.median(values) for name, values in rates.items()}
    ratios = [
        statistics.median(a / b for a, b in zip(rates["predict"], rates[other], strict=True))
        for other in ("bound", "plain")
    ]
    alike = float((mine * theirs).sum(axis=1).min())
    print(
        f"{backbone}, {runtime}, batch {batch}, {CORES} cores: predict {found['predict']:.1f} images/s, bound"
        f" {found['bound']:.1f}, plain loop {found['plain']:.1f}: {ratios[0]:.3f} of the bound (asked: 0.95),"
        f" {ratios[1]:.2f} times the loop (asked: 1.3 large, 1.8 small); lowest cosine {alike:.6f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runtime", default="onnxruntime,openvino,paddle")
    parser.add_argument("--batch", default="1,8")
    options = parser.parse_args()
    paths = sorted(photos(500).glob("*.jpg"))
    for backbone in ("MobileNetV3_large_x1_0", "MobileNetV3_small_x1_0"):
        for runtime in options.runtime.split(","):
            for batch in map(int, options.batch.split(",")):
                measure(backbone, runtime, batch, paths, options.rounds)


if __name__ == "__main__":
    main()
