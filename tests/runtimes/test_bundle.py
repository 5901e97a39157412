"""Bundles: a changed byte, a missing file, a newer format are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgerecall.runtimes.bundle import Bundle
from edgerecall.runtimes.errors import BundleError

Make = Callable[..., Bundle]


def test_roundtrip(fake_bundle: Make) -> None:
    bundle = fake_bundle()
    assert Bundle.open(bundle.root).manifest == bundle.manifest
    paths, tensors, embeddings = bundle.golden()
    assert len(paths) == 4 and tensors.shape == (4, 3, 64, 64) and embeddings.shape == (4, 16)


@pytest.mark.parametrize("name", ["fake/model.json", "golden/golden.npz", "golden/00.jpg"])
def test_one_changed_byte(fake_bundle: Make, name: str) -> None:
    path = fake_bundle().root / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"changed since export"):
        Bundle.open(path.parent.parent)


def edit(bundle: Bundle, change: Callable[[dict], object]) -> Path:  # type: ignore[type-arg]
    path = bundle.root / "bundle.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return bundle.root


def test_newer_format(fake_bundle: Make) -> None:
    root = edit(fake_bundle(), lambda data: data.update(format_version=2))
    with pytest.raises(BundleError, match="reads bundle format 1, got 2: update EdgeRecall"):
        Bundle.open(root)


def test_file_paths_stay_inside(fake_bundle: Make) -> None:
    root = edit(fake_bundle(), lambda data: data["artifacts"][0]["files"][0].update(path="../../etc/passwd"))
    with pytest.raises(BundleError, match="path"):
        Bundle.open(root)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(golden_images=[]),
        lambda data: data.update(golden_images=["../../../etc/passwd"]),
        lambda data: data.update(golden_images=["golden/99.jpg"]),
        lambda data: data["golden"].pop(),  # golden.npz would be read without a hash
    ],
)
def test_golden_files_must_be_hashed_and_inside(fake_bundle: Make, change: Callable[[dict], object]) -> None:  # type: ignore[type-arg]
    root = edit(fake_bundle(), change)
    with pytest.raises(BundleError, match="golden"):
        Bundle.open(root)


def test_golden_vectors_must_fit(fake_bundle: Make) -> None:
    root = edit(fake_bundle(), lambda data: data["golden_images"].pop())
    with pytest.raises(BundleError, match="expected shapes"):
        Bundle.open(root).golden()


def test_missing_file_torn_manifest_no_bundle(fake_bundle: Make, tmp_path: Path) -> None:
    root = fake_bundle().root
    (root / "fake" / "model.json").unlink()
    with pytest.raises(BundleError, match="missing from the bundle"):
        Bundle.open(root)
    (root / "bundle.json").write_text('{"format_version": 1,')
    with pytest.raises(BundleError, match="not readable as JSON"):
        Bundle.open(root)
    with pytest.raises(BundleError, match=r"found no bundle\.json"):
        Bundle.open(tmp_path)


def test_no_artifact_for_a_runtime(fake_bundle: Make) -> None:
    with pytest.raises(BundleError, match=r"no artifact for runtime 'lite' on .*; it has fake"):
        fake_bundle().artifact("lite")
