"""The images of a run as tensors: the same from the file, without room for it, and when the disk fills up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgerecall.bench.measure import tensor_cache
from edgerecall.bench.measure.tensor_cache import TensorCache
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.preprocess.pipeline import preprocess_file


class FullDisk:
    """A temporary file that has no space left, at the write or at the flush of the last buffer."""

    def __init__(self, where: str) -> None:
        self.where, self.closed = where, False

    def write(self, data: Any) -> None:
        if self.where == "write":
            raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("case", ["cached", "no room", "full at the write", "full at the flush"])
def test_the_same_tensors_whatever_happens(
    fake_bundle: Callable[..., Bundle], data: Path, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocess = fake_bundle().spec.preprocess
    paths = sorted(data.glob("*_final/*.JPG"))[:19]
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    made: list[FullDisk] = []
    if case.startswith("full"):
        monkeypatch.setattr(
            tensor_cache.tempfile, "TemporaryFile", lambda: made.append(FullDisk(case.split()[-1])) or made[-1]
        )
    read: list[int] = []
    honest = tensor_cache.stream_tensors
    monkeypatch.setattr(tensor_cache, "stream_tensors", lambda *given: read.append(1) or honest(*given))
    shares: list[float] = []
    cache = TensorCache([*paths[:7], bad, *paths[7:]], preprocess, shares.append, 0 if case == "no room" else 1 << 30)
    assert cache.kept.tolist() == [*range(7), *range(8, 20)] and len(cache.bad) == 1 and shares[-1] == 19 / 20
    expected = np.stack([preprocess_file(path, preprocess) for path in paths])
    for size in (1, 8, 50):
        parts = list(cache.batches(size))
        assert [len(part) for part in parts] == [size] * (19 // size) + ([19 % size] if 19 % size else [])
        assert (np.concatenate(parts) == expected).all()
    assert len(read) == (1 if case == "cached" else 4)  # once, or anew each time
    assert all(file.closed for file in made)
    cache.close()
    cache.close()
