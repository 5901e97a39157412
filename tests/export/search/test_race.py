"""The race as a whole, on the small trained network."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgerecall.bench.measure.image_set import ImageSet
from edgerecall.bench.schema.gates import Gates
from edgerecall.bench.schema.statistics import Interval
from edgerecall.export.quantize.calibration import calibration_files, read_calibration
from edgerecall.export.quantize.recipes import Int8Recipe, RecipeFile
from edgerecall.export.search import race as racing
from edgerecall.export.search.entries import Choice, Entry
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
    # So small a network, hardly trained, may fall to chance or leave the tolerance: by which recipe hangs on the CPU.
    lost = [one for one in first.entries if one.standing != "holds"]
    told = ("chance", "embeddings differ from the reference")
    assert all(any(word in str(one.reason) for word in told) for one in lost), lost
    assert len(lost) < len(first.entries) / 2
    ran = [one for one in first.entries if one not in lost]
    assert all(one.changes.keys() == options.gates.drops.keys() and one.speed for one in ran)
    kept = {one.name: Bundle.open(tmp_path / "race" / str(one.folder)).manifest for one in first.entries if one.folder}
    recipes = {name: next(a for a in made.artifacts if a.name == "onnx-int8").recipe for name, made in kept.items()}
    assert len({recipe.scheme for recipe in recipes.values() if recipe}) == len(kept) >= 7 - len(lost)
    assert recipes[titles[6]].kept[: len(recipes[titles[5]].kept)] == recipes[titles[5]].kept  # type: ignore[union-attr]
    assert any("making" in what for what in seen)

    # Again in the same folder: nothing is made anew.
    second = race()
    assert second.entries == first.entries and not any("making" in what for what in seen)

    chosen = choices(first)
    out = ship(first, chosen, tmp_path / "out", lambda *_: None, {"images": 36}, False)
    names = [one.name for one in out.manifest.artifacts]
    assert names[: len(bundle.manifest.artifacts)] == [one.name for one in bundle.manifest.artifacts]
    if chosen[0].entry is None and chosen[0].ran:  # int8 is seldom faster for so small a network
        (left,) = [one for one in out.manifest.skipped if one.name == "onnx-int8"]
        assert "not surely faster" in left.reason and "times as fast as float32" in left.reason
    # Whichever is faster here: the fastest int8 ships byte for byte where it is chosen.
    winner = max((one for one in first.entries if one.artifact and one not in lost), key=lambda one: one.times)
    forced = [Choice("onnx-int8", winner, winner.line)]
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
    bad = edgerecall("quantize", bundle, *given, *listed, "--minutes", "0", "--out", bundle / "inside")
    assert bad.returncode == 2 and "outside of the bundle" in bad.stderr
    result = edgerecall("quantize", bundle, *given, *listed, "--minutes", "0", "--json", out, env={"COLUMNS": "250"})
    assert result.returncode == 0, result.stdout + result.stderr
    assert "not raced for want of time: int8 activations, minmax, nncf" in result.stdout
    found = json.loads(out.read_text())
    assert [one["name"] for one in found["entries"]][:1] == ["float32"] and found["entries"][-1]["name"] == "as given"
    assert found["entries"][-1]["recipe"] == Int8Recipe().text() and found["entries"][-1]["speed"]["value"] > 0
    assert not bundle.with_name("bundle.partial").exists()
    manifest = Bundle.open(bundle).manifest
    made = {one.name for one in (*manifest.artifacts, *manifest.skipped)}
    assert "openvino-int8" in made and "onnx-int8" not in made and manifest.source["race"]["images"] == 36


def test_interrupted_and_gone_on_with(
    real_bundle: Path, data: Path, lists: Path, edgerecall: Run, tmp_path: Path
) -> None:
    bundle, out = tmp_path / "bundle", tmp_path / "race.json"
    shutil.copytree(real_bundle, bundle)
    command = [*(sys.executable, "-m", "edgerecall", "quantize", bundle, "--calibrate", data)]
    command += ["--list", lists / "train_list.txt", "--validate", data, "--validate-list", lists / "val_list.txt"]
    command += ["--artifacts", "onnx-int8", "--max-recall-drop", "1", "--max-map-drop", "1", "--json", out]
    before = sorted(path for path in bundle.rglob("*"))
    heard = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731 - a shell's job may not
    with subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, text=True, preexec_fn=heard) as process:
        assert process.stderr is not None
        said = ""
        while "racing: int8 activations" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        process.send_signal(signal.SIGINT)
        said += process.stderr.read()
    assert process.returncode != 0 and "repeat the command with --resume to go on" in said
    assert sorted(path for path in bundle.rglob("*")) == before
    kept = bundle.with_name("bundle.partial") / "as-given.json"
    stamp = kept.stat().st_mtime_ns
    words = [str(word) for word in command[3:]]
    other = edgerecall(*[word.replace("onnx-int8", "openvino-int8") for word in words], "--resume")
    assert other.returncode == 2 and "other options, bundle, images or versions" in other.stderr
    assert kept.stat().st_mtime_ns == stamp
    done = edgerecall(*words, "--minutes", "0", "--resume")
    assert done.returncode == 0, done.stderr
    assert "racing: int8 activations" not in done.stderr and not kept.exists()
    assert [one["name"] for one in json.loads(out.read_text())["entries"]] == ["float32", "as given"]


@pytest.mark.parametrize("force", [False, True])
def test_one_that_loses_leaves_the_bundle(real_bundle: Path, tmp_path: Path, force: bool) -> None:
    """Its files go, but where it never ran."""
    folder = tmp_path / "bundle"
    shutil.copytree(real_bundle, folder)
    (folder / "onnx-int8").mkdir()
    (folder / "onnx-int8" / "model.onnx").write_bytes((folder / "onnx" / "model.onnx").read_bytes())
    manifest = json.loads((folder / "bundle.json").read_text())
    twin = next(one for one in manifest["artifacts"] if one["name"] == "onnx")
    file = {**twin["files"][0], "path": "onnx-int8/model.onnx"}
    manifest["artifacts"].append({**twin, "name": "onnx-int8", "quantisation": "int8", "files": [file]})
    (folder / "bundle.json").write_text(json.dumps(manifest))
    images = ImageSet.find(real_bundle / "golden")
    options = RaceOptions(("onnx-int8",), RecipeFile(), LOOSE)
    race = Race(Bundle.open(folder), None, images, options, tmp_path / "race", "tests", lambda *_: None)
    lost = Choice("onnx-int8", None, "slower", ran=force)
    made = ship(race, [lost], tmp_path / "out", lambda *_: None, {}, True)
    names = {one.name for one in made.manifest.artifacts}
    assert ("onnx-int8" in names) is not force
    assert [one.reason for one in made.manifest.skipped if one.name == "onnx-int8"] == (["slower"] if force else [])
    assert (tmp_path / "out" / "onnx-int8" / "model.onnx").exists() is not force


def test_variants_of_a_recipe() -> None:
    base = Int8Recipe(percentile=99.9, keep=("Gemm",))
    assert varied(base, calibration="minmax") == Int8Recipe(calibration="minmax", keep=("Gemm",))
    assert varied(base, scheme="nncf") == Int8Recipe(scheme="nncf", keep=("Gemm",))
    assert varied(base, activations="int8").percentile == 99.9
    assert keeping(base, ("first", "Gemm")).keep == ("Gemm", "first")


@pytest.mark.parametrize("names", [("onnx-int8", "ncnn-int8"), ("ncnn-int8", "openvino-int8", "onnx-int8")])
def test_each_scheme_varies_its_own_recipe(
    real_bundle: Path, tmp_path: Path, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whichever order the artifacts are named."""
    recipes = RecipeFile.model_validate(
        {"onnx-int8": {"activations": "int8"}, "ncnn-int8": {"calibration": "minmax", "keep": ["first"]}}
    )
    race = Race(
        Bundle.open(real_bundle),
        None,
        ImageSet.find(real_bundle / "golden"),
        RaceOptions(names, recipes, LOOSE),
        tmp_path,
        "tests",
        lambda *_: None,
    )
    heats: dict[str, dict[str, Int8Recipe | None]] = {}
    monkeypatch.setattr(race, "_recipe", lambda title, made: heats.update({title: made}))
    monkeypatch.setattr(race, "_sensitive", lambda *_: ["layer"])
    race._int8()
    base = Int8Recipe(activations="int8") if names[0] == "onnx-int8" else Int8Recipe()
    own = Int8Recipe(scheme="ncnn", calibration="minmax", keep=("first",))
    other = "uint8" if base.activations == "int8" else "int8"
    assert heats[f"{other} activations"]["onnx-int8"] == varied(base, activations=other)
    assert heats[f"{other} activations"]["ncnn-int8"] is None
    assert heats["minmax"]["onnx-int8"] == varied(base, calibration="minmax") and heats["minmax"]["ncnn-int8"] is None
    assert heats["percentile"]["ncnn-int8"] == varied(own, calibration="percentile")
    assert heats["percentile"]["onnx-int8"] is None
    assert heats["depthwise in float"]["ncnn-int8"] == keeping(own, ("depthwise",))
    assert heats["25 % most sensitive in float"]["onnx-int8"] == keeping(base, ("layer",))
    if "openvino-int8" in names:
        assert heats["nncf"] == {"openvino-int8": Int8Recipe(scheme="nncf")}


def test_layers_are_left_in_float_beside_depthwise_ones_where_that_is_faster(real_bundle: Path, tmp_path: Path) -> None:
    images = ImageSet.find(real_bundle / "golden")
    options = RaceOptions(("onnx-int8",), RecipeFile(), Gates(max_recall_drop=0.005, max_map_drop=0.005))
    race = Race(Bundle.open(real_bundle), None, images, options, tmp_path, "tests", lambda *_: None)
    best = Int8Recipe()
    depthwise = keeping(best, ("depthwise",))

    def entry(recipe: Int8Recipe, runtime: str, speed: float, loss: float = 0.0) -> Entry:
        found = Entry("x", runtime, "onnx-int8", recipe=recipe.text(), speed=Interval(speed, speed - 0.1, speed + 0.1))
        found.changes = {"map": Interval(-loss, -loss, -loss)}
        return found

    for entries, faster in (
        ([entry(best, "a", 1.0), entry(depthwise, "a", 1.5)], True),
        ([entry(best, "a", 1.0), entry(depthwise, "a", 1.05)], False),
        ([entry(best, "a", 1.0), entry(depthwise, "a", 1.5, loss=0.02)], False),
        ([entry(best, "a", 1.0), entry(best, "b", 2.0), entry(depthwise, "a", 1.5), entry(depthwise, "b", 1.0)], False),
        ([entry(best, "a", 1.0)], False),
    ):
        race.entries = entries
        assert race._basis(best) == (depthwise if faster else best)
