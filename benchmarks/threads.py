"""Images per second of one model under many callers, beside a folder through the same replicas, in turns.

`stream` decodes and embeds a folder on as many threads as the model has replicas: the throughput that the machine
gives. The other rows are 16 threads that call `embed_bytes` with a batch of images each time, or `submit` one image at
a time and wait for its embedding, on the same model. Ratios are of medians over the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from support.environment import print_machine
from support.models import bundle_of

import edgerecall

THREADS = 16
CORES = len(os.sched_getaffinity(0))


def make_images(folder: Path, count: int) -> list[Path]:
    """JPEG files of 300 x 400 pixels."""
    random = np.random.default_rng(0)
    paths = []
    for index in range(count):
        small = Image.fromarray(random.integers(0, 256, (12, 9, 3), dtype=np.uint8))
        paths.append(folder / f"{index:04d}.jpg")
        small.resize((300, 400), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def measure(backbone: str, runtime: str, batch: int, paths: list[Path], rounds: int) -> None:
    """Prints one network's line."""
    data = [path.read_bytes() for path in paths]
    parts = [data[start : start + batch] for start in range(0, len(data), batch)]
    with (
        edgerecall.load(bundle_of(backbone), runtime, batch_size=batch, replicas=CORES) as model,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        ways: dict[str, Callable[[], object]] = {
            "stream": lambda: [None for _ in model.stream(paths)],
            "embed_bytes": lambda: list(pool.map(model.embed_bytes, parts)),
            "submit": lambda: list(pool.map(lambda image: model.submit(image).result(), data)),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for round_index in range(rounds + 1):
            for name, way in ways.items():
                begin = time.perf_counter()
                way()
                if round_index:  # the first warms up
                    rates[name].append(len(paths) / (time.perf_counter() - begin))
    found = {name: statistics.median(values) for name, values in rates.items()}
    told = ", ".join(f"{name} {rate:.0f}/s" for name, rate in found.items())
    ratios = ", ".join(f"{name} {found[name] / found['stream']:.3f}" for name in ("embed_bytes", "submit"))
    print(f"{backbone}, {runtime}, batch {batch}: {told}; over stream: {ratios} (target: at least 1)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        paths = make_images(Path(folder), options.images)
        for backbone in ("MobileNetV3_small_x1_0", "MobileNetV3_large_x1_0"):
            for runtime in ("onnxruntime", "openvino"):
                measure(backbone, runtime, 8, paths, options.rounds)


if __name__ == "__main__":
    main()
