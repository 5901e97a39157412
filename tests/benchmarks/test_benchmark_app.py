"""The parser of `benchmark_app`'s output, on recorded outputs: it prints microseconds below 1 ms."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

# OpenVINO 2026.4, the same command on a network at 224 and at 96 pixels.
MILLISECONDS = """\
[ INFO ] First inference took 16.75 ms
[Step 11/11] Dumping statistics report
[ INFO ] Execution Devices:['CPU']
[ INFO ] Count:            286 iterations
[ INFO ] Duration:         2003.74 ms
[ INFO ] Latency:
[ INFO ]    Median:        8.52 ms
[ INFO ]    Average:       6.93 ms
[ INFO ]    Min:           4.40 ms
[ INFO ]    Max:           10.67 ms
[ INFO ] Throughput:   142.73 FPS
"""
MICROSECONDS = """\
[ INFO ] First inference took 4.45 ms
[Step 11/11] Dumping statistics report
[ INFO ] Execution Devices:['CPU']
[ INFO ] Count:            1977 iterations
[ INFO ] Duration:         2000.34 ms
[ INFO ] Latency:
[ INFO ]    Median:        596.27 us
[ INFO ]    Average:       950.42 us
[ INFO ]    Min:           571.79 us
[ INFO ]    Max:           8788.30 us
[ INFO ] Throughput:   988.33 FPS
"""


@pytest.fixture(scope="module")
def app(root: Path) -> ModuleType:
    """`benchmarks/` is no package: its files are run by path."""
    spec = importlib.util.spec_from_file_location("benchmark_app", root / "benchmarks" / "support" / "benchmark_app.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        (MILLISECONDS, 8.52),
        (MICROSECONDS, 0.59627),
        (MILLISECONDS.replace("8.52 ms", "1.25 s"), 1250.0),
        (MILLISECONDS.replace("8.52 ms", "12 ms"), 12.0),
    ],
)
def test_the_unit_is_read(app: ModuleType, text: str, ms: float) -> None:
    assert app.median_ms(text) == pytest.approx(ms)


@pytest.mark.parametrize(
    "text", ["", MILLISECONDS.replace(" ms", " ns"), MILLISECONDS + MICROSECONDS], ids=["none", "unit", "two"]
)
def test_what_cannot_be_read_is_shown(app: ModuleType, text: str) -> None:
    with pytest.raises(SystemExit, match="benchmark_app: expected one line 'Median"):
        app.median_ms(text)
