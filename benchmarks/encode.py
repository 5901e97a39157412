"""Evaluation's encoder (Paddle Inference) beside the dygraph forward, images per second on CPU, in one run.

Contenders take turns; figures are medians of the rounds, every CPU of this process for both. The embeddings of both are
compared. The networks are the reference's ResNet50 at 224 pixels and the demo's at 96.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import paddle
from numpy.typing import NDArray
from support.environment import print_machine

from edgerecall.train.config.training import load_config
from edgerecall.train.encoder import encoder
from edgerecall.train.setup import build_network

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
Rows = NDArray[np.float32]


def measure(name: str, batch: int, rounds: int) -> None:
    """Prints one network's line."""
    config = load_config(CONFIGS / name, ["Global.device=cpu", "Arch.Backbone.pretrained=False"])
    network = build_network(config)
    network.eval()
    images = np.random.default_rng(0).standard_normal((batch, *config.Global.image_shape)).astype(np.float32)

    def dygraph(tensors: Rows) -> Rows:
        with paddle.no_grad():
            return np.asarray(network(paddle.to_tensor(tensors)).numpy())

    began = time.perf_counter()
    with encoder(config, network.state_dict()) as inference:
        ready = time.perf_counter() - began
        functions: dict[str, Callable[[Rows], Rows]] = {"dygraph": dygraph, "inference": inference}
        seconds: dict[str, list[float]] = {key: [] for key in functions}
        results = {}
        for _ in range(rounds + 1):
            for key, function in functions.items():
                begin = time.perf_counter()
                results[key] = function(images)
                seconds[key].append(time.perf_counter() - begin)
    rates = {key: batch / statistics.median(values[1:]) for key, values in seconds.items()}
    error = np.abs(results["dygraph"] - results["inference"]).max() / np.abs(results["dygraph"]).max()
    print(
        f"{config.Arch.Backbone.name}, batch {batch}: "
        + ", ".join(f"{key} {rate:.1f} images/s" for key, rate in rates.items())
        + f"; ratio {rates['inference'] / rates['dygraph']:.2f} (target: at least 4), largest relative difference"
        f" {error:.1e}, ready after {ready:.1f} s"
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    print_machine()
    paddle.set_device("cpu")
    print(f"paddle {paddle.__version__}")
    for name in ("xbm_resnet50.yaml", "demo.yaml"):
        measure(name, options.batch, options.rounds)


if __name__ == "__main__":
    main()
