"""Configs: overrides, and one clear line for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from edgerecall.runtimes.core.config import apply_overrides, read_yaml
from edgerecall.runtimes.core.errors import InputError
from edgerecall.train.config.training import load_config


def test_overrides_reach_into_lists(config_file: Path) -> None:
    overrides = ["Global.epochs=7", "Loss.Train.0.ContrastiveLoss_XBM.margin=0.4", "Optimizer.lr.learning_rate=1e-3"]
    config = load_config(config_file, overrides)
    assert config.Global.epochs == 7
    xbm = config.Loss.Train[0].ContrastiveLoss_XBM
    assert xbm is not None and xbm.margin == 0.4
    assert config.Optimizer.lr.learning_rate == 0.001


def test_shipped_configs_are_valid(root: Path) -> None:
    for name in ("demo.yaml", "xbm_resnet50.yaml"):
        load_config(root / "configs" / name)


def test_keys_that_the_reference_config_has(config_file: Path) -> None:
    """The keys of PaddleClas's xbm_resnet50.yaml that our own configs leave out."""
    data = yaml.safe_load(config_file.read_text())
    data["Global"].update(
        checkpoints=None,
        pretrained_model=None,
        use_visualdl=False,
        eval_mode="retrieval",
        retrieval_feature_from="features",
        re_ranking=False,
        save_inference_dir="./inference",
    )
    data["Arch"].update(infer_output_key="features", infer_add_softmax=False, BackboneStopLayer={"name": "flatten"})
    xbm = data["Loss"]["Train"][0]["ContrastiveLoss_XBM"]
    xbm.update(weight=1.0, xbm_weight=1.0, epsilon=1e-5, normalize_feature=True, feature_from="features")
    plain = {"weight": 1.0, "margin": 0.5, "embedding_size": 32, "epsilon": 1e-5, "feature_from": "features"}
    data["Loss"]["Eval"] = [{"ContrastiveLoss": plain}]
    data["Optimizer"]["lr"] = {"name": "ReduceOnPlateau", "learning_rate": 1e-4, "epsilon": "1e-8", "by_epoch": True}
    gallery = data["DataLoader"]["Eval"]["Gallery"]
    gallery["dataset"]["name"] = "VeriWild"
    gallery["sampler"] = {"name": "DistributedBatchSampler", "batch_size": 256, "drop_last": False, "shuffle": False}
    gallery["loader"] = {"num_workers": 4, "use_shared_memory": True}
    data["DataLoader"]["Eval"]["Query"] = gallery
    config_file.write_text(yaml.safe_dump(data))
    assert load_config(config_file).DataLoader.Eval.Query is not None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("Global.epoch=3", "unknown key 'Global.epoch'; did you mean 'epochs'?"),
        ("Arch.Backbone.names=x", "unknown key 'Arch.Backbone.names'; did you mean 'name'?"),
        ("Optimizer.lr.learning_rates=1", "did you mean 'learning_rate'?"),
        ("Global.epochs=many", "'Global.epochs': Input should be a valid integer"),
        ("Global.epochs=0", "greater than or equal to 1, got 0"),
        ("Global.device=tpu", "'Global.device': Input should be 'cpu' or 'gpu', got 'tpu'"),
        ("Arch.Neck.class_num=64", "embedding_size 32 is not Arch.Neck's 64 dimensions"),
        ("Loss.Train.0.ContrastiveLoss_XBM.xbm_size=8", "xbm_size 8 is smaller than the batch of 16"),
        ("DataLoader.Train.sampler.batch_size=15", "no multiple of 4 images per identity"),
        ("Loss.Train.4.x=1", "expected a list index from 0 to 0, got '4'"),
        ("Global.update_freq=2", "iter_per_epoch 3 is no multiple of update_freq 2"),
        ("Loss.Train.0.ContrastiveLoss_XBM.xbm_ratio=0.5", "expected one of xbm_size"),
        ("Loss.Train.0.TripletMarginLoss={embedding_size: 32}", "expected one loss per list entry"),
        ("Optimizer.lr={name: Piecewise, decay_epochs: [1], values: [0.1]}", "one more of values than of decay_epochs"),
        ("Optimizer.lr={name: Cosin, learning_rate: 0.1}", "Cosin"),
        ("Optimizer.lr={name: MultiStepDecay, learning_rate: 0.1, milestones: [3, 2]}", "milestones must rise"),
        ("Optimizer.lr={name: Piecewise, decay_epochs: [3, 2], values: [0.1, 0.1, 0.1]}", "decay_epochs must rise"),
        ("Optimizer.lr={name: Cosine, learning_rate: 0.1, warmup_epoch: 1, warmup_start_lr: 0.1}", "is not below"),
        ("AMP={level: O3}", "O1"),
        ("EMA={decay: 1.5}", "less than 1"),
        ("DataLoader.Train.sampler={name: PKSampler, batch_size: 8, sample_per_id: 2, id_lists: [1]}", "unknown key"),
        ("Global.seed=5000000000", "less than 4294967296"),
        ("Optimizer.momentum=0.5", "momentum is for Momentum"),
        ("Metric.Eval.1.mAP.foo=1", "unknown key"),
        ("Global.epochs", "expected a.b=value"),
        ("Global.epochs.x=1", "'epochs' is a value and has no 'x'"),
    ],
)
def test_mistakes(config_file: Path, override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_config(config_file, [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2", ":1: not valid YAML"),
        ("a: 2020-99-99", "not valid YAML"),
        ("{[1, 2]: 3}", "not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", "not valid YAML"),
        ("a: " + "[" * 5000, "not valid YAML"),
        ("a: \0", "not valid YAML"),
        ("Global: {epochs: 1}\nGlobal: {epochs: 2}\n", "key 'Global' given twice"),
        ("- a\n", "expected sections (a mapping), got list"),
        ("", "expected sections"),
        ("Global: 3\n", "'Global'"),
    ],
)
def test_files_that_are_no_config(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        load_config(tmp_path / "c.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_override_changes_one_place_of_a_shared_value(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("A: {ops: &o [{Resize: {size: 1}}]}\nB: {ops: *o}\n")
    data = apply_overrides(read_yaml(tmp_path / "c.yaml"), ["A.ops.0.Resize.size=300"])
    assert data["A"]["ops"][0]["Resize"]["size"] == 300 and data["B"]["ops"][0]["Resize"]["size"] == 1


def test_aliases_that_multiply(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9))]
    (tmp_path / "c.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError, match="more than 100000 values"):
        read_yaml(tmp_path / "c.yaml")


@pytest.mark.train
def test_queries_must_be_prepared_as_the_gallery(config_file: Path) -> None:
    from edgerecall.train.evaluate import eval_preprocess

    data = yaml.safe_load(config_file.read_text())
    pair = data["DataLoader"]["Eval"]
    pair["Query"] = yaml.safe_load(yaml.safe_dump(pair["Gallery"]))
    for change in ({"backend": "cv2"}, {"transform_ops": [{"Nonsense": None}]}):
        pair["Query"]["dataset"].update(change)
        config_file.write_text(yaml.safe_dump(data))
        with pytest.raises(InputError, match=r"Query\.dataset\.transform_ops"):
            eval_preprocess(load_config(config_file))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_config(tmp_path / "none.yaml")
