"""A gallery on disk beside one in memory: opened, searched exactly, and what int8 ranked by float16 keeps of float32's
answers. Medians of interleaved rounds; the files are in the page cache.

Embeddings are drawn like those of photographs (see `compressed.py`).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compressed import drawn
from support.environment import print_machine

import edgerecall

K, PART = 10, 100_000
OPEN = "import sys, time; from edgerecall import Gallery; t = time.perf_counter(); g = Gallery.open(sys.argv[1]);"


def timed(calls: dict[str, Callable[[], Any]], rounds: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Medians in ms of calls that take turns, and what the last gave."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    found: dict[str, Any] = {}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            found[name] = call()
            seconds[name].append(time.perf_counter() - began)
    return {name: 1000 * statistics.median(values) for name, values in seconds.items()}, found


def written(folder: Path, storage: Any, rows: Any) -> float:
    """Adds all rows in parts; the seconds that it took."""
    began = time.perf_counter()
    with edgerecall.Gallery.create(folder, rows.shape[1], storage) as gallery:
        for start in range(0, len(rows), PART):
            part = rows[start : start + PART]
            gallery.add([f"photo/{start + number}.jpg" for number in range(len(part))], part)
    return time.perf_counter() - began


def approximate(folder: Path, kind: str, queries: Any, threads: int, rounds: int) -> None:
    """An index of the gallery: what it costs, what it keeps of exact search of other queries, and how fast it is."""
    with edgerecall.Gallery.open(folder, writable=True) as gallery:
        began = time.perf_counter()
        recall = gallery.build_index(kind, threads)
        seconds = time.perf_counter() - began
        exact = gallery.search(queries, K, threads, exact=True)
        found = gallery.search(queries, K, threads)
        kept = [len({m.id for m in a} & {m.id for m in b}) / K for a, b in zip(found, exact, strict=True)]
        entry = gallery.manifest.index
        assert entry is not None
        print(
            f"{'':8} {kind}: made in {seconds:.1f} s, {entry.file.bytes / 1e6:.0f} MB, looks at {entry.effort},"
            f" recall@{K} {recall:.4f} (stored), {statistics.mean(kept):.4f} of {len(queries)} other queries"
        )
        for count in (1, 64):
            wanted = queries[:count]
            calls = {
                "exact": lambda wanted=wanted: gallery.search(wanted, K, threads, exact=True),
                "index": lambda wanted=wanted: gallery.search(wanted, K, threads),
            }
            times, _ = timed(calls, rounds)
            print(
                f"{'':8} {count:3} queries: exact {times['exact']:8.2f} ms, index {times['index']:8.2f} ms,"
                f" {times['exact'] / times['index']:.1f} times as fast"
            )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--storages", default="float32,float16,int8,binary")
    parser.add_argument("--index", default="", help="comma list of kinds: approximate search beside exact")
    options = parser.parse_args()
    print_machine()
    threads = len(os.sched_getaffinity(0))
    rows, _, queries, _ = drawn(options.rows, options.dim)
    print(f"{options.rows} x {options.dim}, top {K}, {threads} threads")
    exact = edgerecall.Gallery(options.dim)
    exact.add(rows)
    expected = exact.search(queries, K, threads)[0]
    del exact
    for storage in options.storages.split(","):
        memory = edgerecall.Gallery(options.dim, storage)
        memory.add(rows)
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "gallery"
            seconds = written(folder, storage, rows)
            opening = [
                float(subprocess.check_output([sys.executable, "-c", OPEN + "print(time.perf_counter() - t)", folder]))
                for _ in range(3)
            ]
            with edgerecall.Gallery.open(folder) as disk:
                print(
                    f"{storage:8} {disk.bytes / 1e6:6.0f} MB on disk, {len(disk.segments)} files,"
                    f" written in {seconds:.1f} s, opened in {1000 * statistics.median(opening):.1f} ms"
                )
                same = disk.search_rows(queries, K, threads)[0] == expected
                print(f"{'':8} top {K} as in float32: {same.mean():.4f} of the places")
                for count in (1, 64):
                    wanted = queries[:count]
                    calls = {
                        "memory": lambda gallery=memory, wanted=wanted: gallery.search(wanted, K, threads),
                        "disk": lambda gallery=disk, wanted=wanted: gallery.search_rows(wanted, K, threads),
                    }
                    times, _ = timed(calls, options.rounds)
                    print(
                        f"{'':8} {count:3} queries: memory {times['memory']:8.1f} ms, disk {times['disk']:8.1f} ms,"
                        f" {times['disk'] / times['memory']:.2f} times as long"
                    )
            for kind in filter(None, options.index.split(",")):
                approximate(folder, kind, queries, threads, options.rounds)


if __name__ == "__main__":
    main()
