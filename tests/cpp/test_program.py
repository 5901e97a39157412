"""`edgerecall-device` itself, as packed and under sanitizers: beside what Python gives for the same bundle."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgerecall.bench.devices.program import DeviceProgram
from edgerecall.cross.commands import run_logged
from edgerecall.export.quantize.onnx_int8 import quantize_onnx
from edgerecall.export.quantize.recipes import Int8Recipe
from edgerecall.runtimes._native import Gallery
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.bundle.manifest import MANIFEST, Artifact, Recipe, describe_file
from edgerecall.runtimes.core.files import sha256
from edgerecall.runtimes.embed.model import EmbeddingModel, l2_normalize
from edgerecall.runtimes.embed.replicas import open_predictor
from edgerecall.runtimes.gallery import gallery
from edgerecall.runtimes.gallery.check import problems
from edgerecall.runtimes.gallery.disk_gallery import DiskGallery
from edgerecall.runtimes.gallery.manifest import Storage

pytestmark = pytest.mark.device
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Program:
    """Runs the program with arguments."""

    file: Path

    def start(self, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
        # OpenVINO's TBB opens a library in a way that AddressSanitizer refuses unless told of it.
        strict = {"UBSAN_OPTIONS": "halt_on_error=1", "TBB_ENABLE_SANITIZERS": "1"}
        command = [str(self.file), *map(str, arguments)]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, **streams, text=True, env={**os.environ, **strict, **environment})  # type: ignore[call-overload]

    def __call__(self, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments, **environment) as process:
            out, told = process.communicate(timeout=120)
        assert "Sanitizer" not in told and "runtime error" not in told, told
        return subprocess.CompletedProcess(process.args, process.returncode, out, told)


@pytest.fixture(scope="module")
def packed(device_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """As it is given to a board."""
    folder = tmp_path_factory.mktemp("program") / "packed"
    DeviceProgram(device_archive, None).unpack(folder)
    return Program(folder / "edgerecall-device")


@pytest.fixture(scope="module", params=["packed", "sanitized"])
def program(request: pytest.FixtureRequest, device_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Program:
    folder = tmp_path_factory.mktemp("program") / "unpacked"
    DeviceProgram(device_archive, None).unpack(folder)
    if request.param == "sanitized":
        build = ["--build", "build/sanitized", "--parallel", "2", "--target", "edgerecall-device"]
        # As 'make cpp-test' has configured it, if it has.
        made = (ROOT / "build" / "sanitized" / "CMakeCache.txt").is_file()
        for command in [build] if made else [["--preset", "sanitized"], build]:
            run_logged("sanitized", ["cmake", *command], folder.parent / "cmake.log", ROOT)
        shutil.copyfile(ROOT / "build" / "sanitized" / "edgerecall-device", folder / "edgerecall-device")
        (folder / "edgerecall-device").chmod(0o755)
    return Program(folder / "edgerecall-device")


def test_the_archive_has_every_licence(device_archive: Path) -> None:
    with tarfile.open(device_archive) as packed:
        sizes = {name.partition("/")[2]: packed.getmember(name).size for name in packed.getnames()}
    linked = ("libjpeg62-turbo-dev", "libpng-dev", "zlib1g-dev", "libhwy-dev", "nlohmann-json3-dev")
    assert all(sizes[f"licences/{name}.txt"] > 500 for name in linked) and sizes["LICENSE"] > 5000
    assert {"lib/onnxruntime/LICENSE", "lib/onnxruntime/ThirdPartyNotices.txt"} <= set(sizes)
    assert {"lib/openvino/LICENSE", "lib/openvino/onednn_third-party-programs.txt"} <= set(sizes)


def nested(levels: int) -> list:
    return [nested(levels - 1)] if levels else []


def one_line(result: subprocess.CompletedProcess[str], code: int, text: str) -> None:
    assert result.returncode == code, result.stderr
    assert text in result.stderr and result.stderr.count("\n") == 1 and result.stderr.startswith("edgerecall-device: ")


def check(root: Path) -> list[str]:
    with DiskGallery(root) as disk:
        return problems(disk)


def expected(bundle: Bundle, images: list[Path]) -> np.ndarray:
    with open_predictor(bundle, "onnxruntime") as predictor:
        return EmbeddingModel(bundle.spec, [predictor]).embed_images(images)


def test_is_small(device_archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "program"
    DeviceProgram(device_archive, None).unpack(folder)
    assert (folder / "edgerecall-device").stat().st_size < 1_000_000
    needed = subprocess.run(["readelf", "-d", folder / "edgerecall-device"], capture_output=True, text=True).stdout
    libraries = {line.split("[")[1].split("]")[0] for line in needed.splitlines() if "(NEEDED)" in line}
    assert libraries <= {"libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2"}


def test_verify(program: Program, device_bundle: Path, tmp_path: Path) -> None:
    result = program("verify", device_bundle, "--json", tmp_path / "verdict.json")
    assert result.returncode == 0, result.stdout + result.stderr
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert verdict["pixel_error"] == 0 and {one["runtime"] for one in verdict["runtimes"]} == {
        "onnxruntime",
        "openvino",
    }
    assert all(one["holds"] and one["max_error"] < 1e-5 for one in verdict["runtimes"])


def test_an_int8_artifact_runs_in_int8(program: Program, device_bundle: Path, tmp_path: Path) -> None:
    """As ONNX Runtime's own profile says; and one that only calls itself so does not hold."""
    root = Path(shutil.copytree(device_bundle, tmp_path / "bundle"))
    bundle = Bundle.open(root)
    _, tensors, _ = bundle.golden()
    source, model = root / "onnx" / "model.onnx", root / "onnx-int8" / "model.onnx"
    model.parent.mkdir()
    recipe = Int8Recipe(calibration="minmax")
    for honest in (True, False):
        if honest:
            quantize_onnx(source, tensors, recipe, model)
        else:
            shutil.copyfile(source, model)
        made = Artifact(
            name="onnx-int8",
            runtime="onnxruntime",
            targets=("any",),
            quantisation="int8",
            recipe=Recipe(scheme=recipe.text(), tool="onnxruntime", version="1"),
            files=(describe_file(root, model, "model"),),
        )
        both = {"artifacts": (*bundle.manifest.artifacts, made)}
        Bundle(root, bundle.manifest.model_copy(update=both)).save()
        result = program("verify", root, "--runtime", "onnxruntime", "--json", tmp_path / "verdict.json")
        (told,) = (
            one
            for one in json.loads((tmp_path / "verdict.json").read_text())["runtimes"]
            if one["quantisation"] == "int8"
        )
        if honest:
            assert result.returncode == 0 and "int8" in told["precision"].split("+") and told["holds"], result.stdout
            assert 0.9 < told["min_cosine"] < 0.99999
        else:
            assert result.returncode == 1 and "the artifact is int8, the runtime computes fp32" in result.stdout


def test_what_does_not_hold_is_said(program: Program, device_bundle: Path, tmp_path: Path) -> None:
    """Whole files, wrong in what they say: another resize, another embedding."""
    for name in ("pixels", "embeddings"):
        shutil.copytree(device_bundle, tmp_path / name)
        data = json.loads((tmp_path / name / MANIFEST).read_text())
        if name == "pixels":
            data["spec"]["preprocess"]["ops"][1]["filter"] = "bicubic"
        else:
            vectors = tmp_path / name / "golden" / "embeddings.npy"
            embeddings = np.load(vectors)
            embeddings[1, 3] += 1e-3 * np.abs(embeddings).max()
            np.save(vectors, embeddings)
            entry = next(file for file in data["golden"] if file["path"] == "golden/embeddings.npy")
            entry.update(bytes=vectors.stat().st_size, sha256=sha256(vectors))
        (tmp_path / name / MANIFEST).write_text(json.dumps(data))
    result = program("verify", tmp_path / "pixels")
    assert result.returncode == 1 and "bit for bit" not in result.stdout and result.stdout.count(": ok") == 2
    assert program("bench", tmp_path / "pixels", "--out", tmp_path / "out", "--samples", "2").returncode == 1
    assert json.loads((tmp_path / "out" / "bench.json").read_text())["pixel_error"] > 1e-3
    result = program("verify", tmp_path / "embeddings")
    assert result.returncode == 1 and "bit for bit" in result.stdout and result.stdout.count("does not hold") == 2
    result = program("bench", tmp_path / "embeddings", "--out", tmp_path / "out", "--samples", "2")
    rows = json.loads((tmp_path / "out" / "bench.json").read_text())["rows"]
    assert result.returncode == 1 and {row["status"] for row in rows} == {"parity"}
    assert rows[0]["reason"].startswith("embeddings differ from the reference")


def test_a_program_without_a_library_says_what_to_put_where(
    program: Program, device_archive: Path, device_bundle: Path, tmp_path: Path
) -> None:
    DeviceProgram(device_archive, None).unpack(tmp_path / "program")
    shutil.rmtree(tmp_path / "program" / "lib")
    command = [tmp_path / "program" / "edgerecall-device", "verify", device_bundle]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    one_line(result, 2, "onnxruntime: cannot load libonnxruntime.so")
    assert "; openvino: cannot load libopenvino_c.so" in result.stderr
    bundle = tmp_path / "bundle"
    shutil.copytree(device_bundle, bundle)
    data = json.loads((bundle / MANIFEST).read_text())
    data["artifacts"] = [one for one in data["artifacts"] if one["runtime"] == "lite"]
    (bundle / MANIFEST).write_text(json.dumps(data))
    one_line(program("verify", bundle), 2, "the bundle has no artifact for a runtime of this program")


@pytest.mark.parametrize("name", ["onnx/model.onnx", "golden/embeddings.npy", "golden/00.png", "lite-aarch64/model.nb"])
def test_one_changed_byte_is_refused(program: Program, device_bundle: Path, tmp_path: Path, name: str) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(device_bundle, bundle)
    path = bundle / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    one_line(program("verify", bundle), 2, "changed since export")  # hashes all; the others what they use
    bench, predict = ("bench", bundle, "--out", tmp_path / "out", "--samples", "1"), ("predict", bundle, bundle)
    for verb, used in ((bench, not name.startswith("lite")), (predict, name.startswith("onnx"))):
        result = program(*verb)
        if used:
            one_line(result, 2, "changed since export")
        else:
            assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "bench.json").exists() == name.startswith("lite")


def test_a_bundle_with_some_artifacts_only(program: Program, device_bundle: Path, tmp_path: Path) -> None:
    """A device gets those that it runs; the golden files all must be there."""
    bundle = tmp_path / "bundle"
    shutil.copytree(device_bundle, bundle)
    shutil.rmtree(bundle / "onnx")
    result = program("verify", bundle)
    assert result.returncode == 0 and "openvino" in result.stdout and "onnxruntime" not in result.stdout
    one_line(program("predict", bundle, bundle / "golden"), 2, "no artifact for runtime 'onnxruntime' on x86_64")
    (bundle / "golden" / "01.jpg").unlink()
    one_line(program("verify", bundle), 2, "golden/01.jpg: missing from the bundle")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda data: data.update(format_version=3), "reads bundle formats 1 and 2"),
        (lambda data: data.update(surprise=1), "unknown key 'surprise'"),
        (lambda data: data["spec"].update(embedding_dim=0), "expected a whole number from 1 to 65536, got '0'"),
        (lambda data: data["spec"].update(input_shape=[3, 1, 1]), "input_shape: expected what the preprocessing gives"),
        (lambda data: data["spec"]["preprocess"]["ops"].pop(), "expected normalize last"),
        (
            lambda data: data["golden"][0].update(path="../../etc/passwd"),
            "expected a path inside the bundle, got '../../",
        ),
        (lambda data: data.update(golden_images=["golden/99.png"]), "golden: no hash of 'golden/99.png'"),
        (lambda data: data.pop("artifacts"), "'artifacts' is missing"),
        (lambda data: data["spec"].update(preprocess=nested(100)), "not readable as JSON"),
    ],
)
def test_manifests_that_make_no_sense(
    program: Program, device_bundle: Path, tmp_path: Path, change: Callable[[dict], None], text: str
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(device_bundle, bundle)
    data = json.loads((bundle / MANIFEST).read_text())
    change(data)
    (bundle / MANIFEST).write_text(json.dumps(data))
    one_line(program("verify", bundle), 2, text)
    for broken in ("{", ""):
        (bundle / MANIFEST).write_text(broken)
        one_line(program("verify", bundle), 2, "not readable as JSON")


def test_predict_equals_python(program: Program, device_bundle: Path, tmp_path: Path) -> None:
    bundle, images = Bundle.open(device_bundle), sorted((device_bundle / "golden").glob("0*"))
    for batch in ("1", "3"):
        out, lines = tmp_path / "e.npy", tmp_path / "lines.jsonl"
        result = program(
            "predict", device_bundle, device_bundle / "golden", "--out", out, "--json-lines", lines, "--batch", batch
        )
        assert result.returncode == 0, result.stderr
        np.testing.assert_allclose(np.load(out), expected(bundle, images), rtol=0, atol=1e-6)
        told = [json.loads(line) for line in lines.read_text().splitlines()]
        assert [one["row"] for one in told] == [0, 1, 2, 3] and told[1]["image"] == str(images[1])
    inside = [json.loads(line) for line in program("predict", device_bundle, *images).stdout.splitlines()]
    np.testing.assert_allclose([one["embedding"] for one in inside], np.load(out), rtol=0, atol=1e-6)


def test_bad_images_are_told_and_left_out(program: Program, device_bundle: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(ROOT / "cpp" / "tests" / "fuzz" / "corpus" / "decode", bad)
    golden = sorted((device_bundle / "golden").glob("0*"))
    for index, cut in enumerate((0, 1, 100, 700)):
        for image in golden[:2]:
            (bad / f"cut-{index}{image.suffix}").write_bytes(image.read_bytes()[:cut])
    (bad / "text.jpg").write_text("no image")
    Image.new("RGB", (8, 8)).save(bad / "other.jpg", "WEBP")
    (bad / "gone.jpg").symlink_to(bad / "nowhere")
    paths = sorted(bad.iterdir())
    listing = tmp_path / "list.txt"
    listing.write_text("\n".join(map(str, [golden[0], *paths, golden[1]])) + "\n")
    result = program("predict", device_bundle, "--list", listing, "--out", tmp_path / "e.npy")
    assert result.returncode == 0
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(told) == len(paths) + 2 and "row" in told[0] and "row" in told[-1]
    reasons = {Path(one["image"]).name: one.get("error") for one in told}
    for name in ("cut-0.png", "cut-1.jpg", "cut-2.jpg", "text.jpg", "other.jpg", "gone.jpg"):
        assert reasons[name] and "\n" not in reasons[name]
    good = np.load(tmp_path / "e.npy")
    assert len(good) == sum("row" in one for one in told)
    np.testing.assert_allclose(good[[0, -1]], expected(Bundle.open(device_bundle), golden[:2]), rtol=0, atol=1e-6)
    again = program("predict", device_bundle, "--list", listing, "--out", tmp_path / "e3.npy", "--batch", "3")
    assert again.returncode == 0
    np.testing.assert_allclose(np.load(tmp_path / "e3.npy"), good, rtol=0, atol=1e-6)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.png").write_text("no image")
    none = program("predict", device_bundle, tmp_path / "none", "--out", tmp_path / "none.npy")
    assert none.returncode == 2 and "none of the images could be read" in none.stderr


@pytest.mark.parametrize("storage", ["float32", "float16", "int8", "binary"])
def test_search_equals_the_gallery(program: Program, device_bundle: Path, tmp_path: Path, storage: str) -> None:
    bundle, images = Bundle.open(device_bundle), sorted((device_bundle / "golden").glob("0*"))
    rows = l2_normalize(np.random.default_rng(1).standard_normal((50, 8)).astype(np.float32))
    np.save(tmp_path / "gallery.npy", rows)
    memory = Gallery(8, storage)
    memory.add(rows)
    found, similarities = memory.search(expected(bundle, images), 5)
    command = ["search", device_bundle, *images, "--gallery", tmp_path / "gallery.npy", "--storage", storage]
    told = [json.loads(line) for line in program(*command, "--top", "5").stdout.splitlines()]
    for line, nearest, near in zip(told, found, similarities, strict=True):
        assert [one["row"] for one in line["neighbours"]] == nearest.tolist()
        np.testing.assert_allclose([one["similarity"] for one in line["neighbours"]], near, atol=1e-5)
    wrong = "--storage: expected float32, float16, int8 or binary, got 'int4'; see edgerecall-device search --help"
    one_line(program(*command[:-1], "int4"), 2, wrong)
    np.save(tmp_path / "wrong.npy", np.zeros((3, 5), np.float32))
    one_line(program(*command[:3], "--gallery", tmp_path / "wrong.npy"), 2, "expected embeddings of 8 numbers")
    everything = json.loads(program(*command, "--top", "1000000").stdout.splitlines()[0])
    assert len(everything["neighbours"]) == 50
    np.save(tmp_path / "double.npy", np.zeros((3, 8)))
    one_line(program(*command[:3], "--gallery", tmp_path / "double.npy"), 2, "expected a float32 array")


@pytest.mark.parametrize("storage", ["float32", "float16", "int8", "binary"])
def test_searches_the_gallery_that_python_wrote(
    program: Program, device_bundle: Path, tmp_path: Path, storage: Storage
) -> None:
    bundle, images = Bundle.open(device_bundle), sorted((device_bundle / "golden").glob("0*"))
    rows = l2_normalize(np.random.default_rng(1).standard_normal((90, 8)).astype(np.float32))
    with gallery.Gallery.create(tmp_path / "g", bundle, storage) as disk:
        for start, end in ((0, 60), (60, 80), (80, 90)):
            ids = [f"{number} Ä.jpg" for number in range(start, end)]
            labels = [None if number % 4 == 3 else f"tea {number % 5} 茶" for number in range(start, end)]
            disk.add(
                ids, rows[start:end], labels, [{"price": 1.5} if number % 2 else None for number in range(start, end)]
            )
        disk.remove([f"{number} Ä.jpg" for number in range(0, 90, 7)])
        found = disk.search(expected(bundle, images), 5)
    command = ["search", device_bundle, *images, "--gallery", tmp_path / "g", "--top", "5"]
    told = [json.loads(line)["neighbours"] for line in program(*command).stdout.splitlines()]
    for mine, theirs in zip(told, found, strict=True):
        assert [(one["id"], one["label"], one.get("metadata")) for one in mine] == [
            (one.id, one.label, one.metadata) for one in theirs
        ]
        np.testing.assert_allclose([one["similarity"] for one in mine], [one.similarity for one in theirs], atol=1e-5)
    everything = json.loads(program(*command[:-1], "1000").stdout.splitlines()[0])["neighbours"]
    assert len(everything) == 77

    other = tmp_path / "other"
    shutil.copytree(device_bundle, other)
    text = (other / MANIFEST).read_text()
    (other / MANIFEST).write_text(text.replace('"normalize_embedding": true', '"normalize_embedding": false'))
    one_line(program(command[0], other, *command[2:]), 2, "its embeddings are normalised otherwise; query by the model")
    described = tmp_path / "g" / "gallery.json"
    whole = described.read_text()
    changed = json.loads(whole)
    changed["model"]["signs"] = "signs by sign"
    described.write_text(json.dumps(changed))
    one_line(program(*command), 2, "its embeddings are signs, the query's are not")
    changed = json.loads(whole)
    changed["model"]["golden"][0] = [-value for value in changed["model"]["golden"][0]]
    described.write_text(json.dumps(changed))
    one_line(program(*command), 2, "another model: cosine of a golden embedding -1.0")
    changed = json.loads(whole)
    for one in changed["model"]["spec"]["preprocess"]["ops"]:
        if one["op"] == "normalize":
            one["mean"] = [0.5, 0.5, 0.5]
    described.write_text(json.dumps(changed))
    one_line(program(*command), 2, "its images were preprocessed otherwise; query by the model")


@pytest.mark.parametrize("storage", ["float32", "float16", "int8", "binary"])
def test_writes_the_gallery_that_python_reads(
    program: Program, device_bundle: Path, tmp_path: Path, storage: Storage
) -> None:
    bundle, images = Bundle.open(device_bundle), sorted((device_bundle / "golden").glob("0*"))
    embeddings = expected(bundle, images)
    names = [image.name for image in images]
    with gallery.Gallery.create(tmp_path / "g", bundle, storage) as disk:
        disk.add(["before", "1 ☃"], embeddings[:2], ["old", None], [{"a": 1}, None])
    with gallery.Gallery.create(tmp_path / "h", bundle, storage) as disk:
        disk.add(["before", "1 ☃"], embeddings[:2], ["old", None], [{"a": 1}, None])
        disk.add(names, embeddings, ["tea 茶"] * len(names))
        expected_found = disk.search(embeddings, 20)
    images_folder = tmp_path / "images"
    images_folder.mkdir()
    for image in images:
        shutil.copyfile(image, images_folder / image.name)
    (images_folder / "bad.jpg").write_bytes(b"no image")
    command = ("add", device_bundle, images_folder, "--gallery", tmp_path / "g")
    added = program(*command, "--label", "tea 茶")
    count = len(names)
    assert json.loads(added.stdout) == {"added": count, "replaced": 0, "skipped": 1, "rows": count + 2}, added.stderr
    assert "bad.jpg" in added.stderr and "left out" in added.stderr
    with DiskGallery(tmp_path / "g") as disk:
        assert check(tmp_path / "g") == []
        for mine, theirs in zip(disk.search(embeddings, 20), expected_found, strict=True):
            assert {(one.id, one.label) for one in mine} == {(one.id, one.label) for one in theirs}
            np.testing.assert_allclose([one.similarity for one in mine], [one.similarity for one in theirs], atol=1e-6)
    (images_folder / "bad.jpg").unlink()
    one_line(program(*command), 2, f"id '{names[0]}' is there already")
    again = json.loads(program(*command, "--replace").stdout)
    assert again == {"added": count, "replaced": count, "skipped": 0, "rows": count + 2}
    removed = json.loads(program("remove", tmp_path / "g", "1 ☃", names[0], "none").stdout)
    assert removed == {"removed": 2, "rows": count}
    assert json.loads(program("remove", tmp_path / "g", "none").stdout)["removed"] == 0
    with DiskGallery(tmp_path / "g", writable=True) as disk:  # and goes on with it
        assert check(tmp_path / "g") == [] and len(disk) == count
        assert {one.id for one in disk.rows()} == {"before", *names[1:]}
        one_line(program("remove", tmp_path / "g", "before"), 2, "is open for writing already")
        disk.add(["after"], embeddings[:1])
        disk.compact()
        assert disk.known(["after", names[1], names[0]]) == {"after", names[1]}
    assert json.loads(program("remove", tmp_path / "g", "before", "after", *names).stdout)["rows"] == 0
    files = {one.name for one in (tmp_path / "g").iterdir()}
    assert files == {"gallery.json", "lock"}


def test_what_the_program_does_not_write(program: Program, device_bundle: Path, tmp_path: Path) -> None:
    bundle, image = Bundle.open(device_bundle), sorted((device_bundle / "golden").glob("0*"))[0]
    with gallery.Gallery.create(tmp_path / "g", bundle) as disk:
        disk.add(["a"], np.ones((1, 8), np.float32))
    before = {one.name: one.read_bytes() for one in (tmp_path / "g").iterdir()}
    (tmp_path / "\udcff.jpg").write_bytes(image.read_bytes())
    for arguments, told in (
        (("add", device_bundle, image), "expected --gallery"),
        (("add", device_bundle, image, "--gallery", tmp_path / "g", "--label", ""), "--label: expected a text"),
        (("add", device_bundle, image, "--gallery", tmp_path / "none"), "gallery.json"),
        (
            ("add", device_bundle, image, "--gallery", tmp_path / "g", "--label", "x" * 5000),
            "1 to 4096 bytes, got 5000",
        ),
        (("add", device_bundle, tmp_path / "\udcff.jpg", "--gallery", tmp_path / "g"), "is no text in UTF-8"),
        (("remove", tmp_path / "g"), "expected a gallery's folder, and ids of rows"),
        (("remove", tmp_path / "none", "a"), "gallery.json"),
    ):
        one_line(program(*arguments), 2, told)
    assert {one.name: one.read_bytes() for one in (tmp_path / "g").iterdir()} == before


STOPPER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
/* Ends the program at the n-th of its steps that change the gallery. */
static void step(void) {
  static int left = -1;
  if (left < 0) left = atoi(getenv("STOP_AT"));
  if (--left == 0) raise(SIGKILL);
}
static int ours(const char* path) { return strstr(path, "-0.") || strstr(path, "-1.") || strstr(path, "gallery.json"); }
int fsync(int fd) { step(); return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd); }
int rename(const char* a, const char* b) {
  step();
  return ((int (*)(const char*, const char*))dlsym(RTLD_NEXT, "rename"))(a, b);
}
int remove(const char* path) {
  if (ours(path)) step();
  return ((int (*)(const char*))dlsym(RTLD_NEXT, "remove"))(path);
}
static FILE* opened(const char* name, const char* path, const char* mode) {
  if (mode[0] == 'w' && ours(path)) step();
  return ((FILE * (*)(const char*, const char*)) dlsym(RTLD_NEXT, name))(path, mode);
}
FILE* fopen(const char* path, const char* mode) { return opened("fopen", path, mode); }
FILE* fopen64(const char* path, const char* mode) { return opened("fopen64", path, mode); }
"""


@pytest.mark.parametrize("action", ["add", "replace", "remove"])
def test_ended_at_every_step_of_a_change(packed: Program, device_bundle: Path, tmp_path: Path, action: str) -> None:
    """The gallery is as before or as after, and after what was acknowledged; the next change goes on."""
    bundle, images = Bundle.open(device_bundle), sorted((device_bundle / "golden").glob("0*"))
    stopper = tmp_path / "stopper.so"
    (tmp_path / "stopper.c").write_text(STOPPER)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", stopper, tmp_path / "stopper.c", "-ldl"], check=True)
    names = [image.name for image in images]
    ids = [*(names[1:] if action == "add" else names), "other"]
    with gallery.Gallery.create(tmp_path / "whole", bundle) as disk:
        disk.add(ids, np.ones((len(ids), 8), np.float32))
    command = {
        "add": ("add", device_bundle, images[0], "--gallery", tmp_path / "g"),
        "replace": ("add", device_bundle, *images, "--gallery", tmp_path / "g", "--replace"),
        "remove": ("remove", tmp_path / "g", names[0], names[2]),
    }[action]
    states: dict[bool, set[int]] = {False: set(), True: set()}
    for stop_at in range(1, 100):
        shutil.rmtree(tmp_path / "g", ignore_errors=True)
        shutil.copytree(tmp_path / "whole", tmp_path / "g")
        result = packed(*command, LD_PRELOAD=str(stopper), STOP_AT=str(stop_at))
        assert check(tmp_path / "g") == [], stop_at
        with DiskGallery(tmp_path / "g") as disk:
            there = {one.id: row.tobytes() for one, row in disk.stored_rows()}
        states[result.returncode == 0].add(hash(frozenset(there.items())))
        again = packed(*command, *(("--replace",) if action == "add" else ()))
        assert again.returncode == 0 and check(tmp_path / "g") == [], again.stderr
        assert not list((tmp_path / "g").glob("*.tmp"))
        if result.returncode == 0:
            break
        assert result.returncode == -signal.SIGKILL
    assert result.returncode == 0 and stop_at > 8, "it was not ended at its steps"
    assert len(states[False] | states[True]) == 2 and len(states[True]) == 1


def test_a_gallery_with_an_index(program: Program, device_bundle: Path, tmp_path: Path) -> None:
    """What the program adds is found beside the index, and what it removes is not found by it."""
    bundle, images = Bundle.open(device_bundle), sorted((device_bundle / "golden").glob("0*"))
    rows = l2_normalize(np.random.default_rng(1).standard_normal((300, 8)).astype(np.float32))
    with gallery.Gallery.create(tmp_path / "g", bundle) as disk:
        disk.add([str(number) for number in range(300)], rows)
        disk.build_index("faiss:HNSW16")
    added = program("add", device_bundle, *images, "--gallery", tmp_path / "g")
    assert json.loads(added.stdout)["rows"] == 300 + len(images), added.stderr
    assert json.loads(program("remove", tmp_path / "g", "7").stdout)["removed"] == 1
    with DiskGallery(tmp_path / "g") as disk:
        assert check(tmp_path / "g") == [] and disk.manifest.index is not None
        assert [one[0].id for one in disk.search(expected(bundle, images), 1)] == [image.name for image in images]
        assert disk.search(rows[7:8], 1)[0][0].id != "7"
    every = [str(number) for number in range(300)]
    assert json.loads(program("remove", tmp_path / "g", *every).stdout)["rows"] == len(images)
    with DiskGallery(tmp_path / "g") as disk:
        assert disk.manifest.index is None and not list((tmp_path / "g").glob("*.faiss"))


def test_ids_as_python_gives_them(program: Program, device_bundle: Path, tmp_path: Path) -> None:
    bundle, image = Bundle.open(device_bundle), sorted((device_bundle / "golden").glob("0*"))[0]
    (tmp_path / "photos" / "in").mkdir(parents=True)
    shutil.copyfile(image, tmp_path / "photos" / f"a{image.suffix}")
    shutil.copyfile(image, tmp_path / "photos" / "in" / f"b{image.suffix}")
    shutil.copyfile(image, tmp_path / f"alone{image.suffix}")
    (tmp_path / "list.txt").write_text(f"{image}\n")
    gallery.Gallery.create(tmp_path / "g", bundle).close()
    given = (
        "add",
        device_bundle,
        f"{tmp_path}/photos//",
        tmp_path / f"alone{image.suffix}",
        "--list",
        tmp_path / "list.txt",
    )
    assert json.loads(program(*given, "--gallery", tmp_path / "g").stdout)["added"] == 4
    with DiskGallery(tmp_path / "g") as disk:
        assert {one.id for one in disk.rows()} == {
            f"a{image.suffix}", f"in/b{image.suffix}", f"alone{image.suffix}", str(image)
        }  # fmt: skip


def test_manifests_that_cannot_be_changed(program: Program, device_bundle: Path, tmp_path: Path) -> None:
    with gallery.Gallery.create(tmp_path / "g", Bundle.open(device_bundle)) as disk:
        disk.add(["a", "b"], np.ones((2, 8), np.float32))
    told = tmp_path / "g" / "gallery.json"
    whole = json.loads(told.read_text())
    for change in ({"next_file": "7"}, {"next_file": -1}, {"next_file": 1.5}, {"generation": None}):
        told.write_text(json.dumps({**whole, **change}))
        one_line(program("remove", tmp_path / "g", "a"), 2, f"{next(iter(change))}: expected a whole number")
    for index in ({"file": 1, "segments": 2}, {"file": {"path": 1}, "segments": [1]}, []):
        told.write_text(json.dumps({**whole, "index": index}))
        assert program("remove", tmp_path / "g", "none").returncode == 0


def test_a_damaged_gallery_is_told_or_searched(program: Program, device_bundle: Path, tmp_path: Path) -> None:
    bundle, images = Bundle.open(device_bundle), sorted((device_bundle / "golden").glob("0*"))[:1]
    rows = np.random.default_rng(1).standard_normal((30, 8)).astype(np.float32)
    with gallery.Gallery.create(tmp_path / "g", bundle, "int8") as disk:
        disk.add([f"{number}" for number in range(30)], rows, ["tea"] * 30)
        disk.remove(["3"])
    files = sorted(one for one in (tmp_path / "g").iterdir() if one.name != "lock")
    drawn, refused = random.Random(3), 0
    for number in range(40):
        file = files[number % len(files)]
        whole = file.read_bytes()
        damaged = bytearray(whole)
        if number % 5 == 0:
            damaged = damaged[: drawn.randrange(len(whole))]
        else:
            damaged[drawn.randrange(min(len(whole), 1200))] ^= 1 << drawn.randrange(8)
        file.write_bytes(damaged)
        result = program("search", device_bundle, *images, "--gallery", tmp_path / "g")
        if result.returncode != 0:
            refused += 1
            one_line(result, 2, "")
        file.write_bytes(whole)
    assert refused > 10


def test_bench(program: Program, device_bundle: Path, tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text("".join(f"{path}\n" for path in sorted((device_bundle / "golden").glob("0*"))))
    result = program(
        *("bench", device_bundle, "--out", tmp_path / "out", "--list", listing, "--threads", "1,2"),
        *("--samples", "7", "--rounds", "3", "--runtime", "onnxruntime,openvino"),
    )
    assert result.returncode == 0, result.stdout
    told = json.loads((tmp_path / "out" / "bench.json").read_text())
    names = [row["name"] for row in told["rows"]]
    assert names == ["onnxruntime 1t", "openvino 1t", "onnxruntime 2t", "openvino 2t"]
    for index, row in enumerate(told["rows"]):
        samples = np.asarray(row["samples_ns"])
        assert row["status"] == "ok" and len(samples) == 7 and len(row["round_medians_ns"]) == 3
        assert row["latency_p50_ms"] == pytest.approx(np.median(samples) / 1e6)
        assert row["latency_p99_ms"] == pytest.approx(np.percentile(samples, 99) / 1e6)
        assert row["peak_rss_mb"] > 5 and row["golden_max_error"] < 1e-5 and row["repeat_max_error"] < 1e-6
        reference = expected(Bundle.open(device_bundle), sorted((device_bundle / "golden").glob("0*")))
        np.testing.assert_allclose(np.load(tmp_path / "out" / f"row-{index}.npy"), reference, rtol=0, atol=1e-5)
    assert told["rows"][0]["cpus"] == str(max(os.sched_getaffinity(0)))
    assert told["rows"][1]["precision_source"] == "OpenVINO's profile"
    assert told["pixel_error"] == 0 and len(told["thermal_log"]) >= 4 and told["bad_images"] == []


def test_a_row_that_cannot_run_is_a_row(program: Program, device_bundle: Path, tmp_path: Path) -> None:
    result = program("bench", device_bundle, "--out", tmp_path, "--runtime", "onnxruntime,ncnn", "--samples", "2")
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert result.returncode == 1 and [row["status"] for row in rows] == ["ok", "missing"]
    assert "not in this build of the core" in rows[1]["reason"]
    result = program("bench", device_bundle, "--out", tmp_path, "--runtime", "onnxruntime", "--timeout-s", "0.00001")
    (row,) = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert result.returncode == 1 and row["status"] == "failed" and "no answer within 1e-05 s" in row["reason"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["frobnicate"], "there is no verb 'frobnicate'"),
        (["verify"], "expected the folder of a bundle"),
        (["verify", "BUNDLE", "--threads", "0"], "--threads: expected a whole number from 1 to 1024"),
        (["predict", "BUNDLE", "BUNDLE", "--threads", "1025"], "--threads: expected a whole number from 1 to 1024"),
        (["bench", "BUNDLE", "--threads", "1,2000", "--out", "O"], "--threads: expected a whole number from 1 to 1024"),
        (["bench", "BUNDLE", "--batch", "5000", "--out", "O"], "--batch: expected a whole number from 1 to 4096"),
        (["verify", "BUNDLE", "--precision", "fp8"], "expected one of fp32, fp16, bf16"),
        (["verify", "BUNDLE", "--cpus", "9999"], "cpus: expected all, big, little or a list"),
        (["verify", "BUNDLE", "--nothing"], "there is no option --nothing"),
        (["predict", "BUNDLE"], "expected images"),
        (["predict", "BUNDLE", "--runtime"], "a value is missing behind --runtime"),
        (["predict", "BUNDLE", "BUNDLE", "--runtime", "tflite"], "no artifact for runtime 'tflite'"),
        (["bench", "BUNDLE"], "expected --out FOLDER"),
        (["search", "BUNDLE", "BUNDLE"], "expected --gallery: a gallery's folder, or FILE.npy"),
        (["verify", "/nowhere"], "found no bundle.json in it"),
    ],
)
def test_mistakes(program: Program, device_bundle: Path, arguments: list[str], text: str) -> None:
    result = program(*(str(device_bundle) if word == "BUNDLE" else word for word in arguments))
    assert text in result.stderr + result.stdout and result.returncode in (1, 2)
    assert "usage" in program("--help").stdout and "BUNDLE" in program("verify", "--help").stdout
