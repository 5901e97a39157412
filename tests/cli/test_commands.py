"""The command line as a user meets it: help, mistakes, bad files, exit codes."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from edgerecall.cli import COMMANDS
from edgerecall.runtimes.bundle.bundle import Bundle

Run = Callable[..., subprocess.CompletedProcess[str]]
OneLine = Callable[..., None]
Make = Callable[..., Bundle]
VERBS = tuple(COMMANDS)


def test_help_lists_every_verb_and_imports_nothing_heavy(edgerecall: Run) -> None:
    text = edgerecall("--help").stdout
    assert all(f"  {verb} " in text for verb in VERBS)
    for verb in VERBS:
        assert edgerecall(verb, "--help").returncode == 0
    code = "import sys; from edgerecall.cli import group; group(['--help'], standalone_mode=False);" + (
        "print(sorted({'numpy', 'paddle', 'rich', 'pydantic', 'PIL'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip().endswith("[]")


def test_importing_edgerecall_does_not_import_paddle() -> None:
    code = (
        "import sys, edgerecall; edgerecall.load; edgerecall.Bundle;"
        "import edgerecall.bench.measure.runner, edgerecall.bench.report.tables, edgerecall.runtimes.embed.verify;"
        "assert not {'paddle', 'onnxruntime', 'openvino', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_deployment_half_works_where_paddle_is_not(fake_bundle: Make) -> None:
    bundle = fake_bundle()
    code = (
        "import sys; sys.modules['paddle'] = None; import edgerecall\n"
        "from edgerecall.runtimes.core.errors import RuntimeUnavailable\n"
        "print(edgerecall.load(sys.argv[1], runtime='fake').embed_images(sys.argv[2]).shape)"
    )
    command = [sys.executable, "-c", code, str(bundle.root), str(bundle.golden()[0][0])]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "(1, 16)"


def test_training_without_paddle_names_the_extra(config_file: Path) -> None:
    code = (
        "import sys; sys.modules['paddle'] = None; from edgerecall.cli import main; main(['train', '-c', sys.argv[1]])"
    )
    result = subprocess.run([sys.executable, "-c", code, str(config_file)], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.strip() == "edgerecall: this needs paddlepaddle: run \"pip install 'edgerecall[train]'\""


def test_usage_mistakes(edgerecall: Run) -> None:
    wrong = edgerecall("trian")
    assert wrong.returncode == 2 and "Did you mean 'train'?" in wrong.stderr
    for arguments in (["train"], ["bench", "x"], ["export", "x"], ["predict", "-c", "x", "--format", "npy"]):
        result = edgerecall(*arguments)
        assert result.returncode == 2 and "Traceback" not in result.stderr


def test_debug_shows_the_traceback(edgerecall: Run, tmp_path: Path) -> None:
    assert "Traceback" in edgerecall("--debug", "verify", tmp_path).stderr
    assert "Traceback" not in edgerecall("verify", tmp_path).stderr


@pytest.mark.train
def test_bad_configs(edgerecall: Run, config_file: Path, one_line: OneLine, tmp_path: Path) -> None:
    one_line(edgerecall("train", "-c", tmp_path / "none.yaml"), 2, "No such file")
    one_line(edgerecall("train", "-c", config_file, "-o", "Global.epoch=1"), 2, "did you mean 'epochs'?")
    one_line(edgerecall("train", "-c", config_file, "-o", "Global.device=gpu"), 2, "Global.device=cpu")
    one_line(edgerecall("eval", "-c", config_file, "-o", "Arch.Backbone.name=PPLCNet_x9"), 2, "did you mean 'PPLCNet_x")
    one_line(edgerecall("train", "-c", config_file, "-o", "Arch.Neck.embedding_size=99"), 2, "gives 1280 features")
    assert not (tmp_path / "run" / "latest.pdparams").exists()


@pytest.mark.train
def test_bad_lists(edgerecall: Run, config_file: Path, data: Path, one_line: OneLine, tmp_path: Path) -> None:
    lines = (data / "train_list.txt").read_text().splitlines()
    for text, message in (("none.JPG 3", "no such image"), (f"{lines[0].split()[0]} x", "whole number as label")):
        (tmp_path / "list.txt").write_text("\n".join([*lines, text]))
        override = f"DataLoader.Train.dataset.cls_label_path={tmp_path / 'list.txt'}"
        one_line(edgerecall("train", "-c", config_file, "-o", override), 2, f"list.txt:{len(lines) + 1}: ", message)
    (tmp_path / "list.txt").write_bytes("\r\n".join(lines).encode())
    override = f"DataLoader.Train.dataset.cls_label_path={tmp_path / 'list.txt'}"
    result = edgerecall("train", "-c", config_file, "-o", override, "-o", "Global.iter_per_epoch=1")
    assert result.returncode == 0, result.stderr


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, ("touch edgerecall-payload-ran",))


def test_bad_checkpoints(edgerecall: Run, trained: Path, one_line: OneLine, tmp_path: Path) -> None:
    config, good = trained / "train.yaml", trained / "run" / "latest.pdparams"
    (tmp_path / "cut.pdparams").write_bytes(good.read_bytes()[:5000])
    (tmp_path / "list.pdparams").write_bytes(pickle.dumps([1]))
    (tmp_path / "evil.pdparams").write_bytes(pickle.dumps({"w": Payload()}))
    shutil.copy(good, tmp_path / "good.pdparams")
    for name, message in (
        ("cut", "damaged"),
        ("list", "expected a state dict"),
        ("evil", "wants to load"),
        ("none", "No such"),
    ):
        for command in (["eval"], ["export", tmp_path / "bundle"]):
            result = edgerecall(*command, "-c", config, "--checkpoint", tmp_path / name, cwd=tmp_path)
            one_line(result, 2, f"{name}.pdparams", message)
    result = edgerecall(
        "eval", "-c", config, "-o", "Arch.Backbone.name=PPLCNet_x0_25", "--checkpoint", tmp_path / "good"
    )
    one_line(result, 2, "missing: ", "another architecture")
    assert not (tmp_path / "edgerecall-payload-ran").exists() and not (tmp_path / "bundle").exists()


@pytest.mark.cpu_sensitive
def test_eval_prints_the_references_line_last(edgerecall: Run, trained: Path) -> None:
    result = edgerecall("eval", "-c", trained / "train.yaml", "--checkpoint", trained / "run" / "best_model")
    last = result.stdout.strip().splitlines()[-1]
    assert result.returncode == 0 and last.startswith("[Eval][Epoch 0][Avg]recall1: 0.") and ", mAP: 0." in last
    named = ["-o", f"Global.pretrained_model={trained / 'run' / 'best_model'}"]
    assert edgerecall("eval", "-c", trained / "train.yaml", *named).stdout.strip().splitlines()[-1] == last


def test_bad_bundles(edgerecall: Run, fake_bundle: Make, one_line: OneLine, data: Path) -> None:
    root = fake_bundle().root
    manifest = json.loads((root / "bundle.json").read_text())
    (root / "bundle.json").write_text(json.dumps({**manifest, "format_version": 99}))
    for command in (["verify", root], ["bench", root, "--images", data]):
        one_line(edgerecall(*command), 2, "formats 1 and 2, got 99")
    (root / "bundle.json").write_text(json.dumps(manifest))
    path = root / "fake" / "model.json"
    path.write_bytes(path.read_bytes() + b" ")
    for command in (["verify", root], ["bench", root, "--images", data]):
        one_line(edgerecall(*command), 2, "changed since export")


@pytest.fixture
def rec_config(tmp_path: Path) -> Path:
    path = tmp_path / "rec.yaml"
    settings = {"infer_imgs": "?", "rec_inference_model_dir": "?", "runtime": "fake", "batch_size": 3}
    path.write_text(yaml.safe_dump({"Global": settings, "RecPostProcess": None}))
    return path


@pytest.fixture
def odd_images(tmp_path: Path, data: Path) -> Path:
    """Three good images, six odd ones that must work, and four bad ones."""
    folder = tmp_path / "images"
    folder.mkdir()
    good = sorted(data.glob("*_final/*.JPG"))[:3]
    for index, path in enumerate(good):
        shutil.copy(path, folder / f"good{index}.jpg")
    picture = Image.open(good[0])
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    picture.convert("L").save(folder / "gray.jpg")
    picture.resize((1, 1)).save(folder / "one.png")
    Image.fromarray((np.arange(100 * 90, dtype=np.uint16) * 7).reshape(100, 90)).save(folder / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(folder / "turned.jpg", exif=exif)
    picture.convert("P").save(folder / "palette.png")
    (folder / "bad_cut.jpg").write_bytes(good[0].read_bytes()[:900])
    (folder / "bad_text.jpg").write_text("no image")
    (folder / "other.HEIC").write_bytes(b"x")
    (folder / "other_gone.jpg").symlink_to("nowhere")
    os.mkfifo(folder / "other_pipe.png")
    (folder / "bad_empty.jpg").write_bytes(b"")
    Image.new("L", (12000, 9000)).save(folder / "bad_huge.png")
    return folder


def predict(
    edgerecall: Run, config: Path, images: Path, bundle: Path, *more: object
) -> subprocess.CompletedProcess[str]:
    where = ["-o", f"Global.infer_imgs={images}", "-o", f"Global.rec_inference_model_dir={bundle}"]
    return edgerecall("predict", "-c", config, *where, *more)


PASSED_OVER = "3 files passed over that are no .bmp/.jpeg/.jpg/.png/.tif/.tiff/.webp: .heic, other_gone.jpg (no file), "


def test_what_is_no_image_is_told_by_whoever_reads_a_folder(
    edgerecall: Run, fake_bundle: Make, odd_images: Path, tmp_path: Path
) -> None:
    """Links to nothing and pipes too, and none is waited for."""
    root = fake_bundle().root
    for line in (
        ("bench", root, "--images", odd_images, "--samples", 2, "--rounds", 1, "--runtime", "fake"),
        ("gallery", "build", tmp_path / "g", root, "--images", odd_images, "--runtime", "fake"),
        ("gallery", "search", tmp_path / "g", root, odd_images, "--runtime", "fake"),
        ("embed", root, tmp_path / "out", "--images", odd_images, "--runtime", "fake"),
        ("export", tmp_path / "new", "--model", "model.onnx", "--preprocess", "imagenet", "--images", odd_images),
    ):
        told = edgerecall(*line, cwd=tmp_path).stderr
        assert PASSED_OVER + "other_pipe.png (no file)" in told, (line[0], told)


def test_predict_skips_bad_images_and_names_them(
    edgerecall: Run, fake_bundle: Make, rec_config: Path, odd_images: Path, one_line: OneLine, tmp_path: Path
) -> None:
    root = fake_bundle().root
    result = predict(edgerecall, rec_config, odd_images, root)
    assert result.returncode == 0, result.stderr
    names = [line.split(":\t")[0] for line in result.stdout.splitlines()]
    assert names == sorted(path.name for path in odd_images.iterdir() if not path.name.startswith(("bad", "other")))
    assert all(line.split(":\t")[1].startswith("[") and line.endswith("]") for line in result.stdout.splitlines())
    warnings = [line for line in result.stderr.splitlines() if "skipped" in line]
    assert PASSED_OVER in result.stderr
    assert len(warnings) == 4 and "108 million pixels" in result.stderr and "Traceback" not in result.stderr
    one_line(predict(edgerecall, rec_config, odd_images, root, "--strict"), 2, "bad_cut.jpg")
    one_line(predict(edgerecall, rec_config, odd_images / "bad_text.jpg", root), 2, "none of the 1 images")
    one_line(predict(edgerecall, rec_config, tmp_path / "nowhere", root), 2, "found nothing there")


def test_predict_galleries(edgerecall: Run, fake_bundle: Make, rec_config: Path, data: Path, tmp_path: Path) -> None:
    root, images = fake_bundle().root, data / "mug_final"
    count = len(list(images.iterdir()))
    for kind in ("npy", "jsonl", "parquet"):
        output = tmp_path / f"gallery.{kind}"
        result = predict(edgerecall, rec_config, images, root, "--format", kind, "--output", output)
        assert result.returncode == 0, result.stderr
    array = np.load(tmp_path / "gallery.npy")
    assert array.shape == (count, 16) and array.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(array, axis=1), 1, atol=1e-6)
    names = (tmp_path / "gallery.npy.txt").read_text().splitlines()
    rows = [json.loads(line) for line in (tmp_path / "gallery.jsonl").read_text().splitlines()]
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(tmp_path / "gallery.parquet").to_pydict()
    assert names == [row["image"] for row in rows] == table["image"]
    np.testing.assert_allclose(array, [row["embedding"] for row in rows], atol=1e-7)
    np.testing.assert_allclose(array, table["embedding"], atol=1e-7)


@pytest.mark.cpu_sensitive
def test_predict_keeps_the_references_keys(
    edgerecall: Run, real_bundle: Path, lite_ready: None, root: Path, data: Path
) -> None:
    """The shipped config, over a bundle in two runtimes and over a plain Paddle model, gives one and the same."""
    printed = {}
    for runtime in ("paddle", "lite"):
        config = root / "configs" / "inference_rec.yaml"
        result = predict(edgerecall, config, data / "mug_final", real_bundle, "-o", f"Global.runtime={runtime}")
        assert result.returncode == 0, result.stderr
        printed[runtime] = [
            np.array(line.split("[")[1].rstrip("]").split(), dtype=np.float32) for line in result.stdout.splitlines()
        ]
    np.testing.assert_allclose(printed["paddle"], printed["lite"], atol=1e-5)


def test_predict_with_a_plain_model(
    edgerecall: Run, real_bundle: Path, root: Path, data: Path, tmp_path: Path, one_line: OneLine
) -> None:
    config = yaml.safe_load((root / "configs" / "inference_rec.yaml").read_text())
    config["Global"].update(runtime="paddle", enable_mkldnn=False, batch_size=2)
    resize = {"ResizeImage": {"size": [64, 64], "interpolation": "bilinear", "backend": "cv2"}}
    normalize = {"scale": 0.00392157, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "order": "hwc"}
    config["RecPreProcess"] = {"transform_ops": [resize, {"NormalizeImage": normalize}, {"ToCHWImage": None}]}
    path = tmp_path / "rec.yaml"
    path.write_text(yaml.safe_dump(config))
    plain = real_bundle / "paddle"
    result = predict(edgerecall, path, data / "mug_final", plain)
    assert result.returncode == 0 and result.stdout.count(":\t[") == len(list((data / "mug_final").iterdir()))
    one_line(predict(edgerecall, path, data, plain, "-o", "Global.runtime=openvino"), 2, "edgerecall export --model")
    one_line(predict(edgerecall, path, data, plain, "-o", "Global.use_tensorrt=True"), 2, "'runtime: tensorrt'")
    one_line(predict(edgerecall, path, data, plain, "-o", "Global.use_gpu=True"), 2, "CPU build")
    size = "RecPreProcess.transform_ops.0.ResizeImage.size=[224, 224]"
    one_line(
        predict(edgerecall, path, data, plain, "-o", size), 2, "takes 3 x 64 x 64, the preprocessing gives 3 x 224"
    )
    one_line(predict(edgerecall, path, data, plain, "-o", "Global.batch=1"), 2, "did you mean 'batch_size'?")
    one_line(predict(edgerecall, path, data, plain, "-o", "Global.use_onnx=True"), 2, "use 'runtime: onnxruntime'")
    one_line(
        predict(edgerecall, path, data, plain, "-o", "Global.det_inference_model_dir=x", "-o", "Global.threshold=0.2"),
        2,
        "det_inference_model_dir, threshold: of the reference's detection and gallery search",
    )
    one_line(predict(edgerecall, path, data, plain, "-o", "IndexProcess={}"), 2, "'IndexProcess.image_root' is missing")
    told = predict(edgerecall, path, data / "mug_final", real_bundle)
    assert told.returncode == 0 and "RecPreProcess of the config is not used" in told.stderr
    assert "(resize against resize_short)" in told.stderr and told.stderr.count("\n") == 1
    one_line(predict(edgerecall, path, data, tmp_path), 2, "expected a bundle")
    binary = predict(edgerecall, path, data / "mug_final", plain, "-o", "RecPostProcess={Binarize: {method: sign}}")
    assert binary.returncode == 0 and len(binary.stdout.splitlines()[0].split("[")[1].split()) == 4


def test_verify_and_bench_exit_codes(edgerecall: Run, fake_bundle: Make, data: Path, tmp_path: Path) -> None:
    good, noisy = fake_bundle("good").root, fake_bundle("noisy", noise=0.3).root
    assert edgerecall("verify", good).returncode == 0
    assert edgerecall("verify", noisy).returncode == 1
    short = ["--images", data, "--samples", 4, "--rounds", 2]
    files = ["--json", tmp_path / "r.json", "--csv", tmp_path / "r.csv", "--markdown", tmp_path / "r.md"]
    result = edgerecall("bench", good, *short, "--runtime", "fake", *files)
    assert result.returncode == 0 and "delta recall@1" in result.stdout
    assert len(json.loads((tmp_path / "r.json").read_text())["rows"][0]["samples_ns"]) == 4
    markdown = (tmp_path / "r.md").read_text()
    assert "| fake | ok | " in markdown and " | fp32* | " in markdown and (tmp_path / "r.csv").exists()
    assert edgerecall("bench", noisy, *short, "--runtime", "fake").returncode == 1
    assert edgerecall("bench", good, *short, "--runtime", "paddle,lite").returncode == 2  # no artifact for either
    assert edgerecall("bench", good, *short, "--runtime", "all").returncode == 0
    assert edgerecall("bench", good, *short, "--runtime", "tflite").returncode == 2
    assert edgerecall("bench", good, *short, "--threads", 0).returncode == 2


def test_doctor(edgerecall: Run, lite_ready: None) -> None:
    findings = json.loads(edgerecall("doctor", "--json").stdout)
    assert {finding["what"] for finding in findings} >= {"Python", "C++ core", "paddlepaddle", "paddlelite", "openvino"}
    broken = edgerecall("doctor", "--json", env={"EDGERECALL_LITE_PYTHON": "/bin/false"})
    lite = next(finding for finding in json.loads(broken.stdout) if finding["what"] == "paddlelite")
    assert lite["fix"] == "unset EDGERECALL_LITE_PYTHON"
    printed = edgerecall("doctor").stdout
    assert "paddlelite" in printed and "2.13rc0 (" in printed


def test_upgrade(edgerecall: Run, one_line: OneLine, root: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(root / "tests" / "golden" / "bundle-format-1", bundle)
    assert "format 1 -> 2" in edgerecall("upgrade", bundle).stdout
    assert "format 2 already" in edgerecall("upgrade", bundle).stdout
    Bundle.open(bundle).check()
    one_line(edgerecall("upgrade", tmp_path / "none"), 2, "expected a bundle")
