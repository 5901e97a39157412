"""The race as a whole, on the small trained network."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgerecall.bench.measure.image_set import ImageSet
from edgerecall.bench.schema.gates import Gates
from edgerecall.export.quantize.calibration import calibration_files, read_calibration
from edgerecall.export.quantize.recipes import Int8Recipe, RecipeFile
from edgerecall.export.search import race as racing
from edgerecall.export.search.race import Race, RaceOptions, keeping, varied
from edgerecall.export.search.ship import choices, ship
from edgerecall.runtimes.bundle.bundle import Bundle

pytestmark = pytest.mark.runtime
Run = Callable[..., subprocess.CompletedProcess[str]]
LOOSE = Gates(max_recall_drop=1.0, max_map_drop=1.0)


@pytest.fixture(scope="module")
def lists(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training list divided by classes: half to calibrate, half to validate."""
    folder = tmp_path_factory.mktemp("lists")
    lines = (data / "train_list.txt").read_text().splitlines()
    labels = sorted({int(line.rsplit(None, 1)[1]) for line in lines})
    half = set(labels[: len(labels) // 2])
    for name, wanted in (("train_list.txt", True), ("val_list.txt", False)):
        kept = [line for line in lines if (int(line.rsplit(None, 1)[1]) in half) is wanted]
        (folder / name).write_text("\n".join(kept) + "\n")
    return folder


def test_every_heat_and_what_ships(
    real_bundle: Path, data: Path, lists: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(racing, "SAMPLES", 20)
    bundle = Bundle.open(real_bundle)
    calibration = read_calibration(bundle, calibration_files(data, lists / "train_list.txt"), 36, print)
    images = ImageSet.find(data, lists / "val_list.txt")
    options = RaceOptions(("onnx-int8",), RecipeFile(), LOOSE)
    seen: list[str] = []

    def race() -> Race:
        seen.clear()
        made = Race(bundle, calibration, images, options, tmp_path / "race", "tests", lambda what, _: seen.append(what))
        made.run()
        return made

    first = race()
    titles = [one.name for one in first.entries if one.artifact]
    assert titles[:3] == ["as given", "int8 activations", "minmax"]
    assert titles[3:5] == ["first and last in float", "depthwise in float"]
    assert len(titles) == 7 and all(title.endswith("most sensitive in float") for title in titles[5:])
    # So small a network, hardly trained, may fall to chance.
    ran = [one for one in first.entries if one.standing == "holds" or "chance" in str(one.reason)]
    assert ran == first.entries and all(one.changes.keys() == options.allowed.keys() and one.speed for one in ran)
    kept = {one.name: Bundle.open(tmp_path / "race" / str(one.folder)).manifest for one in first.entries if one.folder}
    recipes = {name: next(a for a in made.artifacts if a.name == "onnx-int8").recipe for name, made in kept.items()}
    assert len({recipe.scheme for recipe in recipes.values() if recipe}) == 7
    assert recipes[titles[6]].kept[: len(recipes[titles[5]].kept)] == recipes[titles[5]].kept  # type: ignore[union-attr]
    assert any("making" in what for what in seen)

    # Again in the same folder: nothing is made anew.
    second = race()
    assert second.entries == first.entries and not any("making" in what for what in seen)

    chosen = choices(first)
    out = ship(first, chosen, tmp_path / "out", lambda *_: None, {"images": 36}, False)
    names = [one.name for one in out.manifest.artifacts]
    assert names[: len(bundle.manifest.artifacts)] == [one.name for one in bundle.manifest.artifacts]
    if chosen[0].entry is None:  # int8 is seldom faster for so small a network
        (left,) = [one for one in out.manifest.skipped if one.name == "onnx-int8"]
        assert "not surely faster" in left.reason and "times as fast as float32" in left.reason
    # Whichever is faster here: the fastest int8 ships byte for byte where it is chosen.
    winner = max((one for one in first.entries if one.artifact), key=lambda one: one.times)
    forced = [type(chosen[0])("onnx-int8", winner, winner.line)]
    out = ship(first, forced, tmp_path / "forced", lambda *_: None, {"images": 36}, False)
    made, raced = (
        next(one for one in manifest.artifacts if one.name == "onnx-int8").files[0].sha256
        for manifest in (out.manifest, kept[winner.name])
    )
    assert made == raced and out.manifest.source["race"] == {"images": 36}
    Bundle.open(tmp_path / "forced").check()


def test_the_command(real_bundle: Path, data: Path, lists: Path, edgerecall: Run, tmp_path: Path) -> None:
    bundle, out = tmp_path / "bundle", tmp_path / "race.json"
    shutil.copytree(real_bundle, bundle)
    given = (
        "--calibrate",
        data,
        "--list",
        lists / "train_list.txt",
        "--validate",
        data,
        "--artifacts",
        "openvino-int8",
    )
    listed = ("--validate-list", lists / "val_list.txt")
    refused = edgerecall("quantize", bundle, *given, "--validate-list", data / "test_list.txt")
    assert refused.returncode == 2 and "never on a test's" in refused.stderr
    result = edgerecall("quantize", bundle, *given, *listed, "--minutes", "0", "--json", out, env={"COLUMNS": "250"})
    assert result.returncode == 0, result.stdout + result.stderr
    assert "not raced for want of time: int8 activations, minmax, nncf" in result.stdout
    found = json.loads(out.read_text())
    assert [one["name"] for one in found["entries"]][:1] == ["float32"] and found["entries"][-1]["name"] == "as given"
    assert not bundle.with_name("bundle.partial").exists()
    manifest = Bundle.open(bundle).manifest
    made = {one.name for one in (*manifest.artifacts, *manifest.skipped)}
    assert "openvino-int8" in made and manifest.source["race"]["images"] == 36
    again = edgerecall("quantize", bundle, *given, *listed, "--resume")
    assert again.returncode == (2 if "openvino-int8" in {one.name for one in manifest.artifacts} else 0)


def test_variants_of_a_recipe() -> None:
    base = Int8Recipe(percentile=99.9, keep=("Gemm",))
    assert varied(base, calibration="minmax") == Int8Recipe(calibration="minmax", keep=("Gemm",))
    assert varied(base, scheme="nncf") == Int8Recipe(scheme="nncf", keep=("Gemm",))
    assert varied(base, activations="int8").percentile == 99.9
    assert keeping(base, ("first", "Gemm")).keep == ("Gemm", "first")
