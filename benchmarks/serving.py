"""The server beside the library: images per second of 8 clients that send bytes, by REST and by gRPC, beside a loaded
model over the same images on the same cores, as files or as bytes, whichever is faster. First with the clients on half
of the cores (which should be no second threads of the others) and all else on the others: what the server itself costs;
then all on all of them, with the latency of one client, alone and at half of that load. All take turns; medians of the
rounds.

Half of that load begins evenly, as most load generators have it, then at random times, as MLPerf's does; "the queue
alone": p99 of the same arrivals, in service times, by replicas that always take the same time.

--loadgen SECONDS: then MLPerf LoadGen's Offline and, at `--load` of what that gave, Server. --soak SECONDS: then 80 %
of gRPC's load for so long, by both protocols, and the server's memory meanwhile. --kserve PYTHON: beside KServe's
server, which that Python has (see `support/kserve_model.py`).
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from support.environment import print_machine
from support.models import bundle_of, photos
from support.serving_clients import CLIENTS, WAYS, Place, Sent, all_by, arrivals, ask, paced, queued, request_of, served
from support.serving_kserve import beside_kserve
from support.serving_loadgen import scenarios

import edgerecall
from edgerecall.runtimes.embed.model import EmbeddingModel


def processor_s(process: int) -> float:
    """Seconds that a process has computed."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(process: int) -> float:
    """What a process holds, in MB."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@dataclass
class Timed:
    """Images per second and processor time of an image of rounds."""

    rates: list[float]
    milliseconds: list[float]

    @property
    def rate(self) -> float:
        return statistics.median(self.rates[1:])  # the first is for warming up

    @property
    def told(self) -> str:
        return f"{self.rate:.1f} images/s ({statistics.median(self.milliseconds[1:]):.2f} ms of processor an image)"


def timed(into: Timed, process: int, count: int, work: Callable[[], object]) -> None:
    """One round."""
    spent, began = processor_s(process), time.perf_counter()
    work()
    into.rates.append(count / (time.perf_counter() - began))
    into.milliseconds.append(1000 * (processor_s(process) - spent) / count)


def soak(place: Place, images: list[Sent], rate: float, seconds: float) -> None:
    """The server's memory in ten parts of the time."""
    ways = list(WAYS.values())
    print(f"  soak at {rate:.1f} images/s, {seconds:g} s: {memory_mb(place.process):.1f} MB before", flush=True)
    for part in range(10):
        count = max(int(rate * seconds / 10), 1)
        given = [images[at % len(images)] for at in range(count)]
        found = paced(ways[part % 2], place, given, rate)
        p50, p99 = (1000 * np.percentile(found, q) for q in (50, 99))
        print(f"  {memory_mb(place.process):.1f} MB, p50 {p50:.1f} ms, p99 {p99:.1f} ms of {count}", flush=True)


@contextmanager
def beside(
    bundle: Path, runtime: str, ours: Sequence[int], theirs: Sequence[int]
) -> Iterator[tuple[EmbeddingModel, Place]]:
    """A loaded model and a server, both with a replica for each of our cores; clients have theirs."""
    os.sched_setaffinity(0, ours)
    with edgerecall.load(bundle, runtime, replicas=len(ours), batch_size=1) as model, served(bundle, runtime) as place:
        os.sched_setaffinity(0, theirs)
        yield model, place


def submitted(model: EmbeddingModel, files: Sequence[bytes]) -> None:
    """Embeds bytes, on as many threads as there are replicas."""
    for answer in [model.submit(file) for file in files]:
        answer.result()


def compared(
    model: EmbeddingModel, place: Place, paths: Sequence[Path], files: Sequence[bytes], images: list[Sent], rounds: int
) -> dict[str, float]:
    """Prints, and gives, images per second by each protocol beside the library, which has the server's cores."""
    libraries = {"files": partial(model.embed_images, paths), "bytes": partial(submitted, model, files)}
    local, servers = {name: Timed([], []) for name in libraries}, {name: Timed([], []) for name in WAYS}
    ours, theirs = os.sched_getaffinity(place.process), os.sched_getaffinity(0)
    for _ in range(rounds + 1):
        os.sched_setaffinity(0, ours)
        for name, work in libraries.items():
            timed(local[name], os.getpid(), len(paths), work)
        os.sched_setaffinity(0, theirs)
        for name, way in WAYS.items():
            timed(servers[name], place.process, len(images), partial(all_by, way, place, images))
    for name, library in local.items():
        print(f"  library, {name}: {library.told}", flush=True)
    library = max(local.values(), key=lambda one: one.rate)
    for name, server in servers.items():
        pairs = zip(server.rates[1:], library.rates[1:], strict=True)
        ratio = statistics.median(served_rate / rate for served_rate, rate in pairs)
        print(
            f"  {name}: {server.told} with {CLIENTS} clients, {ratio:.2f} of the library's (target: at least 0.9)",
            flush=True,
        )
    return {name: server.rate for name, server in servers.items()}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", default="MobileNetV3_large_x1_0,ResNet50")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--seconds", type=float, default=20, help="of requests at half load, for p99")
    parser.add_argument("--soak", type=float, default=0)
    parser.add_argument("--loadgen", type=float, default=0)
    parser.add_argument("--load", type=float, default=0.5)
    parser.add_argument("--kserve", default="", help="a Python that has kserve, onnxruntime and pillow")
    options = parser.parse_args()
    print_machine()
    paths = [photos(options.images) / f"{number:05d}.jpg" for number in range(options.images)]
    files = [path.read_bytes() for path in paths]
    images = [request_of(file) for file in files]
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2
    for network in options.networks.split(","):
        bundle = bundle_of(network)
        if half:
            print(f"{network}, {options.runtime}: clients on {len(cores) - half} cores, the rest on {half}", flush=True)
            with beside(bundle, options.runtime, cores[:half], cores[half:]) as (model, place):
                compared(model, place, paths, files, images, options.rounds)
        print(f"{network}, {options.runtime}: all on {len(cores)} cores", flush=True)
        with beside(bundle, options.runtime, cores, cores) as (model, place):
            rates = compared(model, place, paths, files, images, options.rounds)
            for name, way in WAYS.items():
                single = [1000 * ask(way, place, image) for image in images[:100]]
                count = max(int(options.seconds * rates[name] / 2), 1)
                given = [images[at % len(images)] for at in range(count)]
                p50 = np.percentile(single, 50)
                print(f"  {name}: one client p50 {p50:.1f} ms; at half load, of {count} requests each", flush=True)
                for evenly in (True, False):
                    loaded = [1000 * seconds for seconds in paced(way, place, given, rates[name] / 2, evenly)]
                    p99 = np.percentile(loaded, 99)
                    ideal = queued(arrivals(rates[name] / 2, count, evenly), len(cores) / rates[name], len(cores))
                    alone = np.percentile(ideal, 99) * rates[name] / len(cores)
                    print(
                        f"    begun {'evenly' if evenly else 'at random times'}: p99 {p99:.1f} ms,"
                        f" {p99 / p50:.1f} times (target: at most 3; by the queue alone {alone:.1f})",
                        flush=True,
                    )
            if options.kserve:
                onnx = next((bundle / "onnx").glob("*.onnx"))
                beside_kserve(options.kserve, onnx, place, files, len(cores), options.rounds)
            if options.loadgen:
                scenarios(model, place, files, images, options.loadgen, options.load)
            if options.soak:
                soak(place, images, 0.8 * rates["gRPC"], options.soak)


if __name__ == "__main__":
    main()
