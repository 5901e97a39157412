"""Shared fixtures: small generated data, a bundle over the fake runtime, and one real bundle for the session.

Every test is in one tier, given here: by its file or folder, by a fixture that needs more, or by a mark of its own.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from forks import VERBS, Forks
from shared_folders import made_once, shared_place

from edgerecall.runtimes.backends.fake_predictor import pooled_projection
from edgerecall.runtimes.bundle.bundle import Bundle, write_vectors
from edgerecall.runtimes.bundle.manifest import EMBEDDINGS, FORMAT_VERSION, TENSORS, Artifact, Manifest, describe_file
from edgerecall.runtimes.bundle.spec import Spec
from edgerecall.runtimes.preprocess.ops import CenterCrop, Decode, Normalize, Preprocess, ResizeShort
from edgerecall.runtimes.preprocess.pipeline import preprocess_file

ROOT = Path(__file__).resolve().parent.parent
RUNTIMES = ("paddle", "onnxruntime", "openvino", "lite")
SIDE = 64
Run = Callable[..., subprocess.CompletedProcess[str]]

TIERS = ("core", "runtime", "train", "device")
# Of files and folders; the innermost counts. Files of the core import nothing that it has not.
FILE_TIERS = {
    "bench": "core",
    "attack": "core",
    "benchmarks": "core",
    "cli": "core",
    "cross": "core",
    "export": "train",
    "export/formats": "runtime",
    "export/test_given.py": "core",
    "export/sources": "runtime",
    "runtimes": "core",
    "runtimes/backends/test_no_telemetry.py": "runtime",
    "runtimes/backends/test_onnxruntime_cuda.py": "runtime",
    "runtimes/detect/test_detector.py": "runtime",
    "runtimes/gpu/test_tensorrt.py": "runtime",
    "scripts": "core",
    "serve": "core",
    "train": "train",
    "train/config": "core",
    "train/data": "core",
    "web": "core",
}
FIXTURE_TIERS = {"lite_ready": "runtime", "real_bundle": "runtime", "trained": "train"}


def file_tier(path: Path) -> str | None:
    """What the table says of a file."""
    place = path.relative_to(ROOT / "tests")
    return next((FILE_TIERS[name] for name in map(Path.as_posix, (place, *place.parents)) if name in FILE_TIERS), None)


def tier(item: pytest.Item) -> str:
    """The one tier of a test: its mark, else its file's, which a fixture raises above the core."""
    marks = {mark.name for mark in item.iter_markers()} & set(TIERS)
    found = file_tier(item.path)
    if len(marks) > 1 or "core" in marks or not (marks or found):
        raise pytest.UsageError(
            f"{item.nodeid}: expected its file or folder in FILE_TIERS of tests/conftest.py, or one mark above the core"
        )
    if marks:
        return marks.pop()
    needs = [FIXTURE_TIERS[name] for name in FIXTURE_TIERS if name in getattr(item, "fixturenames", ())]
    return needs[0] if needs and found == "core" else str(found)


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks each test with its tier."""
    for item in items:
        item.add_marker(tier(item))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With '-m core', or that in 'and', files of other tiers are not imported: what they import may not be there."""
    if "core" in config.option.markexpr.split(" and ") and collection_path.name.startswith("test_"):
        return True if file_tier(collection_path) in ("runtime", "train") else None
    return None


@pytest.fixture(autouse=True)
def _sidecar_where_lite_is_asked_for(request: pytest.FixtureRequest) -> None:
    """Of a test over several real runtimes, only the case of Lite needs the sidecar."""
    parameters = request.node.callspec.params.values() if hasattr(request.node, "callspec") else ()
    if "real_bundle" in request.fixturenames and "lite" in parameters:
        request.getfixturevalue("lite_ready")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated data set: 12 training and 6 test classes of 6 images."""
    from edgerecall.train.data.synth import SynthOptions, synthesise

    def make(folder: Path) -> None:
        synthesise(folder / "products", SynthOptions(12, 6, 6, size=96, seed=5), "tests", lambda count: None)

    return made_once(tmp_path_factory, "data", make) / "products"


def make_config(data: Path, output: Path, **changes: Any) -> dict[str, Any]:
    """A small training config as plain data; `changes` replace sections."""
    normalize = {"Normalize": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}
    config: dict[str, Any] = {
        "Global": {
            "output_dir": str(output),
            "device": "cpu",
            "epochs": 1,
            "iter_per_epoch": 3,
            "print_batch_step": 1,
            "image_shape": [3, SIDE, SIDE],
        },
        "Arch": {
            "name": "RecModel",
            "Backbone": {"name": "MobileNetV3_small_x0_35"},
            "Neck": {"name": "FC", "embedding_size": 1280, "class_num": 32},
        },
        "Loss": {
            "Train": [{"ContrastiveLoss_XBM": {"xbm_size": 24, "start_iter": 1, "margin": 0.5, "embedding_size": 32}}]
        },
        "Optimizer": {"name": "Adam", "lr": {"name": "Constant", "learning_rate": 0.002}},
        "DataLoader": {
            "Train": {
                "dataset": {
                    "image_root": str(data),
                    "cls_label_path": str(data / "train_list.txt"),
                    "backend": "pil",
                    "transform_ops": [
                        {"RandomResizedCrop": {"size": SIDE, "scale": [0.5, 1.0]}},
                        {"RandomHorizontalFlip": {"prob": 0.5}},
                        {"ToTensor": None},
                        normalize,
                    ],
                },
                "sampler": {"name": "DistributedRandomIdentitySampler", "batch_size": 16, "num_instances": 4},
                "loader": {"num_workers": 0},
            },
            "Eval": {
                "Gallery": {
                    "dataset": {
                        "image_root": str(data),
                        "cls_label_path": str(data / "test_list.txt"),
                        "backend": "pil",
                        "transform_ops": [
                            {"Resize": {"size": 72}},
                            {"CenterCrop": {"size": SIDE}},
                            {"ToTensor": None},
                            normalize,
                        ],
                    }
                }
            },
        },
        "Metric": {"Eval": [{"Recallk": {"topk": [1, 5]}}, {"mAP": {}}]},
    }
    config.update(changes)
    return config


@pytest.fixture
def config_file(data: Path, tmp_path: Path) -> Path:
    """The small training config, on disk."""
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(make_config(data, tmp_path / "run")))
    return path


COMMAND_S = 300


def run_command(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """`edgerecall ARGUMENTS` in a process of its own."""
    texts = list(map(str, arguments))
    environment = {**os.environ, **options.pop("env", {})}
    if options.keys() <= {"cwd"} and texts and texts[0] in VERBS:
        forks = forks_of(VERBS[texts[0]])
        if forks.fits(environment):
            return forks.run(texts, str(options.get("cwd", Path.cwd())), environment)
    command = [sys.executable, "-m", "edgerecall", *texts]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=COMMAND_S, check=False, env=environment, **options
    )


FORKS: dict[str, Forks] = {}


def forks_of(imported: str) -> Forks:
    """Started when first asked for, or when the one before was closed; they end with the tests' process."""
    if imported not in FORKS or FORKS[imported].closed:
        FORKS[imported] = Forks(imported, COMMAND_S)
        atexit.register(FORKS[imported].close)
    return FORKS[imported]


@pytest.fixture(scope="session")
def edgerecall() -> Run:
    """Runs the command line."""
    return run_command


def assert_one_line(result: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    """The exit code, and a message of one line, without traceback, that holds all parts."""
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("edgerecall: ")]
    assert len(lines) == 1, result.stderr
    for part in parts:
        assert part in lines[0], lines[0]


@pytest.fixture(scope="session")
def one_line() -> Callable[..., None]:
    """Checks a failed command's message."""
    return assert_one_line


def demo_preprocess() -> Preprocess:
    """What the fake bundle and the test config do to images."""
    return Preprocess(
        ops=(
            Decode(),
            ResizeShort(size=72, rounding="truncate"),
            CenterCrop(height=SIDE, width=SIDE, margin="round"),
            Normalize(),
        )
    )


def make_fake_bundle(folder: Path, images: list[Path], **behaviour: Any) -> Bundle:
    """A bundle whose only artifact is the fake runtime with this behaviour."""
    (folder / "golden").mkdir(parents=True)
    (folder / "fake").mkdir()
    model = folder / "fake" / "model.json"
    model.write_text(json.dumps(behaviour))
    preprocess = demo_preprocess()
    names = []
    for index, image in enumerate(images):
        names.append(f"golden/{index:02d}{image.suffix.lower()}")
        (folder / names[-1]).write_bytes(image.read_bytes())
    tensors = np.stack([preprocess_file(image, preprocess) for image in images])
    embeddings = pooled_projection(16)(tensors)
    write_vectors(folder, tensors, embeddings)
    artifact = Artifact(name="fake", runtime="fake", targets=("any",), files=(describe_file(folder, model, "model"),))
    manifest = Manifest(
        format_version=FORMAT_VERSION,  # type: ignore[arg-type]
        spec=Spec(input_name="x", input_shape=(3, SIDE, SIDE), embedding_dim=16, preprocess=preprocess),
        source={},
        tools={},
        command="tests",
        artifacts=(artifact,),
        golden=tuple(describe_file(folder, folder / name, "golden") for name in (*names, TENSORS, EMBEDDINGS)),
        golden_images=tuple(names),
    )
    bundle = Bundle(folder, manifest)
    bundle.save()
    return Bundle.open(folder)


@pytest.fixture(scope="session")
def fake_bundle_in() -> Callable[..., Bundle]:
    """Makes a fake bundle in a folder, of images, with the behaviour given."""
    return make_fake_bundle


@pytest.fixture
def fake_bundle(data: Path, tmp_path: Path) -> Callable[..., Bundle]:
    """Makes a fake bundle with the behaviour given."""
    images = sorted(data.glob("*_final/*.JPG"))[:4]

    def make(name: str = "bundle", **behaviour: Any) -> Bundle:
        return make_fake_bundle(tmp_path / name, images, **behaviour)

    return make


@pytest.fixture(scope="session")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.yaml and run/, trained by the command line until its embeddings spread."""

    def make(folder: Path) -> None:
        config = make_config(data, folder / "run")
        config["DataLoader"]["Train"]["loader"]["num_workers"] = 2
        config["Global"]["iter_per_epoch"] = 60
        config["Optimizer"]["lr"] = {"name": "Cosine", "learning_rate": 0.003}
        (folder / "train.yaml").write_text(yaml.safe_dump(config))
        result = run_command("train", "-c", folder / "train.yaml")
        assert result.returncode == 0, result.stderr

    return made_once(tmp_path_factory, "trained", make)


@pytest.fixture(scope="session")
def lite_ready() -> None:
    """The Lite sidecar must be there: no test of the real runtimes is skipped."""
    from edgerecall.runtimes.core.errors import RuntimeUnavailable
    from edgerecall.runtimes.sidecars.sidecar import LITE

    try:
        found = LITE.find_python()
    except RuntimeUnavailable as error:
        pytest.fail(str(error))
    if found is None:
        pytest.fail("no Paddle Lite sidecar: run 'edgerecall doctor --fix lite'")


@pytest.fixture(scope="session")
def real_bundle(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the trained network in every format, made by the command line; without Lite's where no sidecar is."""

    def make(folder: Path) -> None:
        source = ("-c", trained / "train.yaml", "--checkpoint", trained / "run" / "latest")
        result = run_command("export", folder / "bundle", *source)
        assert result.returncode == 0, result.stdout + result.stderr

    return made_once(tmp_path_factory, "real_bundle", make) / "bundle"


@pytest.fixture(scope="session")
def device_bundle() -> Path:
    """A small bundle in every format, for the stand-alone program."""
    return ROOT / "tests" / "golden" / "bundle"


@pytest.fixture(scope="session")
def cross(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Builds the stand-alone program for a target with runtimes, as a user does; its archive. Once, whichever of
    several test processes comes first.
    """
    shared = shared_place(tmp_path_factory)

    def build(target: str, runtimes: str) -> Path:
        archive = ROOT / "dist" / f"edgerecall-{'' if target == 'web' else 'device-'}{target}.tar.gz"
        with (shared / f"cross-{target}").open("a+") as done:
            fcntl.flock(done, fcntl.LOCK_EX)
            done.seek(0)
            built = done.read()
            if not built:
                make(target, runtimes)
                done.write(runtimes)
            assert built in ("", runtimes)
        return archive

    def make(target: str, runtimes: str) -> None:
        command = [sys.executable, "-m", "edgerecall", "cross", target, "--runtime", runtimes]
        result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert result.returncode == 0, result.stderr

    return build


@pytest.fixture(scope="session")
def web_archive(cross: Callable[[str, str], Path]) -> Path:
    """What browsers are served."""
    return cross("web", "all")


@pytest.fixture(scope="session")
def device_archive(cross: Callable[[str, str], Path]) -> Path:
    """The program for this machine."""
    return cross("linux-x86_64", "onnxruntime,openvino")
