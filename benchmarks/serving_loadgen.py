"""The server by MLPerf LoadGen over the network: Offline (all images at once) and Server (one by one at random times,
at `--load` of what Offline did), by REST and by gRPC, from 8 connections offline and 64 else; beside the library in
this process (bytes in) and its runtime alone (preprocessed tensors in). Everything shares the same cores.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from serving import CLIENTS, by_grpc, by_rest, request_of, served
from support.environment import print_machine
from support.models import bundle_of, photos

import edgerecall
from edgerecall.bench.measure.loadgen import LoadSettings, read_logs, test_settings
from edgerecall.runtimes.preprocess.pipeline import preprocess_batch
from edgerecall.runtimes.worker.load_test import load_loadgen, run_queries

Work = Callable[[int], object]


@contextmanager
def issuing(work: Work, threads: int) -> Iterator[Callable[[Sequence[Any]], None]]:
    """What LoadGen gives its queries to: so many threads, each with a sample at a time. The first failure is raised at
    the end.
    """
    loadgen = load_loadgen()
    failures: list[BaseException] = []

    def answer(query: int, index: int) -> None:
        try:
            work(index)
        except BaseException as error:  # LoadGen would wait for it for ever
            failures.append(error)
        loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(query, 0, 0)])

    with ThreadPoolExecutor(threads) as pool:

        def issue(queries: Sequence[Any]) -> None:
            for query in queries:
                pool.submit(answer, query.id, query.index)

        yield issue
    if failures:
        raise failures[0]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--network", default="MobileNetV3_large_x1_0")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--load", type=float, default=0.5)
    options = parser.parse_args()
    print_machine()
    folder = photos(options.images)
    files = [(folder / f"{number:05d}.jpg").read_bytes() for number in range(options.images)]
    requests = [request_of(file) for file in files]
    cores = len(os.sched_getaffinity(0))
    bundle = bundle_of(options.network)
    with (
        edgerecall.load(bundle, options.runtime, replicas=cores, batch_size=1) as model,
        served(bundle, options.runtime) as place,
    ):
        tensors = np.empty((len(files), *model.spec.input_shape), np.float32)
        assert not any(preprocess_batch(files, model.spec.preprocess, tensors))
        systems: dict[str, tuple[Work, int, int]] = {  # what answers; threads offline and else
            "runtime": (lambda at: model.embed_tensors(tensors[at : at + 1]), cores, cores),
            "library": (lambda at: model.embed_bytes([files[at]]), cores, cores),
            "REST": (lambda at: by_rest(place, requests[at]), CLIENTS, 8 * CLIENTS),
            "gRPC": (lambda at: by_grpc(place, requests[at]), CLIENTS, 8 * CLIENTS),
        }
        rates: dict[str, float] = {}
        for scenario in ("Offline", "Server"):
            for name, (work, offline, server) in systems.items():
                with (
                    tempfile.TemporaryDirectory() as logs,
                    ThreadPoolExecutor(CLIENTS) as pool,
                    issuing(work, offline if scenario == "Offline" else server) as issue,
                ):
                    list(pool.map(work, range(100)))  # warming up
                    rate = rates.get(name, 300.0)
                    load = LoadSettings((scenario,), options.seconds, options.load * rate)
                    settings = test_settings(scenario, 1e9 / rate, rate, load)
                    run_queries(issue, len(files), scenario, settings, logs)
                    found = read_logs(Path(logs), scenario, settings)
                rates.setdefault(name, found.samples_per_s or 0)
                latency = (
                    ""
                    if scenario == "Offline"
                    else f", p50 {found.latency_p50_ms:.1f} ms, p99 {found.latency_p99_ms:.1f} ms"
                )
                told = "VALID" if found.valid else f"INVALID ({found.problem})"
                print(
                    f"{options.network}, {options.runtime}, {scenario}, {name}: {found.samples_per_s:.1f} images/s"
                    f"{latency}, {found.queries} queries, {told}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
