"""Evaluation as a classifier, and embeddings made binary."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
import yaml
from headed_config import ARC, headed

from edgerecall.runtimes.core.errors import InputError
from edgerecall.train import classify
from edgerecall.train.classify import class_list, class_ranks
from edgerecall.train.config.training import load_config
from edgerecall.train.evaluate import binary, encode_sets
from edgerecall.train.heads import build_head
from edgerecall.train.setup import build_network
from edgerecall.train.trainer import Trainer

Run = Callable[..., subprocess.CompletedProcess[str]]
CLASSES = [{"CELoss": {}}]


def classifier(config_file: Path, data: Path, **changes: Any) -> Path:
    """The small config with a head, evaluated on its training list as a classifier, as PaddleClas writes it."""
    headed(config_file, CLASSES, **changes)
    config = yaml.safe_load(config_file.read_text())
    single = config["DataLoader"]["Eval"]["Gallery"]
    single["dataset"]["cls_label_path"] = str(data / "train_list.txt")
    config["DataLoader"]["Eval"] = single
    config["Metric"] = {"Train": [{"TopkAcc": {"topk": [1, 5]}}], "Eval": [{"TopkAcc": {"topk": [1, 3]}}]}
    config_file.write_text(yaml.safe_dump(config))
    return config_file


def test_accuracy_is_trained_recorded_and_evaluated(
    config_file: Path, data: Path, edgerecall: Run, tmp_path: Path
) -> None:
    path = classifier(config_file, data, epochs=6, eval_interval=3, iter_per_epoch=10)
    config = yaml.safe_load(path.read_text())
    config["Arch"]["Head"] = {"name": "FC", "embedding_size": 32, "class_num": 12}
    path.write_text(yaml.safe_dump(config))
    result = edgerecall("train", "-c", path)
    assert result.returncode == 0 and "[Eval][Epoch 6][Avg]top1: " in result.stdout, result.stderr
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    *_, last = [record for record in records if record["kind"] == "eval"]
    assert last.keys() >= {"top1", "top3"} and 0.3 < last["top1"] <= last["top3"] <= 1.0  # by chance .083
    assert (tmp_path / "run" / "best_model.pdparams").is_file()
    again = edgerecall("eval", "-c", path, "--checkpoint", tmp_path / "run" / "latest")
    assert again.returncode == 0 and f"top1: {last['top1']:.5f}, top3: {last['top3']:.5f}" in again.stdout
    without = edgerecall("eval", "-c", path)
    assert without.returncode == 2 and "needs the trained head: give --checkpoint" in without.stderr
    failures = edgerecall("eval", "-c", path, "--failures", tmp_path / "f", "--checkpoint", tmp_path / "run" / "latest")
    assert failures.returncode == 2 and not (tmp_path / "f").exists()
    made = edgerecall(
        "export", tmp_path / "b", "-c", path, "--checkpoint", tmp_path / "run/latest", "--formats", "onnx"
    )
    assert made.returncode == 0, made.stderr


def test_ranks_against_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The margin plays no part: an image on its own class's vector has rank 0 whatever the margin takes from it."""
    paddle.seed(0)
    head = build_head(load_arc(2.5))
    head.eval()
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((2500, 32)).astype(np.float32)
    labels = rng.integers(0, 12, 2500)
    weights = head.weight.numpy().astype(np.float64)
    embeddings[0] = weights[:, labels[0]]
    monkeypatch.setattr(classify, "LOGITS", 12_000)  # in three pieces
    ranks = class_ranks(head, embeddings, labels, 12)
    assert ranks[0] == 0
    weights /= np.linalg.norm(weights, axis=0)
    for row in range(0, 2500, 7):
        cosines = embeddings[row] @ weights
        assert ranks[row] == sum(cosines > cosines[labels[row]])


def test_a_head_that_tells_nothing_is_not_right() -> None:
    head = build_head(load_arc(0.2))
    head.eval()
    head.weight.set_value(paddle.ones_like(head.weight))
    assert (class_ranks(head, np.ones((3, 32), np.float32), np.array([0, 5, 11]), 12) == 6).all()
    head.weight.set_value(head.weight * float("nan"))
    with pytest.raises(InputError, match="the class head gives NaN or infinity"):
        class_ranks(head, np.ones((3, 32), np.float32), np.array([0, 5, 11]), 12)


def load_arc(margin: float) -> Any:
    from edgerecall.train.config.arch import ArcMarginHead

    return ArcMarginHead.model_validate({**ARC, "margin": margin})


def test_classes_that_the_head_does_not_tell(config_file: Path, data: Path) -> None:
    path = classifier(config_file, data)
    config = yaml.safe_load(path.read_text())
    test_list = str(data / "test_list.txt")  # other classes, labelled after those of training
    config["DataLoader"]["Eval"]["dataset"]["cls_label_path"] = test_list
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match="the class head tells labels 0 to 11, the list has 12 to 17"):
        Trainer(load_config(path))
    Trainer(load_config(path, ["Global.eval_mode=retrieval"]))


def test_labels_count_as_training_counts_them(config_file: Path, data: Path, tmp_path: Path) -> None:
    """Where training relabels, so is a list that has some of the classes alone."""
    lines = [line.split() for line in (data / "train_list.txt").read_text().splitlines()]
    for name, kept in (("train", range(12)), ("some", (4, 9))):
        text = "".join(f"{path} {100 + 5 * int(label)}\n" for path, label in lines if int(label) in kept)
        (tmp_path / f"{name}.txt").write_text(text)
    lists = (("Train", "train"), ("Eval", "some"))
    overrides = [f"DataLoader.{part}.dataset.cls_label_path={tmp_path / name}.txt" for part, name in lists]
    path = classifier(config_file, data)
    config = load_config(path, [*overrides, "DataLoader.Train.dataset.relabel=True"])
    assert set(class_list(config).labels.tolist()) == {4, 9}
    (tmp_path / "some.txt").write_text(f"{lines[0][0]} 7\n")
    with pytest.raises(InputError, match="label 7 is not in the training list"):
        class_list(config)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["Arch.Head=null", "Loss.Train=[{SupConLoss: {}}]"], "'classification' needs Arch.Head"),
        (["Global.eval_mode=regression"], "Global.eval_mode"),
        (["Global.feature_normalize=False"], "feature_normalize: False goes with feature_binarize"),
        (["Global.feature_binarize=round"], "round is of numbers from 0 to 1: add feature_normalize: False"),
    ],
)
def test_what_does_not_go_together(config_file: Path, data: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_config(classifier(config_file, data), overrides)


def test_binary_embeddings_order_as_hamming_distances_do(config_file: Path) -> None:
    raw = np.array([[-2.0, 0.1, 0.49, 0.51, 0.0], [3.0, -0.1, 0.6, 1.0, 0.2]], np.float32)
    np.testing.assert_array_equal(binary(raw, "sign"), [[-1, 1, 1, 1, -1], [1, -1, 1, 1, 1]])
    np.testing.assert_array_equal(binary(raw, "round"), [[-1, -1, -1, 1, -1], [1, -1, 1, 1, -1]])
    np.testing.assert_array_equal(binary(raw, None), raw)
    config = load_config(config_file, ["Global.feature_binarize=sign", "Global.feature_normalize=False"])
    state = build_network(config).state_dict()
    found, _ = encode_sets(config, state)
    plain, _ = encode_sets(load_config(config_file), state)
    np.testing.assert_allclose(found.embeddings, np.sign(plain.embeddings) / np.sqrt(32), rtol=1e-6)


def test_the_transforms_say_the_size(config_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = load_config(config_file, ["Global.image_shape=[3, 96, 96]"])
    assert config.Global.image_shape == (3, 64, 64)
    assert "Global.image_shape is [3, 96, 96], but the evaluation's transforms give [3, 64, 64]" in caplog.text
