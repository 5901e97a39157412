"""The server's answers to Triton's own client, over HTTP and gRPC: bit for bit a loaded model's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
from served import Client

import edgerecall as package
from edgerecall.runtimes.preprocess.pipeline import preprocess_file


def test_tritonclient(server: Client, data: Path, tmp_path: Path, root: Path, clients: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    paths = [
        Path(shutil.copy(path, folder / f"{number:02d}.jpg"))
        for number, path in enumerate(sorted(data.glob("*_final/*.JPG"))[:36])
    ]
    with package.load(tmp_path / "bundle", runtime="fake", batch_size=1) as model:
        expected = model.embed_images(paths)
        tensors = np.stack([preprocess_file(path, model.spec.preprocess) for path in paths])
    np.save(folder / "tensors.npy", tensors)
    script = root / "tests" / "support" / "servers" / "triton_client.py"
    url = server.url.removeprefix("http://")
    run = subprocess.run(
        [clients / "python", script, url, server.grpc, folder, tmp_path / "out.npz"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    found = np.load(tmp_path / "out.npz")
    order = np.arange(200) % 36
    for name in ("http", "grpc"):
        np.testing.assert_array_equal(found[name], expected[order])
        np.testing.assert_array_equal(found[f"{name}_tensor"], expected)
        assert "no model 'other' here" in str(found[f"{name}_error"])
    np.testing.assert_array_equal(found["compressed"], expected[np.arange(200) % 4])
