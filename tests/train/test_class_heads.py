"""Training with a class head and several losses: from a folder of images to a bundle, stopped and resumed, and between
networks with and without a head.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from headed_config import headed, run

from edgerecall.runtimes.core.config import apply_overrides
from edgerecall.runtimes.core.errors import InputError
from edgerecall.train.config.training import load_config
from edgerecall.train.state.checkpoint import read_arrays
from edgerecall.train.trainer import Trainer

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_all_the_way_with_a_head(config_file: Path, edgerecall: Run, tmp_path: Path) -> None:
    """An epoch is a pass over the list where the config does not say; the bundle has no head in it."""
    path = headed(config_file, epochs=15, eval_interval=15, save_interval=15)
    data = yaml.safe_load(path.read_text())
    del data["Global"]["iter_per_epoch"]
    data["Optimizer"]["lr"] = {"name": "Cosine", "learning_rate": 0.003}
    path.write_text(yaml.safe_dump(data))
    result = edgerecall("train", "-c", path)
    assert result.returncode == 0, result.stderr
    assert "[Iter 1/75]" in result.stdout  # 72 images in batches of 16, the last one filled up, 15 times
    assert "CELoss + ContrastiveLoss_XBM + CenterLoss" in result.stdout
    latest = load_config(path).Global.output_dir / "latest"
    arrays = read_arrays(latest.with_suffix(".pdparams"))
    assert arrays["head.weight"].shape == (32, 12) and arrays["loss_func.2.centers"].shape == (12, 32)
    assert arrays["loss_func.1.xbm.feats"].shape == (48, 32)
    assert edgerecall("eval", "-c", path, "--checkpoint", latest).returncode == 0
    bundle = tmp_path / "bundle"
    made = edgerecall("export", bundle, "-c", path, "--checkpoint", latest, "--formats", "onnx")
    assert made.returncode == 0 and "32-d" in made.stdout, made.stderr
    # PaddleClas's way: everything from the config.
    words = ("-o", f"Global.pretrained_model={latest}", "-o", f"Global.save_inference_dir={tmp_path / 'inference'}")
    made = edgerecall("export", "-c", path, *words, "--formats", "onnx")
    assert made.returncode == 0 and (tmp_path / "inference" / "bundle.json").is_file(), made.stderr
    missing = edgerecall("export", "-c", path)
    assert missing.returncode == 2 and "Global.pretrained_model" in missing.stderr


WITHOUT_GRADIENTS: dict[str, list[str]] = {
    "all have gradients": [],
    "branches, whose joined kernel has none": ["Arch.Backbone.name=PPLCNetV2_small"],
    "a neck that no loss sees": [
        "Arch.Head=null",
        "Loss.Train=[{TripletLossV2: {feature_from: backbone}}]",
        "DataLoader.Train.sampler={name: PKSampler, batch_size: 16, sample_per_id: 4}",
    ],
}


@pytest.mark.parametrize("name", WITHOUT_GRADIENTS)
def test_a_resumed_training_is_the_same_to_the_bit(config_file: Path, tmp_path: Path, name: str) -> None:
    path = headed(config_file, iter_per_epoch=2, epochs=2)
    data = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(apply_overrides(data, WITHOUT_GRADIENTS[name])))
    whole, parts = f"Global.output_dir={tmp_path / 'whole'}", f"Global.output_dir={tmp_path / 'parts'}"
    run(path, whole)
    run(path, parts, "Global.epochs=1")
    run(path, parts, resume=True)
    first, second = (read_arrays(tmp_path / name / "latest.pdparams") for name in ("whole", "parts"))
    assert first.keys() == second.keys() and all((first[name] == second[name]).all() for name in first)


@pytest.fixture
def trained_head(config_file: Path, tmp_path: Path) -> Path:
    run(headed(config_file), f"Global.output_dir={tmp_path / 'head'}")
    return tmp_path / "head" / "latest"


def plain(config_file: Path) -> Path:
    """Without head, by pairs alone."""
    data = yaml.safe_load(config_file.read_text())
    data["Arch"].pop("Head", None)
    data["Loss"]["Train"] = [{"ContrastiveLoss_XBM": {"xbm_size": 48, "embedding_size": 32}}]
    config_file.write_text(yaml.safe_dump(data))
    return config_file


def test_fine_tuning_either_way_says_what_was_taken(config_file: Path, trained_head: Path, tmp_path: Path) -> None:
    begin = f"Global.pretrained_model={trained_head}"
    trainer = Trainer(load_config(plain(config_file), [begin, f"Global.output_dir={tmp_path / 'a'}"]))
    told = str(trainer.taken)
    count = len(trainer.network.state_dict())
    assert f": {count} arrays taken, 1 left there (head.weight)" in told and "new here" not in told
    saved = read_arrays(trained_head.with_suffix(".pdparams"))
    assert (trainer.network.neck.fc.weight.numpy() == saved["neck.fc.weight"]).all()
    run(config_file, f"Global.output_dir={tmp_path / 'plain'}")
    begin = f"Global.pretrained_model={tmp_path / 'plain' / 'latest.pdparams'}"
    trainer = Trainer(load_config(headed(config_file), [begin, f"Global.output_dir={tmp_path / 'b'}"]))
    assert f": {count} arrays taken, 1 new here (head.weight)" in str(trainer.taken)
    with pytest.raises(InputError, match=r"1 missing: head\.weight; Global\.strict_load=False"):
        Trainer(load_config(config_file, [begin, "Global.strict_load=True"]))


def test_weights_of_another_network_are_refused(config_file: Path, trained_head: Path) -> None:
    other = ["Arch.Backbone.name=PPLCNet_x0_25", f"Global.pretrained_model={trained_head}"]
    with pytest.raises(InputError, match=r"fit \d+ of the network's \d+ arrays"):
        Trainer(load_config(config_file, other))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "Arch.Head.class_num=11",
            r"Arch\.Head\.class_num: 11 classes have labels 0 to 10, the training list has 0 to 11",
        ),
        ("Loss.Train.2.CenterLoss.num_classes=5", r"CenterLoss\.num_classes: 5 classes"),
        ("Arch.Head.embedding_size=31", "Head.embedding_size 31 is not the 32 dimensions of the neck"),
        ("Arch.Head=null", r"CELoss needs logits: add Arch\.Head"),
        ("Loss.Train=[{SupConLoss: {}}]", r"Arch\.Head is trained by CELoss alone"),
        ("DataLoader.Eval.Gallery.dataset.cls_label_path=none.txt", r"list none\.txt: No such file"),
        ("Global.pretrained_model=output/RecModel/best_model", r"RecModel/best_model\.pdparams: No such file"),
        ("Loss.Train.0.TripletMarginLoss_XBM={xbm_size: 64}", "expected one loss per list entry"),
    ],
)
def test_what_does_not_fit_is_said_before_the_first_iteration(config_file: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Trainer(load_config(headed(config_file), [override]))


def test_the_folder_that_paddleclas_makes_is_not_needed(config_file: Path, trained_head: Path) -> None:
    theirs = trained_head.parent / "RecModel" / "latest"
    with pytest.raises(InputError, match=r"is it .*/head/latest\.pdparams\? There is no folder RecModel here"):
        Trainer(load_config(config_file, [f"Global.pretrained_model={theirs}"]))


def test_an_earlier_training_keeps_its_metrics(config_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = headed(config_file)
    run(path)
    folder = load_config(path).Global.output_dir
    before = (folder / "metrics.jsonl").read_text()
    run(path)
    assert (folder / "metrics.earlier.jsonl").read_text() == before != ""
    assert any("its metrics are kept as metrics.earlier.jsonl" in message for message in caplog.messages)


def test_labels_are_counted_anew_where_the_data_set_says_so(config_file: Path, data: Path, tmp_path: Path) -> None:
    lines = (data / "train_list.txt").read_text().splitlines()
    moved = tmp_path / "moved.txt"
    moved.write_text("".join(f"{path} {int(label) * 7 + 100}\n" for path, label in map(str.split, lines)))
    path = headed(config_file)
    words = [f"DataLoader.Train.dataset.cls_label_path={moved}"]
    with pytest.raises(InputError, match=r"the training list has 100 to 177: raise it, or set .*relabel"):
        Trainer(load_config(path, words))
    trainer = Trainer(load_config(path, [*words, "DataLoader.Train.dataset.relabel=True"]))
    assert np.unique(trainer.images.labels).tolist() == list(range(12))
    one = tmp_path / "one.txt"
    one.write_text("".join(f"{path} 3\n" for path, _ in map(str.split, lines)))
    with pytest.raises(InputError, match="images of two classes or more"):
        Trainer(load_config(path, [f"DataLoader.Train.dataset.cls_label_path={one}"]))
