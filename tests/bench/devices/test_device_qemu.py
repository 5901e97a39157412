"""Rows of an emulated 64-bit ARM machine beside the host's: what `edgerecall cross` built, run by QEMU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgerecall.bench.measure.image_set import ImageSet
from edgerecall.bench.measure.runner import run_bench
from edgerecall.bench.schema.options import BenchOptions
from edgerecall.runtimes.bundle.bundle import Bundle

pytestmark = pytest.mark.device


def test_one_table_with_the_emulated_rows(cross: Callable[[str, str], Path], real_bundle: Path, data: Path) -> None:
    """A trained bundle and labelled images: recall is the host's to the last digit."""
    archive = cross("linux-aarch64", "onnxruntime")
    options = BenchOptions(
        runtimes=("onnxruntime",), samples=4, rounds=2, devices=("qemu:aarch64",), device_programs=(str(archive),)
    )
    result = run_bench(Bundle.open(real_bundle), ImageSet.find(data), options, "tests", lambda what, share: None)
    here, there = result.rows
    assert (there.status, there.reason, result.exit_code) == ("ok", None, 0)
    assert there.emulated and there.device == "qemu:aarch64" and there.name == "cpp-onnxruntime @ qemu:aarch64"
    assert there.delta_recall1 == 0.0 and there.recall1 == here.recall1
    assert there.golden_max_error is not None and there.golden_max_error < 1e-4
    assert result.cross_recall is not None and len(result.cross_recall.names) == 2
    assert result.speeds == []
