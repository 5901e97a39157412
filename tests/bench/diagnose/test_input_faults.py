"""What applications do to their input, by name; pairs of it; and what nobody knows is called unknown, never a graph."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgerecall.bench.diagnose.sides import SideRequest
from edgerecall.bench.diagnose.why import Answer, why
from edgerecall.runtimes.bundle.bundle import Bundle

Make = Callable[..., Bundle]
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
PAIRS = int(os.environ.get("EDGERECALL_PAIRS", "20"))
SIDE, SHORT = 64, 72


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """An oblong JPEG with structure at all scales."""
    rng = np.random.default_rng(3)
    layers = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize((260, 180)), dtype=float)
        for n in (4, 11, 40, 150)
    ]
    path = tmp_path / "photo.jpg"
    Image.fromarray(np.mean(layers, axis=0).clip(0, 255).astype(np.uint8)).save(path, quality=92)
    return path


def application(image: Image.Image, **faults: Any) -> np.ndarray:
    """An application's own preprocessing, written with Pillow and NumPy alone; `faults` say what it does wrong."""
    image = image.convert("RGB")
    if power := faults.get("gamma"):
        image = image.point([round(255 * (i / 255) ** power) for i in range(256)] * 3)
    if faults.get("gray"):
        image = image.convert("L").convert("RGB")
    if size := faults.get("resized first"):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    width, height = image.size
    if faults.get("squashed"):
        image = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    else:
        scale = SHORT / min(width, height)
        size = (SHORT, int(height * scale)) if width <= height else (int(width * scale), SHORT)
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=faults.get("reducing_gap"))
        left, top = round((image.width - SIDE) / 2), round((image.height - SIDE) / 2)
        image = image.crop((left, top, left + SIDE, top + SIDE))
    if faults.get("flipped"):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    order = [1, 0, 2]
    mean = MEAN[order] if faults.get("mean swapped") else MEAN
    std = STD[order] if faults.get("std swapped") else STD
    values = (np.asarray(image, dtype=np.float32) / np.float32(255) - mean.astype(np.float32)) / std.astype(np.float32)
    tensor = values.transpose(2, 0, 1)
    if faults.get("HWC"):
        tensor = values.reshape(3, SIDE, SIDE)
    if faults.get("fp16"):
        tensor = tensor.astype(np.float16)
    return np.ascontiguousarray(tensor, dtype=np.float32)


def reopened(path: Path, **faults: Any) -> Image.Image:
    """The file, encoded again or decoded at a reduced size where asked."""
    image = Image.open(path)
    if side := faults.get("draft"):
        image.draft("RGB", (side, side))
    if quality := faults.get("quality"):
        out = io.BytesIO()
        image.convert("RGB").save(out, "JPEG", quality=quality)
        image = Image.open(io.BytesIO(out.getvalue()))
    return image


def ask(bundle: Bundle, photo: Path, tmp_path: Path, **faults: Any) -> Answer:
    np.save(tmp_path / "fed.npy", application(reopened(photo, **faults), **faults))
    return why(bundle, photo, SideRequest("fake"), SideRequest(f"tensor={tmp_path / 'fed.npy'}"))


FAULTS: dict[str, dict[str, Any]] = {
    "gamma 0.455, before the resize": {"gamma": 1 / 2.2},
    "resized with Pillow's reducing_gap=1": {"reducing_gap": 1.0},
    "decoded at a reduced size (Pillow's draft, 64 x 64)": {"draft": 64},
    "mean of R and G swapped": {"mean swapped": True},
    "std of R and G swapped": {"std swapped": True},
    "mean and std of R and G swapped": {"mean swapped": True, "std swapped": True},
    "resized twice, first to 256 x 256 by pil bilinear": {"resized first": 256},
    "encoded again as JPEG of quality 75": {"quality": 75},
    "flipped left to right": {"flipped": True},
    "HWC instead of CHW": {"HWC": True},
    "gray instead of colour, before the resize": {"gray": True},
    "rounded to float16": {"fp16": True},
    "squashed to 64 x 64 without keeping the aspect, by pil bilinear": {"squashed": True},
}


def test_the_application_without_faults(fake_bundle: Make, photo: Path, tmp_path: Path) -> None:
    answer = ask(fake_bundle(), photo, tmp_path)
    assert not answer.differs and answer.cause.startswith("no difference"), answer.cause


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(name: str, fake_bundle: Make, photo: Path, tmp_path: Path) -> None:
    answer = ask(fake_bundle(), photo, tmp_path, **FAULTS[name])
    assert answer.differs and f": {name})" in answer.cause and answer.cause.startswith("input differs"), answer.cause


def pairs(count: int) -> list[tuple[str, str]]:
    """Of different faults, that can be in one application."""
    rng = np.random.default_rng(0)
    names, found = list(FAULTS), []
    while len(found) < count:
        a, b = (names[i] for i in sorted(rng.permutation(len(names))[:2]))
        together = {**FAULTS[a], **FAULTS[b]}
        apart = len(together) == len(FAULTS[a]) + len(FAULTS[b])
        if apart and (a, b) not in found and not ("squashed" in together and "reducing_gap" in together):
            found.append((a, b))
    return found


@pytest.mark.parametrize(("a", "b"), pairs(PAIRS))
def test_two_faults_are_named_or_said_to_be_unknown(
    a: str, b: str, fake_bundle: Make, photo: Path, tmp_path: Path
) -> None:
    answer = ask(fake_bundle(), photo, tmp_path, **FAULTS[a], **FAULTS[b])
    assert answer.differs and "graph" not in answer.cause, answer.cause
    named = answer.cause.startswith("input differs") and all(name in answer.cause for name in (a, b))
    unknown = answer.cause.startswith("input tensor differs, from no cause known here; nearest: ")
    assert named or unknown, answer.cause


def test_what_nobody_knows(fake_bundle: Make, photo: Path, tmp_path: Path) -> None:
    """An emboss filter, say."""
    from PIL import ImageFilter

    odd = application(Image.open(photo).convert("RGB").filter(ImageFilter.EMBOSS))
    np.save(tmp_path / "odd.npy", odd)
    answer = why(fake_bundle(), photo, SideRequest("fake"), SideRequest(f"tensor={tmp_path / 'odd.npy'}"))
    assert answer.cause.startswith("input tensor differs, from no cause known here; nearest: "), answer.cause
    assert ", off by " in answer.cause and "graph" not in answer.cause
