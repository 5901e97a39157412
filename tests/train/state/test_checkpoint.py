"""Checkpoints from outside: nothing in them runs, and every mismatch is named."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import paddle
import pytest

from edgerecall.runtimes.core.errors import InputError
from edgerecall.train.config.training import ArchSection
from edgerecall.train.network import EmbeddingNetwork
from edgerecall.train.state.checkpoint import load_network, read_arrays, read_state


def network(name: str = "PPLCNet_x0_25", features: int = 1280, **options: object) -> EmbeddingNetwork:
    neck = {"name": "FC", "embedding_size": features, "class_num": 8}
    return EmbeddingNetwork(
        ArchSection.model_validate({"name": "RecModel", "Backbone": {"name": name, **options}, "Neck": neck})
    )


def test_paddles_own_file_comes_back(tmp_path: Path) -> None:
    source, target = network(), network()
    paddle.save(source.state_dict(), str(tmp_path / "a.pdparams"))
    load_network(target, tmp_path / "a")
    for name, tensor in source.state_dict().items():
        assert (tensor.numpy() == target.state_dict()[name].numpy()).all()


def test_old_pickle_protocols(tmp_path: Path) -> None:
    for protocol in (2, 3, 4):
        with (tmp_path / "p.pdparams").open("wb") as stream:
            pickle.dump({"w": np.arange(6, dtype=np.float32).reshape(2, 3)}, stream, protocol=protocol)
        assert read_arrays(tmp_path / "p.pdparams")["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


class Payload:
    """What a checkpoint from the web may hold."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, (f"touch {self.target}",))


def test_a_payload_does_not_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "evil.pdparams", tmp_path / "ran"
    path.write_bytes(pickle.dumps({"w": Payload(trace)}))
    with pytest.raises(InputError, match=r"refused: it wants to load (posix|os)\.system"):
        read_state(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())  # the payload is real: plain pickle runs it
    assert trace.exists()


@pytest.mark.parametrize(
    "attack", ["builtins eval", "builtins getattr", "numpy load", "numpy.core.multiarray c_einsum"]
)
def test_no_other_callable_is_admitted(tmp_path: Path, attack: str) -> None:
    module, name = attack.split()
    (tmp_path / "x.pdparams").write_bytes(f"c{module}\n{name}\n.".encode())
    with pytest.raises(InputError, match="wants to load"):
        read_state(tmp_path / "x.pdparams")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps([1, 2]), "expected a state dict, got list"),
        (pickle.dumps({"w": "text"}), "expected arrays, 'w' is str"),
        (b"", "damaged"),
        (b"not a pickle at all", "damaged"),
        (pickle.dumps({"w": np.zeros(100)})[:-40], "damaged"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.pdparams").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_arrays(tmp_path / "x.pdparams")


def test_another_architecture_names_what_differs(tmp_path: Path) -> None:
    paddle.save(network("MobileNetV3_small_x0_35").state_dict(), str(tmp_path / "m.pdparams"))
    with pytest.raises(InputError, match=r"\d+ missing: .*; \d+ unexpected: .*another architecture"):
        load_network(network(), tmp_path / "m")
    state = dict(network().state_dict())
    state["neck.fc.weight"] = paddle.zeros([3, 3])
    paddle.save(state, str(tmp_path / "s.pdparams"))
    with pytest.raises(InputError, match=r"1 wrong shape: neck.fc.weight \[3, 3\] instead of \[1280, 8\]"):
        load_network(network(), tmp_path / "s")


def test_reference_names() -> None:
    """The reference's XBM ResNet50: 267 keys, the memory apart."""
    net = network("ResNet50_adaptive_max_pool2d", 2048, stem_act=None)
    keys = net.state_dict()
    assert len(keys) == 267
    assert keys["backbone.stem.0.conv.weight"].shape == [64, 3, 7, 7]
    for name in ("backbone.stem.0.bn._mean", "backbone.blocks.0.short.conv.weight", "backbone.blocks.15.conv2.bn.bias"):
        assert name in keys
    assert keys["neck.fc.weight"].shape == [2048, 8]


def test_the_memory_in_a_checkpoint_is_no_part_of_the_network(tmp_path: Path) -> None:
    state = {**network().state_dict(), "loss_func.0.xbm.feats": paddle.ones([4, 8])}
    paddle.save(state, str(tmp_path / "x.pdparams"))
    load_network(network(), tmp_path / "x")
