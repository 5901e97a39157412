"""What a shell or a folder can do to a command: closed streams, odd names, numbers that are far too large."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from edgerecall.runtimes.bundle.bundle import Bundle

Run = Callable[..., subprocess.CompletedProcess[str]]
Make = Callable[..., Bundle]
Predict = Callable[..., subprocess.CompletedProcess[str]]
OneLine = Callable[..., None]


@pytest.mark.parametrize(("closed", "code"), [(">&-", 2), ("2>&-", 0), ("<&-", 0), ("<&- >&- 2>&-", 2)])
def test_closed_streams(fake_bundle: Make, closed: str, code: int) -> None:
    command = f'"{sys.executable}" -m edgerecall verify "{fake_bundle().root}" {closed}'
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert result.returncode == code, result.stderr
    if closed == ">&-":
        assert result.stderr == "edgerecall: standard output is closed: expected a terminal, a file or a pipe\n"
    if code == 0:
        assert "ok" in result.stdout


@pytest.fixture
def predict(edgerecall: Run, fake_bundle: Make, data: Path, tmp_path: Path) -> Predict:
    """`predict` over a folder with two good images and one of the name given, with more options."""
    root = fake_bundle().root
    config = tmp_path / "rec.yaml"
    preprocess = [{"ResizeImage": {"size": [64, 64], "backend": "pil"}}, {"NormalizeImage": {}}, {"ToCHWImage": None}]
    config.write_text(
        yaml.safe_dump(
            {
                "Global": {"infer_imgs": "x", "rec_inference_model_dir": str(root), "runtime": "fake"},
                "RecPreProcess": {"transform_ops": preprocess},
            }
        )
    )

    def run(name: bytes, *more: object) -> subprocess.CompletedProcess[str]:
        folder = tmp_path / "images"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        good = sorted(data.glob("*_final/*.JPG"))[:3]
        for source, target in zip(good, (b"a.jpg", b"b.jpg", name), strict=True):
            shutil.copy(source, os.fsencode(folder) + b"/" + target)
        return edgerecall("predict", "-c", config, "-o", f"Global.infer_imgs={folder}", *more)

    return run


def test_names_that_a_format_cannot_hold(predict: Predict, tmp_path: Path, one_line: OneLine) -> None:
    """Said before anything is embedded, and nothing is half-written."""
    output = tmp_path / "gallery"
    for kind, name, sentence in (
        ("npy", b"x\ny.jpg", "its name has a line break"),
        ("npy", b"x\xff.jpg", "its name is not UTF-8"),
        ("parquet", b"x\xff.jpg", "its name is not UTF-8"),
    ):
        one_line(predict(name, "--format", kind, "--output", output), 2, sentence)
        assert not list(tmp_path.glob("gallery*"))
    for name in (b"x\ny.jpg", b"x\xff.jpg"):
        result = predict(name, "--format", "jsonl", "--output", output)
        assert result.returncode == 0 and len(output.read_text().splitlines()) == 3, result.stderr


def test_an_image_is_not_written_over(predict: Predict, tmp_path: Path, one_line: OneLine) -> None:
    image = tmp_path / "images" / "b.jpg"
    one_line(predict(b"c.jpg", "--format", "jsonl", "--output", image), 2, "is one of the images")
    assert image.read_bytes()[:2] == b"\xff\xd8"


def test_counts_that_are_far_too_large(
    predict: Predict,
    fake_bundle: Make,
    data: Path,
    edgerecall: Run,
    one_line: OneLine,
) -> None:
    for key in ("cpu_num_threads", "batch_size", "gpu_mem"):
        for value in (0, -1, 10**9):
            one_line(predict(b"c.jpg", "-o", f"Global.{key}={value}"), 2, f"Global.{key}", "got")
    assert predict(b"c.jpg", "-o", "Global.cpu_num_threads=1000").returncode == 0  # no more than there are CPUs
    root = fake_bundle("other").root
    for option in ("--threads", "--batch", "--samples", "--rounds", "--together", "--limit"):
        for value in (0, -1, 10**9):
            if (option, value) == ("--limit", 10**9):  # all images
                continue
            result = edgerecall("bench", root, "--images", data, "--runtime", "fake", option, value)
            assert result.returncode == 2 and "Traceback" not in result.stderr, (option, value, result.stdout)
