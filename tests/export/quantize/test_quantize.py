"""`edgerecall quantize`: from a bundle to the same with int8 and fp16 artifacts, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import numpy_helper
from PIL import Image

from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.bundle.manifest import Artifact
from edgerecall.runtimes.core.cpus import has_vnni
from edgerecall.runtimes.core.errors import ParityError

pytestmark = pytest.mark.runtime
Run = Callable[..., subprocess.CompletedProcess[str]]
ALL = "onnx-int8,openvino-int8,onnx-fp16,openvino-fp16"


@pytest.fixture(scope="module")
def quantised(real_bundle: Path, data: Path, edgerecall: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with all four, made from a copy by the command line."""
    bundle = tmp_path_factory.mktemp("quantised") / "bundle"
    shutil.copytree(real_bundle, bundle)
    result = edgerecall("quantize", bundle, "--calibrate", data, "--artifacts", ALL)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "onnx-int8: QDQ, uint8, per channel, weights of 7 bits, percentile 99.99, biases corrected" in result.stdout
    return bundle


def artifacts(bundle: Path) -> dict[str, Artifact]:
    return {one.name: one for one in Bundle.open(bundle).manifest.artifacts}


def test_they_join_what_was_there(quantised: Path, real_bundle: Path, data: Path) -> None:
    before, after = artifacts(real_bundle), artifacts(quantised)
    assert all(after[name] == one for name, one in before.items()) and after.keys() - before.keys() == {*ALL.split(",")}
    Bundle.open(quantised).check()
    listed = (data / "train_list.txt").read_text().splitlines()
    hashes = [hashlib.sha256((data / line.split()[0]).read_bytes()).hexdigest() for line in listed]
    for name in ("onnx-int8", "openvino-int8"):
        recipe = after[name].recipe
        assert recipe is not None and recipe.tool == "onnxruntime" and list(recipe.calibration) == hashes
        assert after[name].quantisation == "int8" and 0.9 < after[name].check.min_cosine < 1  # type: ignore[union-attr]
    for name, of in (("onnx-fp16", "onnx"), ("openvino-fp16", "openvino")):
        assert after[name].check.min_cosine > 0.9999  # type: ignore[union-attr]
        assert after[name].size_bytes < 0.75 * before[of].size_bytes
    assert "quantize" in Bundle.open(quantised).manifest.source["quantised"]["onnx-int8"]


def test_every_row_runs_as_its_artifact_is(quantised: Path, data: Path, edgerecall: Run, tmp_path: Path) -> None:
    runtimes = "onnxruntime,openvino,cpp-onnxruntime,cpp-openvino"
    verified = edgerecall("verify", quantised, "--runtime", runtimes, env={"COLUMNS": "200"})
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert sum("int8" in line and " ok" in line for line in verified.stdout.splitlines()) == 4, verified.stdout
    out = tmp_path / "bench.json"
    options = ("--runtime", "onnxruntime,openvino", "--samples", "5", "--rounds", "2", "--json", out)
    loose = ("--min-cosine", "0.5", "--max-recall-drop", "1")
    result = edgerecall("bench", quantised, "--images", data, *options, *loose)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = yaml.safe_load(out.read_text())["rows"]
    ran = {(row["runtime"], row["quantisation"]): row["precision"] for row in rows}
    assert len(rows) == 6 and ran["onnxruntime", "fp32"] == "fp32" and ran["openvino", "fp16"] in ("fp32", "fp16")
    assert "int8" in ran["onnxruntime", "int8"].split("+") and "int8" in ran["openvino", "int8"].split("+")


def test_exported_and_quantised_in_one(
    trained: Path, quantised: Path, data: Path, edgerecall: Run, one_line: Callable[..., None], tmp_path: Path
) -> None:
    source = ("-c", trained / "train.yaml", "--checkpoint", trained / "run" / "latest", "--formats", "onnx,openvino")
    for wrong in (("--quantize", "int8"), ("--calibrate", data), ("--quantize", "fp16", "--calibrate", data)):
        one_line(edgerecall("export", tmp_path / "bundle", *source, *wrong), 2, "go together: give both")
    one_line(edgerecall("export", tmp_path / "bundle", *source, "--quantize", "int4"), 2, "unknown 'int4'")
    given = ("--quantize", "int8", "--calibrate", tmp_path / "nowhere")
    one_line(edgerecall("export", tmp_path / "bundle", *source, *given), 2, "expected a folder of images")
    assert not (tmp_path / "bundle").exists()
    made = edgerecall("export", tmp_path / "bundle", *source, "--quantize", "int8,fp16", "--calibrate", data)
    assert made.returncode == 0, made.stderr
    found, known = artifacts(tmp_path / "bundle"), artifacts(quantised)
    assert {*ALL.split(",")} <= found.keys()
    assert all(found[name].files == known[name].files for name in ("onnx-int8", "onnx-fp16"))


def test_the_same_bytes_from_the_same_inputs(quantised: Path, data: Path, edgerecall: Run, tmp_path: Path) -> None:
    again = tmp_path / "again"
    made = edgerecall("quantize", quantised, "--calibrate", data, "--artifacts", ALL, "--out", again)
    assert made.returncode == 2 and "has onnx-int8, openvino-int8, onnx-fp16, openvino-fp16 already" in made.stderr
    made = edgerecall("quantize", quantised, "--calibrate", data, "--artifacts", ALL, "--out", again, "--force")
    assert made.returncode == 0, made.stderr
    first, second = artifacts(quantised), artifacts(again)
    assert first.keys() == second.keys()
    assert all(first[name].files == second[name].files for name in first)


def test_a_recipe(real_bundle: Path, data: Path, edgerecall: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    how = {"activations": "int8", "calibration": "entropy", "keep": ["depthwise", "last"]}
    recipe.write_text(yaml.safe_dump({"onnx-int8": how, "openvino-int8": {"scheme": "nncf", "keep": ["first"]}}))
    target = tmp_path / "bundle"
    result = edgerecall("quantize", real_bundle, "--calibrate", data, "--recipe", recipe, "--out", target)
    assert (
        "onnx-int8: QDQ, int8, per channel, weights of 7 bits, entropy, biases corrected, in float: depthwise, last"
        in result.stdout
    ), result.stderr
    found = artifacts(target)["onnx-int8"]
    graph = onnx.load(str(target / "onnx-int8" / "model.onnx")).graph
    dequantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    heavy = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    in_float = {node.name for node in heavy if node.input[1] not in dequantised}
    assert found.recipe is not None and in_float == set(found.recipe.kept) and 5 < len(in_float) < len(heavy)
    for node in heavy:
        assert (node.name in in_float) == (
            node is heavy[-1] or any(a.name == "group" and a.i > 1 for a in node.attribute)
        )


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"onnx-int8": {"keep": ["conv_that_is_not_there"]}}, "keep: no layer is 'conv_that_is_not_there'"),
        ({"onnx-int8": {"scheme": "gptq"}}, "'onnx-int8.scheme': "),
        ({"onnx-int8": {"percentile": 20}}, "'onnx-int8.percentile'"),
        ({"onnx-int4": {}}, "unknown key 'onnx-int4'; did you mean 'onnx-int8'?"),
        ({"onnx-int8": {"kep": []}}, "unknown key 'onnx-int8.kep'; did you mean 'keep'?"),
        ({"onnx-int8": {"scheme": "nncf"}}, "onnx-int8: scheme nncf is for openvino-int8"),
        ({"openvino-int8": {"scheme": "nncf", "activations": "int8"}}, "scheme nncf takes keep alone, not activations"),
        ({"onnx-int8": {"calibration": "minmax", "percentile": 99}}, "percentile is of that calibration, minmax has"),
    ],
)
def test_recipes_that_are_refused(
    real_bundle: Path,
    data: Path,
    edgerecall: Run,
    one_line: Callable[..., None],
    tmp_path: Path,
    recipe: dict[str, Any],
    message: str,
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    options = ("--calibrate", data, "--recipe", path, "--artifacts", "onnx-int8", "--out", tmp_path / "out")
    one_line(edgerecall("quantize", real_bundle, *options), 2, message)
    assert not (tmp_path / "out").exists()


def painted(folder: Path, count: int, colour: Callable[[int], tuple[int, int, int]]) -> Path:
    folder.mkdir()
    for index in range(count):
        Image.new("RGB", (80, 80), colour(index)).save(folder / f"{index}.png")
    return folder


def noisy(folder: Path, count: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(1)
    for index in range(count):
        Image.fromarray(rng.integers(0, 255, (80, 80, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


def test_images_that_measure_nothing(
    real_bundle: Path, data: Path, edgerecall: Run, one_line: Callable[..., None], tmp_path: Path
) -> None:
    def refused(calibrate: Path, *parts: str, **options: Any) -> None:
        more = [word for name, value in options.items() for word in (f"--{name}", value)]
        out = ("--artifacts", "onnx-int8", "--out", tmp_path / "out")
        one_line(edgerecall("quantize", real_bundle, "--calibrate", calibrate, *more, *out), 2, *parts)
        assert not (tmp_path / "out").exists()

    refused(tmp_path / "nothing", "expected a folder of images")
    refused(noisy(tmp_path / "few", 3), "expected 32 or more different images that can be read, got 3")
    constant = painted(tmp_path / "constant", 40, lambda index: (6 * index, 0, 0))
    refused(constant, "all alike, or of one colour each")
    same = noisy(tmp_path / "same", 1)
    for index in range(1, 40):
        shutil.copyfile(same / "0.png", same / f"{index}.png")
    refused(same, "different images that can be read, got 1")
    refused(data, "is in a list for evaluation", list=mixed(data, tmp_path))
    refused(data, "a list for evaluation: calibrate on training images alone", list=data / "test_list.txt")
    copied = noisy(tmp_path / "copied", 40)
    for name in ("a.JPG", "b.JPG"):
        shutil.copyfile(data / (data / "test_list.txt").read_text().split()[-2], copied / name)
    (copied / "test_list.txt").write_text("a.JPG 0\n")
    refused(copied, "a.JPG is among the images and in a list for evaluation")
    golden = noisy(tmp_path / "golden", 40)
    shutil.copyfile(next((real_bundle / "golden").glob("00.*")), golden / "a.png")
    refused(golden, "is one of the bundle's golden images")
    lists = noisy(tmp_path / "lists", 2)
    (lists / "test_list.txt").write_text("gone.jpg 0\n")  # that it is not there is no matter
    refused(lists, "expected 32 or more different images")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(empty, "empty")


def mixed(data: Path, folder: Path) -> Path:
    """A list that has one image of the test list beside it."""
    shutil.copyfile(data / "test_list.txt", folder / "test_list.txt")
    text = (data / "train_list.txt").read_text() + (data / "test_list.txt").read_text().splitlines()[0] + "\n"
    (folder / "mixed_list.txt").write_text(text)
    return folder / "mixed_list.txt"


def test_a_bad_image_is_told_and_another_stands_in(real_bundle: Path, edgerecall: Run, tmp_path: Path) -> None:
    folder = noisy(tmp_path / "images", 40)
    (folder / "0.png").write_bytes(b"no image")
    options = ("--calibrate-count", "39", "--artifacts", "onnx-int8", "--out", tmp_path / "out")
    result = edgerecall("quantize", real_bundle, "--calibrate", folder, *options)
    assert "bad image, left out:" in result.stderr and "calibration: 39 images of 40" in result.stderr
    assert result.returncode in (0, 2), result.stderr  # noise measures no range that photographs have


def test_ranges_that_clip_are_seen(real_bundle: Path, data: Path, edgerecall: Run, tmp_path: Path) -> None:
    """Half of all activations cut off: the golden images tell, and the bundle stays as it was."""
    bundle, recipe = tmp_path / "bundle", tmp_path / "recipe.yaml"
    shutil.copytree(real_bundle, bundle)
    recipe.write_text(yaml.safe_dump({"onnx-int8": {"percentile": 51}}))
    before = (bundle / "bundle.json").read_bytes()
    options = ("--calibrate", data, "--recipe", recipe, "--artifacts", "onnx-int8")
    result = edgerecall("quantize", bundle, *options)
    assert result.returncode == 2 and "embeddings differ from the reference" in result.stderr, result.stderr
    assert (bundle / "bundle.json").read_bytes() == before and not (bundle / "onnx-int8").exists()


def test_a_scale_that_was_changed_is_seen(quantised: Path, tmp_path: Path) -> None:
    """One activation's scale of another: what checks artifacts does not let it through."""
    from edgerecall.export.exporter import check_artifact

    bundle = tmp_path / "bundle"
    shutil.copytree(quantised, bundle)
    path = bundle / "onnx-int8" / "model.onnx"
    model = onnx.load(str(path))
    node = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    for tensor in model.graph.initializer:
        if tensor.name == node.input[1]:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(20), tensor.name))
    onnx.save(model, str(path))
    opened = Bundle.open(quantised)
    _, tensors, embeddings = opened.golden()
    changed = Bundle(bundle, opened.manifest)
    changed.check = lambda files=None: None  # type: ignore[method-assign] # its hash would tell first
    with pytest.raises(ParityError, match="embeddings differ"):
        check_artifact(changed, artifacts(quantised)["onnx-int8"], tensors, embeddings)


def test_what_is_there_stays(quantised: Path, data: Path, edgerecall: Run, tmp_path: Path) -> None:
    """Files of the user's own, and with --force an artifact whose successor fails."""
    bundle, recipe = tmp_path / "bundle", tmp_path / "recipe.yaml"
    shutil.copytree(quantised, bundle)
    (bundle / "notes.txt").write_text("mine")
    recipe.write_text(yaml.safe_dump({"onnx-int8": {"percentile": 51}}))
    options = ("--calibrate", data, "--recipe", recipe, "--artifacts", "onnx-int8,onnx-fp16", "--force")
    result = edgerecall("quantize", bundle, *options)
    assert result.returncode == 1 and "onnx-int8: left out" in result.stderr, result.stderr
    assert artifacts(bundle) == artifacts(quantised) and (bundle / "notes.txt").read_text() == "mine"
    Bundle.open(bundle).check()
    manifest = Bundle.open(bundle).manifest
    assert "--recipe" not in manifest.source["quantised"]["onnx-int8"]
    assert "onnx-int8" not in {one.name for one in manifest.skipped}


def test_a_folder_that_is_taken(
    real_bundle: Path, edgerecall: Run, one_line: Callable[..., None], tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(real_bundle, bundle)
    (bundle / "onnx-fp16").mkdir()
    (bundle / "onnx-fp16" / "mine.txt").write_text("mine")
    result = edgerecall("quantize", bundle, "--artifacts", "onnx-fp16")
    one_line(result, 2, "the bundle's folder has something else called onnx-fp16: move it away")
    assert (bundle / "onnx-fp16" / "mine.txt").is_file() and artifacts(bundle) == artifacts(real_bundle)


def test_a_bundle_of_openvino_alone(
    real_bundle: Path, data: Path, edgerecall: Run, one_line: Callable[..., None], tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(real_bundle, bundle)
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["artifacts"] = [one for one in manifest["artifacts"] if one["runtime"] == "openvino"]
    manifest["source"]["quantised"] = "free text"
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    options = ("--calibrate", data, "--artifacts", "openvino-int8")
    one_line(edgerecall("quantize", bundle, *options), 2, "choose 'scheme: nncf' by --recipe")
    assert edgerecall("quantize", bundle, "--artifacts", "openvino-fp16").returncode == 0
    manifest["artifacts"][0]["files"][0]["role"] = "other"
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    again = ("--artifacts", "openvino-fp16", "--out", tmp_path / "again")
    one_line(edgerecall("quantize", bundle, *again), 2, "has no file with the role 'model'")


def small_disk() -> None:
    """Writing beyond 200 kB fails, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))


def test_a_disk_that_fills(
    real_bundle: Path, data: Path, edgerecall: Run, one_line: Callable[..., None], tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(real_bundle, bundle)
    before = sorted(path.relative_to(bundle) for path in bundle.rglob("*"))
    result = edgerecall("quantize", bundle, "--calibrate", data, preexec_fn=small_disk)
    one_line(result, 2, "cannot")
    assert sorted(path.relative_to(bundle) for path in bundle.rglob("*")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_what_is_asked_for_wrongly(real_bundle: Path, edgerecall: Run, one_line: Callable[..., None]) -> None:
    one_line(edgerecall("quantize", real_bundle), 2, "int8 needs images to measure ranges on: give --calibrate")
    one_line(edgerecall("quantize", real_bundle, "--artifacts", "onnx-int4"), 2, "unknown 'onnx-int4'; did you mean")
    one_line(edgerecall("quantize", real_bundle, "--artifacts", "lite-int8"), 2, "lite-int8 is not made: Paddle Lite")
    one_line(edgerecall("quantize", real_bundle, "--list", "a.txt"), 2, "--list is of --calibrate's folder")
    inside = ("--artifacts", "onnx-fp16", "--out", real_bundle / "inside")
    one_line(edgerecall("quantize", real_bundle, *inside), 2, "expected a folder outside of the bundle")
    fp16 = ("--artifacts", "onnx-fp16", "--calibrate", "nowhere")
    one_line(edgerecall("quantize", real_bundle, *fp16), 2, "onnx-fp16: needs no images: leave out --calibrate")
    few = ("--calibrate", "nowhere", "--calibrate-count", "10")
    assert edgerecall("quantize", real_bundle, *few).returncode == 2


def test_optimised_kernels_agree_with_plain_ones(quantised: Path) -> None:
    """Weights of 8 bits overflow in ONNX Runtime's kernels on x86 CPUs without VNNI; those of 7 do nowhere."""
    import onnxruntime

    stored = onnx.load(str(quantised / "onnx-int8" / "model.onnx")).graph.initializer
    weights = [numpy_helper.to_array(tensor) for tensor in stored if tensor.data_type == onnx.TensorProto.INT8]
    weights = [array for array in weights if array.ndim > 1]
    assert len(weights) > 20 and max(int(np.abs(array.astype(np.int16)).max()) for array in weights) <= 64
    _, tensors, _ = Bundle.open(quantised).golden()
    outputs = []
    for level in (
        onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
        onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    ):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level, options.log_severity_level = level, 3
        model = str(quantised / "onnx-int8" / "model.onnx")
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        outputs.append(session.run(None, {session.get_inputs()[0].name: tensors})[0])
    # Overflow is in every image; a number that lies between two steps may round either way in one.
    off = np.abs(outputs[0] - outputs[1]).max(axis=1) / np.abs(outputs[1]).max()
    assert np.median(off) < 0.05 and off.max() < 0.25, off


def test_eight_bits_are_for_machines_where_they_do_not_overflow(
    real_bundle: Path, data: Path, edgerecall: Run, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"onnx-int8": {"reduce_range": False, "calibration": "minmax"}}))
    given = ("--recipe", recipe, "--artifacts", "onnx-int8", "--out", tmp_path / "bundle")
    made = edgerecall("quantize", real_bundle, "--calibrate", data, *given)
    assert made.returncode == 0, made.stderr
    found = artifacts(tmp_path / "bundle")["onnx-int8"]
    assert found.targets == ("x86_64+vnni", "aarch64", "armv7l")
    assert (found.check is not None) is has_vnni() and (found.unchecked is None) is has_vnni()
    assert ("unchecked: it runs on x86_64+vnni" in made.stderr) is not has_vnni()


def test_the_embedding_itself_is_not_rounded(quantised: Path) -> None:
    graph = onnx.load(str(quantised / "onnx-int8" / "model.onnx")).graph
    last = next(node for node in graph.node if graph.output[0].name in node.output)
    embeddings = run_onnx(quantised, "onnx-int8")
    assert last.op_type == "Gemm" and len(np.unique(embeddings)) == embeddings.size
    assert {tensor.name for tensor in graph.initializer} <= {name for node in graph.node for name in node.input}


def run_onnx(bundle: Path, name: str) -> Any:
    """The embeddings of the golden images."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(bundle / name / "model.onnx"), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: Bundle.open(bundle).golden()[1]})[0]
