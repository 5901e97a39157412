"""The server beside the library: images per second of 8 clients that send bytes, beside a loaded model over the same
files on the same cores; and the latency of one client, alone and at half of that load. Clients share the cores with the
server. Both take turns; medians of the rounds.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from support.environment import print_machine
from support.models import bundle_of, photos

import edgerecall

CLIENTS = 8
HERE = threading.local()


@contextmanager
def served(bundle: Path, runtime: str) -> Iterator[tuple[str, int]]:
    """Host and port of a server of its own process."""
    command = [sys.executable, "-m", "edgerecall", "serve", bundle, "--runtime", runtime, "--port", "0", "--name", "m"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        host, port = line.split("//")[1].split("/")[0].split(":")
        try:
            yield host, int(port)
        finally:
            process.terminate()


def asked(place: tuple[str, int], image: bytes) -> float:
    """Seconds of a request of one image."""
    if not hasattr(HERE, "connection"):
        HERE.connection = http.client.HTTPConnection(*place)
    tail = struct.pack("<I", len(image)) + image
    given = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(tail)}}
    text = json.dumps({"inputs": [given], "parameters": {"binary_data_output": True}}).encode()
    began = time.perf_counter()
    HERE.connection.request(
        "POST", "/v2/models/m/infer", text + tail, {"Inference-Header-Content-Length": str(len(text))}
    )
    answer = HERE.connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise SystemExit(f"status {answer.status}")
    return time.perf_counter() - began


def paced(place: tuple[str, int], images: list[bytes], rate: float) -> list[float]:
    """Latencies of requests that begin at random times, `rate` of them a second, whatever the others do."""
    gaps = np.random.default_rng(0).exponential(1 / rate, len(images))
    with ThreadPoolExecutor(4 * CLIENTS) as pool:
        jobs = []
        for image, gap in zip(images, gaps, strict=True):
            time.sleep(gap)
            jobs.append(pool.submit(asked, place, image))
        return [job.result() for job in jobs]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", default="MobileNetV3_large_x1_0,ResNet50")
    parser.add_argument("--runtime", default="onnxruntime")
    options = parser.parse_args()
    print_machine()
    paths = [photos(options.images) / f"{number:05d}.jpg" for number in range(options.images)]
    images = [path.read_bytes() for path in paths]
    cores = len(os.sched_getaffinity(0))
    for network in options.networks.split(","):
        bundle = bundle_of(network)
        library: list[float] = []
        server: list[float] = []
        with (
            edgerecall.load(bundle, options.runtime, replicas=cores, batch_size=1) as model,
            served(bundle, options.runtime) as place,
            ThreadPoolExecutor(CLIENTS) as pool,
        ):
            for _ in range(options.rounds + 1):  # the first is for warming up
                began = time.perf_counter()
                model.embed_images(paths)
                library.append(len(paths) / (time.perf_counter() - began))
                began = time.perf_counter()
                list(pool.map(lambda image: asked(place, image), images))
                server.append(len(images) / (time.perf_counter() - began))
            rates = [statistics.median(values[1:]) for values in (library, server)]
            single = [1000 * asked(place, image) for image in images[:100]]
            loaded = [1000 * seconds for seconds in paced(place, images, rates[1] / 2)]
        p50, p99 = np.percentile(single, 50), np.percentile(loaded, 99)
        print(
            f"{network}, {options.runtime}: library {rates[0]:.1f} images/s, server {rates[1]:.1f} with {CLIENTS}"
            f" clients, {rates[1] / rates[0]:.2f} of it; one client p50 {p50:.1f} ms; at half load p99 {p99:.1f} ms,"
            f" {p99 / p50:.1f} times as long",
            flush=True,
        )


if __name__ == "__main__":
    main()
