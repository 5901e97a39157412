"""Planted faults: `why` names each in one line, and the bench's gate stops each."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bf16 import FP32_COSINE, run_in_bf16
from planted import onnx_parameters, seal_again

from edgerecall.bench.diagnose.pixel_trace import first_difference, trace
from edgerecall.bench.diagnose.sides import SideRequest
from edgerecall.bench.diagnose.why import Answer, why
from edgerecall.bench.measure.image_set import ImageSet
from edgerecall.bench.measure.runner import run_bench
from edgerecall.bench.schema.options import BenchOptions
from edgerecall.bench.schema.rows import BenchResult
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.bundle.manifest import EMBEDDINGS, MANIFEST
from edgerecall.runtimes.core.errors import InputError, RuntimeFailed
from edgerecall.runtimes.core.files import sha256
from edgerecall.runtimes.embed.replicas import open_predictor
from edgerecall.runtimes.preprocess.ops import CenterCrop, Decode, Normalize, Preprocess, ResizeExact, ResizeShort
from edgerecall.runtimes.preprocess.transform_ops import read_preprocess

NORMALIZE = {"NormalizeImage": {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}


def transform_ops(**resize: Any) -> list[Any]:
    """The bundle's own preprocessing as a deployment config has it, with another resize."""
    short = {"resize_short": 72, "backend": "pil", "interpolation": "bilinear", **resize}
    return [{"ResizeImage": short}, {"CropImage": {"size": 64}}, NORMALIZE, {"ToCHWImage": None}]


def changed_manifest(bundle: Path, folder: Path, change: Callable[[Any], None]) -> Bundle:
    """A copy of a bundle with another manifest."""
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return Bundle.open(folder)


def ops_changed(kind: str, **fields: Any) -> Callable[[Any], None]:
    """A manifest's preprocessing with other fields in an operation."""

    def change(manifest: Any) -> None:
        (op,) = (op for op in manifest["spec"]["preprocess"]["ops"] if op["op"] == kind)
        assert {name: op[name] for name in fields} != fields
        op.update(fields)

    return change


def gate(bundle: Bundle, data: Path, **options: Any) -> BenchResult:
    """A bench with the default gates."""
    preprocess = options.pop("preprocess", None)
    settings = BenchOptions(**{"samples": 4, "rounds": 2, "runtimes": ("onnxruntime", "lite"), **options})
    images = ImageSet.find(data)
    return run_bench(bundle, images, settings, "tests", lambda what, share: None, preprocess=preprocess)


def ask(bundle: Bundle, a: str, b: str, **sides: Any) -> Answer:
    """`why`, by default of the first golden image; `sides` are of b."""
    image = sides.pop("image", None)
    return why(bundle, image, SideRequest(a), SideRequest(b, **sides))


def not_square(bundle: Bundle, data: Path, tmp_path: Path) -> Path:
    """An image whose longer side the two size rules make differ."""
    from PIL import Image

    path = tmp_path / "oblong.png"
    source = Image.open(sorted(data.glob("*_final/*.JPG"))[0]).convert("RGB")
    source.resize((89, 131)).save(path)  # 131 / 89 * 72 = 105.98
    return path


@pytest.mark.cpu_sensitive
def test_nothing_planted_nothing_found(real_bundle: Path, lite_ready: None, data: Path) -> None:
    bundle = Bundle.open(real_bundle)
    for a, b in (("paddle", "lite"), ("sealed", "openvino"), ("onnxruntime", "paddle")):
        answer = ask(bundle, a, b)
        assert not answer.differs and answer.cause.startswith("no difference: cosine 1.0000000")
    result = gate(bundle, data, runtimes=("paddle", "onnxruntime", "openvino", "lite"))
    assert result.exit_code == 0


PIXEL_FAULTS = {
    "cv2 for pil": (
        ops_changed("resize_short", backend="cv2"),
        {"backend": "cv2"},
        "resize differs (backend pil against cv2",
    ),
    "one-pixel resize rule": (
        ops_changed("resize_short", rounding="round"),
        {},
        "resize differs (rounding truncate against round",
    ),
    "BGR for RGB": (ops_changed("normalize", order="bgr"), None, "normalise differs (order rgb against bgr"),
}


@pytest.mark.cpu_sensitive
@pytest.mark.parametrize("fault", PIXEL_FAULTS)
def test_pixel_faults_in_the_application(
    fault: str, real_bundle: Path, lite_ready: None, data: Path, tmp_path: Path
) -> None:
    """The application preprocesses by its own config."""
    _, resize, sentence = PIXEL_FAULTS[fault]
    ops = transform_ops(**(resize or {}))
    if resize is None:
        ops[0] = {"Resize": {"size": 72, "backend": "pil"}}
        ops.insert(0, {"DecodeImage": {"to_rgb": False}})
    config = tmp_path / "inference.yaml"
    config.write_text(yaml.safe_dump({"RecPreProcess": {"transform_ops": ops}}))
    preprocess, bundle = read_preprocess(config), Bundle.open(real_bundle)
    answer = ask(bundle, "paddle", "lite", preprocess=preprocess, image=not_square(bundle, data, tmp_path))
    assert answer.differs and answer.cause.startswith(sentence) and "\n" not in answer.cause
    assert "1.000000 after equal pixels" in answer.cause and answer.cosine < 0.9995
    # The generated images are square: the size rule needs images that are not.
    folder = tmp_path / "images"
    folder.mkdir()
    from PIL import Image

    for index, path in enumerate(sorted(data.glob("*_final/*.JPG"))[:12]):
        Image.open(path).convert("RGB").resize((89, 131)).save(folder / f"{index}.png")
    result = gate(bundle, folder, preprocess=preprocess)
    assert result.exit_code == 1
    assert all(row.status == "parity" and "cosine fell to" in str(row.reason) for row in result.rows)


@pytest.mark.parametrize("fault", ["cv2 for pil", "BGR for RGB"])
def test_pixel_faults_in_the_bundle(
    fault: str, real_bundle: Path, lite_ready: None, data: Path, tmp_path: Path
) -> None:
    """Its spec no longer says how its golden tensors were made: what did is found out."""
    change, _, sentence = PIXEL_FAULTS[fault]
    bundle = changed_manifest(real_bundle, tmp_path / "bundle", change)
    answer = ask(bundle, "paddle", "lite")
    assert answer.differs and answer.cause.startswith(f"the bundle: {sentence}"), answer.cause
    result = gate(bundle, data)
    assert result.exit_code == 1 and "preprocessing differs from the sealed tensors" in str(result.problem)


@pytest.mark.cpu_sensitive
def test_bf16_execution(real_bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(real_bundle)
    told = run_in_bf16(bundle, "openvino")
    if told is None or "bf16" not in told:  # this CPU does not run it, whoever asks
        not_run_in_bf16(bundle, "paddle", told)
        return
    answer = ask(bundle, "paddle", "openvino:bf16")
    assert answer.cause.startswith(f"precision differs (paddle runs fp32, openvino:bf16 runs {told}): cosine 0.9")
    assert answer.cosine < FP32_COSINE
    # The fault as it happens: the hint that asks for fp32 does not reach the runtime.
    wrong = tmp_path / "sitecustomize.py"
    wrong.write_text(
        "import openvino\n"
        "honest = openvino.Core.compile_model\n"
        "def compile_model(self, model, device=None, config=None):\n"
        "    return honest(self, model, device, {**(config or {}), 'INFERENCE_PRECISION_HINT': 'bf16'})\n"
        "openvino.Core.compile_model = compile_model\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    result = gate(bundle, data, runtimes=("onnxruntime", "openvino"))
    assert [row.status for row in result.rows] == ["ok", "parity"] and result.exit_code == 1
    row = result.rows[1]
    assert row.precision == told and row.precision_source == "OpenVINO's execution graph"
    sentence = ask(bundle, "onnxruntime", "openvino").cause
    assert sentence.startswith(f"precision differs (onnxruntime runs fp32, openvino runs {told})")


def not_run_in_bf16(bundle: Bundle, other: str, told: str | None) -> None:
    """Where OpenVINO refuses bf16 so does `why`; where it runs fp32 instead there is no difference to explain."""
    if told is None:
        with pytest.raises(RuntimeFailed, match="openvino cannot load the model"):
            ask(bundle, other, "openvino:bf16")
    else:
        assert not ask(bundle, other, "openvino:bf16").differs


def perturb_onnx(bundle: Path, folder: Path) -> tuple[Bundle, str]:
    """One convolution's weights off by about 1e-3 of themselves, sealed anew; and that convolution's name."""
    import onnx

    shutil.copytree(bundle, folder)
    path = folder / "onnx" / "model.onnx"
    model = onnx.load(path)
    chosen = [one for one in onnx_parameters(model) if one.role == "W"][-2]
    noise = 1 + 1e-3 * np.random.default_rng(0).standard_normal(chosen.values.shape)
    chosen.put((chosen.values * noise).astype(np.float32))
    onnx.save(model, path)
    return seal_again(folder), chosen.operator


@pytest.mark.cpu_sensitive
def test_a_perturbed_weight(real_bundle: Path, lite_ready: None, data: Path, tmp_path: Path) -> None:
    bundle, output = perturb_onnx(real_bundle, tmp_path / "bundle")
    forward = ask(bundle, "onnxruntime", "paddle").cause
    assert forward.startswith(f"graph differs (confirmed: '{output}' (Conv) in onnxruntime"), forward
    assert "onnxruntime left the sealed output" in forward and "\n" not in forward
    for other in ("paddle", "lite", "openvino"):
        assert f"'{output}' (Conv) in onnxruntime" in ask(bundle, other, "onnxruntime").cause
    assert not ask(bundle, "paddle", "openvino").differs
    result = gate(bundle, data)
    statuses = {row.runtime: row.status for row in result.rows}
    assert statuses == {"onnxruntime": "parity", "lite": "ok"} and result.exit_code == 1
    assert "embeddings differ from the reference" in str(result.rows[0].reason)


def test_a_tensor_and_an_embedding_from_an_application(
    real_bundle: Path,
    lite_ready: None,
    data: Path,
    tmp_path: Path,
    edgerecall: Callable[..., Any],
    one_line: Callable[..., None],
) -> None:
    bundle = Bundle.open(real_bundle)
    image = not_square(bundle, data, tmp_path)
    config = tmp_path / "inference.yaml"
    config.write_text(yaml.safe_dump({"RecPreProcess": {"transform_ops": transform_ops(backend="cv2")}}))
    from edgerecall.runtimes.preprocess.pipeline import preprocess_file

    tensor = preprocess_file(image, read_preprocess(config))
    np.save(tmp_path / "fed.npy", tensor)
    with open_predictor(bundle, "lite", worker=True) as predictor:
        np.save(tmp_path / "got.npy", predictor.embed(tensor[None])[0])
    for side in (f"tensor={tmp_path / 'fed.npy'}", f"embedding={tmp_path / 'got.npy'}"):
        result = edgerecall("why", real_bundle, "--image", image, "--a", "onnxruntime", "--b", side)
        assert result.returncode == 1, result.stderr
        last = result.stdout.strip().splitlines()[-1]
        assert last.startswith("resize differs (backend pil against cv2, rounding truncate against round"), last
    np.save(tmp_path / "short.npy", tensor[:2])
    (tmp_path / "no.npy").write_text("no array")
    ask_one = ("why", real_bundle, "--image", image, "--a", "onnxruntime", "--b")
    one_line(edgerecall(*ask_one, f"tensor={tmp_path / 'short.npy'}"), 2, "expected floats of shape (3, 64, 64), got")
    one_line(edgerecall(*ask_one, f"tensor={tmp_path / 'no.npy'}"), 2, "expected a .npy file")
    one_line(edgerecall(*ask_one, "sealed"), 2, "not one of the bundle's golden images")
    one_line(edgerecall(*ask_one, "caffe"), 2, "runtime: no 'caffe'")
    assert edgerecall("why", real_bundle, "--b", "lite").returncode == 0


@pytest.mark.cpu_sensitive
def test_bf16_beside_what_is_sealed(real_bundle: Path) -> None:
    bundle = Bundle.open(real_bundle)
    told = run_in_bf16(bundle, "openvino")
    if told is None or "bf16" not in told:
        not_run_in_bf16(bundle, "sealed", told)
        return
    answer = ask(bundle, "sealed", "openvino:bf16")
    assert answer.cause.startswith(f"precision differs (sealed runs fp32, openvino:bf16 runs {told})")


@pytest.mark.cpu_sensitive
def test_what_nothing_explains_is_not_blamed_on_the_pixels(real_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(real_bundle)
    _, tensors, embeddings = bundle.golden()
    np.save(tmp_path / "rounded.npy", tensors[0].astype(np.float16).astype(np.float32))
    np.save(tmp_path / "other.npy", embeddings[3])
    np.save(tmp_path / "hwc.npy", tensors[0].transpose(1, 2, 0))
    answer = ask(bundle, "onnxruntime", f"tensor={tmp_path / 'rounded.npy'}")
    assert answer.differs and answer.cause.startswith("input differs (") and "rounded to float16)" in answer.cause
    answer = ask(bundle, "onnxruntime", f"embedding={tmp_path / 'other.npy'}")
    assert answer.differs
    assert "differs in pixels, precision or graph, from no cause known here; nearest: " in answer.cause
    with pytest.raises(InputError, match=r"expected floats of shape \(3, 64, 64\), got float32 \(64, 64, 3\)"):
        ask(bundle, "onnxruntime", f"tensor={tmp_path / 'hwc.npy'}")
    with pytest.raises(InputError, match="expected a runtime on one side"):
        ask(bundle, "sealed", f"embedding={tmp_path / 'other.npy'}")


def test_bundles_of_other_sizes_are_refused(
    real_bundle: Path, lite_ready: None, fake_bundle: Callable[..., Bundle]
) -> None:
    with pytest.raises(InputError, match="these cannot be compared"):
        why(Bundle.open(real_bundle), None, SideRequest("lite"), SideRequest("fake", bundle=fake_bundle()))


def test_steps_of_another_kind_with_equal_pixels_are_no_cause(data: Path, tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "square.png"
    Image.open(sorted(data.glob("*_final/*.JPG"))[0]).convert("RGB").resize((64, 64)).save(path)
    crop = CenterCrop(height=64, width=64, margin="round")
    ways = [
        Preprocess(ops=(Decode(), ResizeShort(size=64, rounding="truncate"), crop, Normalize())),
        Preprocess(ops=(Decode(), ResizeExact(height=64, width=64), crop, Normalize(order="bgr"))),
        Preprocess(ops=(Decode(), ResizeExact(height=64, width=64), Normalize(order="bgr"))),
    ]
    steps = [trace(path.read_bytes(), way, "x") for way in ways]
    for other in steps[1:]:
        found = first_difference(steps[0], other)
        assert found is not None and (found.stage, found.what) == ("normalise", "order rgb against bgr")


def test_another_file_of_the_image(real_bundle: Path, lite_ready: None, data: Path, tmp_path: Path) -> None:
    from PIL import Image

    image = sorted(data.glob("*_final/*.JPG"))[0]
    Image.open(image).save(tmp_path / "again.jpg", quality=30)
    bundle = Bundle.open(real_bundle)
    other = why(bundle, image, SideRequest("lite"), SideRequest("lite", image=tmp_path / "again.jpg"))
    assert other.differs and other.cause.startswith("the files differ (")


@pytest.mark.runtime
@pytest.mark.parametrize("side", ["cpp-onnxruntime", "cpp-openvino:fp32"])
def test_a_runtime_of_the_core_is_a_side(device_bundle: Path, edgerecall: Callable[..., Any], side: str) -> None:
    """With and without a precision behind its name."""
    result = edgerecall("why", device_bundle, "--b", side)
    assert result.returncode == 0 and side in result.stdout, result.stdout + result.stderr


@pytest.mark.parametrize("unit", [True, False])
def test_an_output_that_is_doubled(fake_bundle: Callable[..., Bundle], unit: bool) -> None:
    """Its direction is right and `verify` refuses it: so does this, also where embeddings have unit length."""
    bundle = fake_bundle()
    vectors, path = bundle.root / EMBEDDINGS, bundle.root / MANIFEST
    np.save(vectors, np.load(vectors) / 2)
    manifest = json.loads(path.read_text())
    manifest["spec"]["normalize_embedding"] = unit
    for file in manifest["golden"]:
        if file["path"] == EMBEDDINGS:
            file |= {"bytes": vectors.stat().st_size, "sha256": sha256(vectors)}
    path.write_text(json.dumps(manifest))
    answer = ask(Bundle.open(bundle.root), "sealed", "fake")
    assert answer.differs, answer.cause
