"""The server by MLPerf LoadGen over the network: Offline (all images at once, 8 connections) and Server (one by one at
random times, 64 connections), by REST and by gRPC; beside the library in this process (bytes in) and its runtime alone
(preprocessed tensors in). Everything shares the same cores.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgerecall.bench.measure.loadgen import LoadSettings, read_logs, test_settings
from edgerecall.runtimes.embed.model import EmbeddingModel
from edgerecall.runtimes.preprocess.pipeline import preprocess_batch
from edgerecall.runtimes.worker.load_test import load_loadgen, run_queries

from .serving_clients import CLIENTS, WAYS, Place, Sent, ask

Work = Callable[[int], object]


def warmed(pool: ThreadPoolExecutor, threads: int, work: Work, images: int) -> float:
    """Images a second, once every thread has its connection."""
    all_there = threading.Barrier(threads)
    list(pool.map(lambda _: (all_there.wait(), work(0)), range(threads)))
    began = time.perf_counter()
    list(pool.map(work, range(images)))
    return images / (time.perf_counter() - began)


@contextmanager
def issuing(work: Work, pool: ThreadPoolExecutor) -> Iterator[Callable[[Sequence[Any]], None]]:
    """What LoadGen gives its queries to: threads, each with a sample at a time. The first failure is raised."""
    loadgen = load_loadgen()
    failures: list[BaseException] = []

    def answer(query: int, index: int) -> None:
        try:
            work(index)
        except BaseException as error:  # LoadGen would wait for it for ever
            failures.append(error)
        loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(query, 0, 0)])

    def issue(queries: Sequence[Any]) -> None:
        for query in queries:
            pool.submit(answer, query.id, query.index)

    yield issue
    if failures:
        raise failures[0]


def scenarios(
    model: EmbeddingModel, place: Place, files: Sequence[bytes], requests: Sequence[Sent], seconds: float, share: float
) -> None:
    """Prints what LoadGen says of the runtime, the library and the server by both protocols.

    seconds: of each, at least. share: of what a system did offline, that it is asked for in Server.
    """
    tensors = np.empty((len(files), *model.spec.input_shape), np.float32)
    assert not any(preprocess_batch(files, model.spec.preprocess, tensors))
    cores = model.replicas
    systems: dict[str, tuple[Work, int, int]] = {  # what answers; threads offline and else
        "runtime": (lambda at: model.embed_tensors(tensors[at : at + 1]), cores, cores),
        "library": (lambda at: model.embed_bytes([files[at]]), cores, cores),
        "REST": (lambda at: ask(WAYS["REST"], place, requests[at]), CLIENTS, 8 * CLIENTS),
        "gRPC": (lambda at: ask(WAYS["gRPC"], place, requests[at]), CLIENTS, 8 * CLIENTS),
    }
    rates: dict[str, float] = {}
    for scenario in ("Offline", "Server"):
        for name, (work, offline, server) in systems.items():
            threads = offline if scenario == "Offline" else server
            with tempfile.TemporaryDirectory() as logs, ThreadPoolExecutor(threads) as pool:
                rate = warmed(pool, threads, work, min(100, len(files)))
                rate = rates.get(name, rate)
                settings = test_settings(scenario, 1e9 / rate, rate, LoadSettings((scenario,), seconds, share * rate))
                with issuing(work, pool) as issue:
                    run_queries(issue, len(files), scenario, settings, logs)
                found = read_logs(Path(logs), scenario, settings)
            if not found.samples_per_s:
                raise SystemExit(f"LoadGen {scenario}, {name}: no throughput: {found.problem}")
            rates.setdefault(name, found.samples_per_s)
            latency = f"p50 {found.latency_p50_ms:.1f} ms, p99 {found.latency_p99_ms:.1f} ms, {found.queries} queries, "
            told = (latency if scenario == "Server" else "") + (
                "VALID" if found.valid else f"INVALID ({found.problem})"
            )
            print(f"  LoadGen {scenario}, {name}: {found.samples_per_s:.1f} images/s, {told}", flush=True)
