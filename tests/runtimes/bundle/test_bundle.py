"""Bundles: a changed byte, a missing file, a newer format are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgerecall.runtimes.bundle import bundle as bundle_module
from edgerecall.runtimes.bundle import manifest as manifest_module
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.bundle.manifest import MANIFEST, Artifact, Recipe, describe_file, json_schema
from edgerecall.runtimes.bundle.upgrade import upgrade
from edgerecall.runtimes.core.errors import BundleError

Make = Callable[..., Bundle]


def test_roundtrip(fake_bundle: Make) -> None:
    bundle = fake_bundle()
    assert Bundle.open(bundle.root).manifest == bundle.manifest
    paths, tensors, embeddings = bundle.golden()
    assert len(paths) == 4 and tensors.shape == (4, 3, 64, 64) and embeddings.shape == (4, 16)


NAMES = ["fake/model.json", "golden/tensors.npy", "golden/embeddings.npy", "golden/00.jpg"]


@pytest.mark.parametrize("name", NAMES)
def test_one_changed_byte(fake_bundle: Make, name: str) -> None:
    """What is used is hashed, and what is not costs nothing; `check` hashes all."""
    path = fake_bundle(noise=0.0).root / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    bundle = Bundle.open(path.parent.parent)
    model, golden = (lambda: bundle.files(bundle.artifact("fake"))), bundle.golden
    sound, damaged = (golden, model) if name.startswith("fake") else (model, golden)
    sound()
    for use in (damaged, bundle.check):
        with pytest.raises(BundleError, match=r"changed since export"):
            use()


@pytest.mark.parametrize("name", NAMES)
def test_another_size(fake_bundle: Make, name: str) -> None:
    path = fake_bundle(noise=0.0).root / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(BundleError, match=r"changed since export"):
        Bundle.open(path.parent.parent)


def test_a_file_is_hashed_once(fake_bundle: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = fake_bundle()
    hashed: list[str] = []
    honest = bundle_module.sha256
    monkeypatch.setattr(bundle_module, "sha256", lambda path: hashed.append(path.name) or honest(path))
    for _ in range(2):
        bundle.files(bundle.artifact("fake"))
    assert hashed == ["model.json"]
    bundle.check()
    assert sorted(hashed) == sorted(path.name for path in bundle.root.rglob("*.*") if path.name != "bundle.json")


def edit(bundle: Bundle, change: Callable[[dict], object]) -> Path:  # type: ignore[type-arg]
    path = bundle.root / "bundle.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return bundle.root


def test_newer_format(fake_bundle: Make) -> None:
    root = edit(fake_bundle(), lambda data: data.update(format_version=3))
    with pytest.raises(BundleError, match="reads bundle formats 1 and 2, got 3: update EdgeRecall"):
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
        lambda data: data["golden"].pop(),  # vectors would be read without a hash
    ],
)
def test_golden_files_must_be_hashed_and_inside(fake_bundle: Make, change: Callable[[dict], object]) -> None:  # type: ignore[type-arg]
    root = edit(fake_bundle(), change)
    with pytest.raises(BundleError, match="golden"):
        Bundle.open(root)


def test_golden_vectors_must_fit(fake_bundle: Make) -> None:
    root = edit(fake_bundle(), lambda data: data["golden_images"].pop())
    with pytest.raises(BundleError, match=r"expected little-endian float32 of shape \(3, 3, 64, 64\), got <f4"):
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


def test_the_schema_file_is_the_model_s(root: Path) -> None:
    """CMake and other readers take it from there: write it by `python -m edgerecall.runtimes.bundle.manifest`."""
    assert (root / "runtimes" / "bundle" / "bundle.schema.json").read_text() == json_schema()


def test_a_bundle_of_format_1_opens_and_is_upgraded(root: Path, tmp_path: Path) -> None:
    """Made by the first release's export."""
    old = tmp_path / "bundle"
    shutil.copytree(root / "tests" / "golden" / "bundle-format-1", old)
    manifest = json.loads((old / MANIFEST).read_text())
    assert manifest["format_version"] == 1 and {one["precision"] for one in manifest["artifacts"]} == {"fp32"}
    first = Bundle.open(old)
    assert {one.quantisation for one in first.manifest.artifacts} == {"fp32"}
    paths, tensors, embeddings = first.golden()
    assert upgrade(first)
    second = Bundle.open(old)
    second.check()
    assert second.manifest.format_version == 2 and not upgrade(second)
    (old / ".upgrade").mkdir()  # as left by one that was interrupted at its end
    (old / "golden" / "golden.npz").write_bytes(b"old")
    assert not upgrade(second)
    assert second.manifest.artifacts == first.manifest.artifacts
    again = second.golden()
    assert again[0] == paths and (again[1] == tensors).all() and (again[2] == embeddings).all()
    there = {path.relative_to(old).as_posix() for path in old.rglob("*") if path.is_file()}
    assert there == {MANIFEST, *(file.path for file in second.all_files())}


def with_two_artifacts(bundle: Bundle, quantisation: str = "int8", **behaviour: object) -> Bundle:
    """A second artifact of the fake, in another quantisation."""
    model = bundle.root / "fake-2" / "model.json"
    model.parent.mkdir()
    model.write_text(json.dumps(behaviour))
    recipe = Recipe(scheme="by hand", tool="tests", version="1", calibration=("0" * 64,), kept=("head",))
    second = Artifact(
        name="fake-2",
        runtime="fake",
        targets=("any",),
        quantisation=quantisation,  # type: ignore[arg-type]
        recipe=recipe,
        files=(describe_file(bundle.root, model, "model"),),
    )
    manifest = bundle.manifest.model_copy(update={"artifacts": (second, *bundle.manifest.artifacts)})
    Bundle(bundle.root, manifest).save()
    return Bundle.open(bundle.root)


def test_artifacts_are_chosen_by_quantisation(fake_bundle: Make) -> None:
    bundle = with_two_artifacts(fake_bundle())
    assert bundle.quantisations("fake") == ("int8", "fp32")
    assert bundle.artifact("fake").name == "fake"
    assert bundle.artifact("fake", quantisation="int8").recipe == bundle.manifest.artifacts[0].recipe != None  # noqa: E711
    with pytest.raises(BundleError, match=r"no fp16 artifact .*it has fake-2 \(int8\), fake \(fp32\)"):
        bundle.artifact("fake", quantisation="fp16")


def test_a_runtime_refuses_what_it_does_not_take(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "tests" / "golden" / "bundle", tmp_path / "b")
    path = tmp_path / "b" / MANIFEST
    data = json.loads(path.read_text())
    for artifact in data["artifacts"]:
        artifact["quantisation"] = "int8"
    path.write_text(json.dumps(data))
    with pytest.raises(BundleError, match=r"runtime 'paddle' takes fp32 artifacts, paddle-pdmodel is int8"):
        Bundle.open(tmp_path / "b").artifact("paddle")
    with pytest.raises(BundleError, match=r"runtime 'cpp-lite' takes fp32 artifacts, lite-.* is int8"):
        Bundle.open(tmp_path / "b").artifact("cpp-lite")
    assert Bundle.open(tmp_path / "b").quantisations("cpp-lite") == ()
    assert Bundle.open(tmp_path / "b").quantisations("onnxruntime") == ("int8",)


def test_artifacts_are_chosen_by_machine(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(root / "tests" / "golden" / "bundle")
    for machine, name in (("x86_64", "lite-x86"), ("aarch64", "lite-armv8"), ("armv7l", "lite-armv7")):
        monkeypatch.setattr(bundle_module, "host_target", lambda machine=machine: machine)
        assert bundle.artifact("lite").name == name and bundle.artifact("onnxruntime").name == "onnx"
    monkeypatch.setattr(bundle_module, "host_target", lambda: "riscv64")
    with pytest.raises(
        BundleError, match="no artifact for runtime 'lite' on riscv64; lite-x86 is for x86_64; lite-arm"
    ):
        bundle.artifact("lite")


@pytest.mark.parametrize(
    ("machine", "vnni", "there"), [("x86_64", True, True), ("x86_64", False, False), ("aarch64", False, True)]
)
def test_eight_bits_only_where_they_do_not_overflow(
    fake_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch, machine: str, vnni: bool, there: bool
) -> None:
    bundle = fake_bundle()
    (plain,) = bundle.manifest.artifacts
    int8 = plain.model_copy(update={"name": "int8", "quantisation": "int8", "targets": ("x86_64+vnni", "aarch64")})
    bundle = Bundle(bundle.root, bundle.manifest.model_copy(update={"artifacts": (plain, int8)}))
    monkeypatch.setattr(bundle_module, "host_target", lambda: machine)
    monkeypatch.setattr(manifest_module, "has_vnni", lambda: vnni)
    assert ("int8" in {one.name for one in bundle.artifacts_for("fake")}) is there
    if not there:
        with pytest.raises(BundleError, match=r"no int8 artifact .* on x86_64; int8 is for x86_64\+vnni, aarch64"):
            bundle.artifact("fake", quantisation="int8")


def test_no_artifact_for_a_runtime(fake_bundle: Make) -> None:
    with pytest.raises(BundleError, match=r"no artifact for runtime 'lite' on .*; it has fake"):
        fake_bundle().artifact("lite")
