"""Golden vectors from outside: dtype, shape and size are checked before anything is run on them."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgerecall.bench.measure.image_set import ImageSet
from edgerecall.bench.measure.runner import run_bench
from edgerecall.bench.schema.options import BenchOptions
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.bundle.manifest import EMBEDDINGS, TENSORS, describe_file
from edgerecall.runtimes.core.errors import BundleError, InputError, UnsoundModel
from edgerecall.runtimes.embed.model import load

Make = Callable[..., Bundle]


def resealed(bundle: Bundle, name: str, array: Any) -> Bundle:
    """With another array in a file of golden vectors, hashed anew."""
    path = bundle.root / name
    if isinstance(array, bytes):
        path.write_bytes(array)
    else:
        np.save(path, array, allow_pickle=False)
    golden = tuple(describe_file(bundle.root, bundle.root / file.path, file.role) for file in bundle.manifest.golden)
    Bundle(bundle.root, bundle.manifest.model_copy(update={"golden": golden})).save()
    return Bundle.open(bundle.root)


@pytest.mark.parametrize("name", [TENSORS, EMBEDDINGS])
@pytest.mark.parametrize("dtype", [">f4", "<f8", "<f2", "<c8", "<i4", "<U8"])
def test_other_numbers_than_float32(fake_bundle: Make, name: str, dtype: str) -> None:
    bundle = fake_bundle()
    changed = resealed(bundle, name, np.load(bundle.root / name).astype(dtype))
    with pytest.raises(BundleError, match="expected little-endian float32 of shape"):
        changed.golden()


def test_a_header_that_promises_more_than_the_file_holds(fake_bundle: Make) -> None:
    bundle = fake_bundle()
    text = (bundle.root / TENSORS).read_bytes()
    huge = text[:128].replace(b"(4, 3, 64, 64), }       ", b"(4, 3, 99999, 99999), } ")
    assert len(huge) == 128 and huge != text[:128]
    for data in (huge + text[128:], text[:100] + b"[" * 28 + text[128:], text[:-4], text[:60], b""):
        with pytest.raises(BundleError, match="expected float32 of shape"):
            resealed(bundle, TENSORS, data).golden()


def old_bundle(root: Path, folder: Path, content: bytes) -> Bundle:
    """The bundle of format 1 with another `golden.npz`, hashed anew."""
    shutil.copytree(root / "tests" / "golden" / "bundle-format-1", folder, dirs_exist_ok=True)
    path = folder / "golden" / "golden.npz"
    path.write_bytes(content)
    data = json.loads((folder / "bundle.json").read_text())
    (entry,) = (file for file in data["golden"] if file["path"] == "golden/golden.npz")
    entry.update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    (folder / "bundle.json").write_text(json.dumps(data))
    return Bundle.open(folder)


def packed(**arrays: Any) -> bytes:
    """An `.npz` file of arrays; bytes are a member as it is."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            inner = io.BytesIO()
            np.save(inner, array, allow_pickle=False) if not isinstance(array, bytes) else inner.write(array)
            archive.writestr(f"{name}.npy", inner.getvalue())
    return stream.getvalue()


@pytest.mark.parametrize("dtype", [">f4", "<f8", "<f2", "<c8", "<i4", "<U8"])
def test_the_vectors_of_format_1(root: Path, tmp_path: Path, dtype: str) -> None:
    """Their dtype is checked as well, and what they would take in memory before they are unpacked."""
    with np.load(root / "tests" / "golden" / "bundle-format-1" / "golden" / "golden.npz") as arrays:
        sound = {name: arrays[name] for name in arrays.files}
    old_bundle(root, tmp_path / "b", packed(**sound)).golden()
    assert sorted(sound) == ["embeddings", "tensors"]
    for name, array in sound.items():
        with pytest.raises(BundleError, match=r"expected .*float32 of shape"):
            old_bundle(root, tmp_path / "b", packed(**{**sound, name: array.astype(dtype)})).golden()
        huge = b"\x93NUMPY\x01\x00" + bytes(1 << 26)  # 64 MB of zeros, some kB in the archive
        with pytest.raises(BundleError, match="takes 67108872 bytes"):
            old_bundle(root, tmp_path / "b", packed(**{**sound, name: huge})).golden()
    with pytest.raises(BundleError, match="expected float32 of shape"):
        old_bundle(root, tmp_path / "b", packed(tensors=sound["tensors"])).golden()


def test_several_arrays_and_another_order(fake_bundle: Make, tmp_path: Path) -> None:
    bundle = fake_bundle()
    tensors = np.load(bundle.root / TENSORS)
    np.savez(tmp_path / "several.npz", tensors=tensors)
    with pytest.raises(BundleError, match="got several arrays"):
        resealed(bundle, TENSORS, (tmp_path / "several.npz").read_bytes()).golden()
    _, found, _ = resealed(bundle, TENSORS, np.asfortranarray(tensors)).golden()
    assert found.flags.c_contiguous and (found == tensors).all()


def test_a_model_that_no_training_gives(
    fake_bundle: Make, data: Path, edgerecall: Callable[..., Any], one_line: Callable[..., None]
) -> None:
    """At load, verify and bench alike."""
    bundle = fake_bundle()
    embeddings = np.load(bundle.root / EMBEDDINGS)
    nan = embeddings.copy()
    nan[2, 0] = np.nan
    one = embeddings[:1].repeat(4, 0)
    for array, sentence in ((nan, "image 2 holds NaN"), (embeddings * 0, "is zero"), (one, "one and the same")):
        changed = resealed(bundle, EMBEDDINGS, array)
        with pytest.raises(UnsoundModel, match=f"its golden embeddings: .*{sentence}"):
            load(changed.root, "fake")
        with pytest.raises(UnsoundModel, match=sentence):
            options = BenchOptions(runtimes=("fake",), samples=4, rounds=2)
            run_bench(changed, ImageSet.find(data), options, "tests", lambda what, share: None)
        one_line(edgerecall("verify", changed.root), 1, sentence)


def test_a_manifest_that_is_too_large_or_too_deep(
    fake_bundle: Make, edgerecall: Callable[..., Any], one_line: Callable[..., None]
) -> None:
    bundle = fake_bundle()
    path = bundle.root / "bundle.json"
    path.write_text("[" * 100_000 + "]" * 100_000)
    one_line(edgerecall("verify", bundle.root), 2, "nested too deeply")
    with path.open("wb") as stream:
        stream.truncate(17 << 20)
    one_line(edgerecall("verify", bundle.root), 2, "it is larger than")


def test_numbers_that_no_float32_holds() -> None:
    """The core and Python accept the same."""
    from pydantic import ValidationError

    from edgerecall.runtimes import _native
    from edgerecall.runtimes.preprocess.ops import Decode, Normalize, Preprocess, ResizeExact

    text = Preprocess(ops=(Decode(), ResizeExact(height=8, width=8), Normalize())).model_dump_json()
    for old, new, fine in (
        ("0.00392156862745098", "1e30", True),
        ("0.00392156862745098", "1e31", False),
        ("0.00392156862745098", "1e300", False),
        ("0.00392156862745098", "NaN", False),
        ("0.229", "1e-37", True),
        ("0.229", "1e-38", False),
        ("0.229", "1e-300", False),
        ("0.406", "-1e31", False),
    ):
        assert old in text
        changed = text.replace(old, new)
        if fine:
            Preprocess.model_validate_json(changed)
            _native.Preprocess(changed)
            continue
        with pytest.raises(ValidationError):
            Preprocess.model_validate_json(changed)
        with pytest.raises(InputError):
            _native.Preprocess(changed)


def test_no_artifact_is_no_proof(
    fake_bundle: Make, edgerecall: Callable[..., Any], one_line: Callable[..., None]
) -> None:
    bundle = fake_bundle()
    Bundle(bundle.root, bundle.manifest.model_copy(update={"artifacts": ()})).save()
    one_line(edgerecall("verify", bundle.root), 2, "expected artifacts, it has none")


def test_artifacts_for_other_machines_are_called_unchecked(fake_bundle: Make, edgerecall: Callable[..., Any]) -> None:
    bundle = fake_bundle()
    elsewhere = bundle.manifest.artifacts[0].model_copy(update={"name": "fake-arm", "targets": ("armv7l",)})
    artifacts = (*bundle.manifest.artifacts, elsewhere)
    Bundle(bundle.root, bundle.manifest.model_copy(update={"artifacts": artifacts})).save()
    result = edgerecall("verify", bundle.root)
    assert result.returncode == 0, result.stderr
    assert "fake-arm" in result.stdout and "unchecked: it runs on armv7l" in " ".join(result.stdout.split())
